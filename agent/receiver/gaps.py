"""Numbers that are missing in (device, boot, lane): noted, closed when they come, or explained.

Everything happens inside the transaction that stores the message, so that a crash leaves the
notes and the messages in step. A device's gaps are bounded; explained ones make room first.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.core import log, wire
from agent.core.errors import MalformedMessage

MOST_GAPS = 2000  # a device
EVICTED = "evicted"

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Series:
    """What is numbered without holes."""

    device: str
    boot: int
    lane: str

    @property
    def key(self) -> tuple[str, int, str]:
        """Its key in the tables."""
        return (self.device, self.boot, self.lane)


def note(
    connection: sqlite3.Connection, envelope: wire.Json, now_ms: int, ask_after_ms: int
) -> None:
    """Count a new message: a jump opens a gap, a late number takes itself out of one.

    Args:
        connection: inside the transaction that stores the message.
        envelope: the message.
        now_ms: the centre's wall clock.
        ask_after_ms: how long to wait before the device is asked.
    """
    series = Series(envelope["device"], envelope["boot"], envelope["lane"])
    seq: int = envelope["seq"]
    if not _reach(connection, series, seq, seq - 1, (now_ms, now_ms + ask_after_ms)):
        _cut(connection, series, seq, seq)


def note_earlier(
    connection: sqlite3.Connection, envelope: wire.Json, now_ms: int, ask_after_ms: int
) -> None:
    """Take from a birth how far earlier boots have counted: what was lost at their end shows."""
    for item in envelope["body"].get("numbers", ()):
        if item["boot"] < envelope["boot"]:
            series = Series(envelope["device"], item["boot"], item["lane"])
            times_ms = (now_ms, now_ms + ask_after_ms)
            _reach(connection, series, item["last"], item["last"], times_ms)


def tell(
    connection: sqlite3.Connection,
    series: Series,
    span: tuple[int, int],
    reason: str,
    record: wire.Json | None,
) -> int:
    """Keep why numbers will not come, both ends of `span` included; gives how many are missing."""
    told = 0
    for row, first, last in list(_cut(connection, series, *span)):
        told += last - first + 1
        text = None if record is None else json.dumps(record)
        if _has_room(connection, series.device):
            kept = {**row, "state": "told", "reason": reason, "record": text}
            _insert(connection, kept, first, last)
        _log.warning("messages lost", **_words(series, first, last), reason=reason)
    return told


def check_spans(items: Sequence[wire.Json]) -> None:
    """Refuse spans that do not go upwards, which a schema cannot do.

    Raises:
        MalformedMessage: naming the first one.
    """
    for item in items:
        if item["from"] > item["to"]:
            raise MalformedMessage(f"span {item['from']} to {item['to']}; allowed: upwards")


def tell_evicted(connection: sqlite3.Connection, envelope: wire.Json) -> None:
    """Take the numbers that a device's state/outbox says it has removed."""
    for item in envelope["body"].get("removed", ()):
        series = Series(envelope["device"], item["boot"], item["lane"])
        tell(connection, series, (item["from"], item["to"]), EVICTED, None)


def _reach(
    connection: sqlite3.Connection, series: Series, seq: int, until: int, times_ms: tuple[int, int]
) -> bool:
    """Move the mark up to `seq` and open a gap from the old one to `until`; false if not upwards.

    `times_ms` is now, and when to ask, by the centre's wall clock.
    """
    row = connection.execute(
        "SELECT seq FROM lane_mark WHERE device = ? AND boot = ? AND lane = ?", series.key
    ).fetchone()
    last = 0 if row is None else int(row["seq"])
    if seq <= last:
        return False
    connection.execute(
        "INSERT INTO lane_mark (device, boot, lane, seq) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (device, boot, lane) DO UPDATE SET seq = excluded.seq",
        (*series.key, seq),
    )
    if until > last and _has_room(connection, series.device):
        connection.execute(
            "INSERT OR REPLACE INTO gap (device, boot, lane, first_seq, last_seq, since_utc_ms,"
            " state, ask_utc_ms) VALUES (?, ?, ?, ?, ?, ?, 'open', ?)",
            (*series.key, last + 1, until, *times_ms),
        )
        _log.info("messages not here yet", **_words(series, last + 1, until))
    return True


def _cut(
    connection: sqlite3.Connection, series: Series, first: int, last: int
) -> Iterator[tuple[wire.Json, int, int]]:
    """Take numbers out of the gaps they lie in; gives each gap as it was and what was taken."""
    rows = connection.execute(
        "SELECT * FROM gap WHERE device = ? AND boot = ? AND lane = ? AND first_seq <= ?"
        " AND last_seq >= ?",
        (*series.key, last, first),
    ).fetchall()
    taken = []
    for found in rows:
        row = dict(found)
        connection.execute(
            "DELETE FROM gap WHERE device = ? AND boot = ? AND lane = ? AND first_seq = ?",
            (*series.key, row["first_seq"]),
        )
        _insert(connection, row, row["first_seq"], first - 1)
        is_split = row["first_seq"] < first and last < row["last_seq"]
        if not is_split or _has_room(connection, series.device):
            _insert(connection, row, last + 1, row["last_seq"])
        taken.append((row, max(first, row["first_seq"]), min(last, row["last_seq"])))
    return iter(taken)


def _insert(connection: sqlite3.Connection, row: wire.Json, first: int, last: int) -> None:
    if first > last:
        return
    connection.execute(
        "INSERT INTO gap (device, boot, lane, first_seq, last_seq, since_utc_ms, state, reason,"
        " record, asks, ask_utc_ms) VALUES (:device, :boot, :lane, :first_seq, :last_seq,"
        " :since_utc_ms, :state, :reason, :record, :asks, :ask_utc_ms)",
        {**row, "first_seq": first, "last_seq": last},
    )


def _has_room(connection: sqlite3.Connection, device: str) -> bool:
    query = "SELECT count(*) FROM gap WHERE device = ?"
    if connection.execute(query, (device,)).fetchone()[0] < MOST_GAPS:
        return True
    removed = connection.execute(
        "DELETE FROM gap WHERE (device, boot, lane, first_seq) IN (SELECT device, boot, lane,"
        " first_seq FROM gap WHERE device = ? AND state = 'told' ORDER BY since_utc_ms LIMIT 1)",
        (device,),
    ).rowcount
    if not removed:
        _log.error("too many gaps, one is not noted", device=device, most=MOST_GAPS)
    return bool(removed)


def _words(series: Series, first: int, last: int) -> dict[str, object]:
    return {
        "device": series.device,
        "boot": series.boot,
        "lane": series.lane,
        "from_seq": first,
        "to_seq": last,
    }
