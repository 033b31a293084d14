"""Asks devices for what is missing, and takes their signed answers.

A gap that is older than the grace time is asked for by a signed command; without an answer again
after twice as long each time. The answer's record is kept with the gap.
"""

import base64
import json
import sqlite3
from collections.abc import Iterator

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import StorageError
from agent.core.store import Store
from agent.evidence import gaprecord
from agent.evidence.keys import DeviceKey, PublicKey
from agent.evidence.receipt import sign_command
from agent.receiver import gaps
from agent.receiver.config import ReceiverConfig

WORD = "replay"
MOST_NUMBERS = 10_000  # asked for at once; the device answers for no more
MOST_ASKED = 8  # commands a look
LOOK_NS = 5 * NS_PER_S
FIRST_AGAIN_MS = 300_000
LAST_AGAIN_MS = 86_400_000

_log = log.get(__name__)


class Replays:
    """Commands to replay what is missing; used by one thread."""

    def __init__(self, store: Store, config: ReceiverConfig, key: DeviceKey, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._key = key
        self._clock = clock
        self._look_ns = min(LOOK_NS, int(config.replay_after_s * NS_PER_S))
        self._next_ns = 0

    def due(self) -> Iterator[wire.Json]:
        """Give the commands to send now; each device by its name in them."""
        now_ns = self._clock.mono_ns()
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + self._look_ns
        now_ms = self._clock.utc_ns() // NS_PER_MS
        try:
            with self._store.reading() as connection:
                rows = _overdue(connection, now_ms)
            if rows:
                self._store.write(lambda connection: _asked(connection, rows, now_ms))
        except StorageError as error:
            _log.error("gaps not asked for", reason=error)
            return
        for row in rows:
            yield self._command(row, now_ms)

    def _command(self, row: sqlite3.Row, now_ms: int) -> wire.Json:
        last = min(row["last_seq"], row["first_seq"] + MOST_NUMBERS - 1)
        wanted = {"boot": row["boot"], "lane": row["lane"], "from": row["first_seq"], "to": last}
        _log.info("replay asked for", device=row["device"], **wanted)
        fields = {
            "id": self._clock.new_id(),
            "device": row["device"],
            "word": WORD,
            "args": wire.check("replay", wanted),
            "issued_utc_ms": now_ms,
            "receiver": self._config.name,
        }
        return sign_command(fields, self._key)


def check_answer(envelope: wire.Json, key: PublicKey) -> None:
    """Check the signed record of an answer, if it holds one; IntegrityError if it is not true."""
    record = envelope["body"].get("record")
    if record is not None:
        gaps.check_spans(gaprecord.opened(record, key, envelope["device"])["missing"])


def take_answer(connection: sqlite3.Connection, envelope: wire.Json) -> None:
    """Keep a checked answer's record with the gaps it explains."""
    body = envelope["body"]
    if "record" not in body:
        if body["state"] == "refused":
            _log.warning("command refused", device=envelope["device"], reason=body["detail"])
        return
    record = json.loads(base64.b64decode(body["record"]["payload"]))
    series = gaps.Series(envelope["device"], record["boot"], record["lane"])
    for item in record["missing"]:
        why = gaps.Why(item["reason"], body["record"], record["utc_ms"])
        gaps.tell(connection, series, gaps.runs_of(item), why)


def _overdue(connection: sqlite3.Connection, now_ms: int) -> list[sqlite3.Row]:
    """Give the gaps to ask for, each device's first one before any device's second one.

    A time far ahead comes of a clock that was set back since.
    """
    return connection.execute(
        "SELECT device, boot, lane, first_seq, last_seq, asks FROM (SELECT *, row_number()"
        " OVER (PARTITION BY device ORDER BY ask_utc_ms) AS turn FROM gap WHERE state = 'open'"
        " AND (ask_utc_ms <= ? OR ask_utc_ms > ?)) ORDER BY turn, ask_utc_ms LIMIT ?",
        (now_ms, now_ms + 2 * LAST_AGAIN_MS, MOST_ASKED),
    ).fetchall()


def _asked(connection: sqlite3.Connection, rows: list[sqlite3.Row], now_ms: int) -> None:
    connection.executemany(
        "UPDATE gap SET asks = asks + 1, ask_utc_ms = ?"
        " WHERE device = ? AND boot = ? AND lane = ? AND first_seq = ?",
        [
            (
                now_ms + min(FIRST_AGAIN_MS << min(row["asks"], 10), LAST_AGAIN_MS),
                *(row["device"], row["boot"], row["lane"], row["first_seq"]),
            )
            for row in rows
        ],
    )
