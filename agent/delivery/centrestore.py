"""Which store the centre keeps for this device; what was signed for by one that is lost goes again.

A receipt proves for ever that the centre had a file. It says nothing about a disk that has died
since. When the centre's signed word names another store than before, every receipted file that is
still here waits again, with its receipt put by, and its clip may no longer be deleted; what is not
here any more is told. The events that this box remembers are told again too.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import MalformedMessage
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.core.wire import Json
from agent.delivery.ledger import LOST_KIND, REFUSED_KIND, Custody, Tell

META_KEY = "centre_store"
MOST_KNOWN = 16
MOST_TOLD = 500  # files by name; the others are counted
AT_ONCE = 200  # rows of a transaction

_log = log.get(__name__)

Retell = Callable[[sqlite3.Connection, Tell], int]
"""Puts the box's own records into the outbox again; gives how many messages."""


class CentreStore:
    """What this device knows of the centre's store; used by one thread."""

    def __init__(
        self,
        store: Store,
        state_dir: Path,
        clock: Clock,
        custody: Custody,
        tell: Tell,
        retell: Retell,
    ) -> None:
        self._store = store
        self._state_dir = state_dir
        self._clock = clock
        self._custody = custody
        self._tell = tell
        self._retell = retell

    def heard(self, word: Json) -> bool:
        """Take the centre's word, already checked; true if its store is another than before.

        Raises:
            MalformedMessage: an older word than the one that counts.
        """
        known = self._known()
        before = known.get("store")
        if before == word["store"]:
            return False
        if word["store"] in known.get("earlier", ()) and (
            word["issued_utc_ms"] <= known["issued_utc_ms"]
        ):
            raise MalformedMessage(f"store {word['store']}: an older word; now: {before}")
        if before is not None:
            self._offer_again(before, word["store"])
        earlier = [*known.get("earlier", ()), *([before] if before else [])][-MOST_KNOWN:]
        facts = {
            "store": word["store"],
            "issued_utc_ms": word["issued_utc_ms"],
            "earlier": [store for store in earlier if store != word["store"]],
        }
        self._store.write(lambda connection: _remember(connection, facts))
        return before is not None

    def _known(self) -> Json:
        with self._store.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (META_KEY,)).fetchone()
        try:
            found = json.loads(row["value"]) if row is not None else {}
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def _offer_again(self, before: str, now: str) -> None:
        """Let files wait again; a kill in between is followed by the rest after the next word."""
        again: list[sqlite3.Row] = []
        gone: list[sqlite3.Row] = []
        for row in self._receipted():
            (again if self._is_here(row) else gone).append(row)
        for at in range(0, len(again), AT_ONCE):
            some = partial(_wait_again, before=before, rows=again[at : at + AT_ONCE])
            self._store.write(some)
        events = self._store.write(lambda connection: self._retell(connection, self._tell))
        counts = {"before": before, "again": len(again), "gone": len(gone), "events": events}
        self._store.write(lambda connection: self._account(connection, now, counts, gone))
        _log.error("the centre has lost its store", store=now, again=len(again), gone=len(gone))

    def _receipted(self) -> Sequence[sqlite3.Row]:
        with self._store.reading() as connection:
            return connection.execute(
                "SELECT fid, clip_id, path, name, size_bytes, sha256, event_ids, EXISTS (SELECT 1"
                " FROM clip WHERE id = clip_id AND state = 'deleted') AS is_deleted FROM transfer"
                " WHERE state = 'receipted' ORDER BY created_utc_ns DESC"
            ).fetchall()

    def _is_here(self, row: sqlite3.Row) -> bool:
        if row["is_deleted"]:  # its files are about to go, if they have not gone yet
            return False
        try:
            found_bytes = (self._state_dir / str(row["path"])).stat().st_size
        except OSError:
            return False
        return found_bytes == int(row["size_bytes"])

    def _account(
        self,
        connection: sqlite3.Connection,
        now: str,
        counts: Mapping[str, object],
        gone: Sequence[sqlite3.Row],
    ) -> None:
        self._custody(connection, "centre.store_lost", now, counts)
        detail = (
            f"the centre's store {counts['before']} is lost: {counts['again']} files are offered"
            f" again, {counts['gone']} are no longer here; {counts['events']} events are told again"
        )
        since_utc_ms = max(0, self._clock.utc_ns() // NS_PER_MS)
        body = {"state": "store_lost", "since_utc_ms": since_utc_ms, "detail": detail}
        self._tell(connection, Message(Lane.STATE, REFUSED_KIND, body, is_retained=True))
        for row in gone[:MOST_TOLD]:
            self._tell(connection, Message(Lane.STATE, LOST_KIND, _gone(row), needs_receipt=True))


def _wait_again(connection: sqlite3.Connection, before: str, rows: Sequence[sqlite3.Row]) -> None:
    fids = [(row["fid"],) for row in rows]
    connection.executemany(
        "INSERT OR REPLACE INTO past_receipt (fid, store, receipt)"
        " SELECT fid, ?, receipt FROM transfer WHERE fid = ? AND receipt IS NOT NULL",
        [(before, fid) for (fid,) in fids],
    )
    connection.executemany(
        "UPDATE transfer SET state = 'waiting', receipt = NULL"
        " WHERE fid = ? AND state = 'receipted' AND NOT EXISTS"
        " (SELECT 1 FROM clip WHERE id = clip_id AND state = 'deleted')",
        fids,
    )
    connection.executemany(
        "UPDATE clip SET state = 'sealed' WHERE id = ? AND state = 'receipted'",
        [(clip_id,) for clip_id in sorted({row["clip_id"] for row in rows})],
    )


def _gone(row: sqlite3.Row) -> Json:
    try:
        event_ids = [str(item) for item in json.loads(row["event_ids"])]
    except ValueError:
        event_ids = []
    return {
        **{name: row[name] for name in ("fid", "clip_id", "name", "sha256", "size_bytes")},
        "event_ids": event_ids,
        "why": "store_lost",
        "detail": "deleted here after the centre had signed for it",
    }


def _remember(connection: sqlite3.Connection, facts: Json) -> None:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (META_KEY, json.dumps(facts)),
    )
