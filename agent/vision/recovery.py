"""After a crash: what the killed recorder left becomes rows again, and nothing is deleted."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S
from agent.core.errors import StorageError
from agent.core.files import sync_directory, sync_file
from agent.core.store import Store
from agent.evidence.hashing import hash_file
from agent.vision.remux import demux
from agent.vision.segment import FOLDER

QUARANTINE = "quarantine"

_log = log.get(__name__)

Custody = Callable[[sqlite3.Connection, str, str, Mapping[str, object]], object]
"""Appends (kind, subject, detail) to the custody log inside a transaction."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found."""

    segments: int = 0
    damaged: int = 0
    quarantined: int = 0


def recover(store: Store, state_dir: Path, custody: Custody) -> Recovered:
    """Settle every row that was left open, and set files without a row aside.

    Raises:
        StorageError: the database refuses.
    """
    with store.reading() as connection:
        rows = connection.execute("SELECT * FROM segment WHERE state = 'open'").fetchall()
        known = {row["path"] for row in connection.execute("SELECT path FROM segment")}
    states = [_settle(store, state_dir, row, custody) for row in rows]
    orphans = [
        path
        for path in sorted((state_dir / FOLDER).glob("*/*"))
        if str(path.relative_to(state_dir)) not in known
    ]
    moved = [_set_aside(store, state_dir, path, custody) for path in orphans]
    found = Recovered(states.count("recovered"), states.count("damaged"), moved.count(True))
    if rows or orphans:
        _log.info(
            "recordings recovered",
            segments=found.segments,
            damaged=found.damaged,
            quarantined=found.quarantined,
        )
    return found


def settle(store: Store, state_dir: Path, camera: str, custody: Custody) -> int:
    """Settle the open rows of one camera, that nobody is writing; gives how many there were.

    Raises:
        StorageError: the database refuses.
    """
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT * FROM segment WHERE state = 'open' AND camera = ?", (camera,)
        ).fetchall()
    for row in rows:
        _settle(store, state_dir, row, custody)
    return len(rows)


def _settle(store: Store, state_dir: Path, row: sqlite3.Row, custody: Custody) -> str:
    try:
        return _judge(store, state_dir, row, custody)
    except OSError as error:  # this file's disk has trouble: the others are settled all the same
        _log.error("segment not recovered, stays open", path=row["path"], reason=error)
        return "open"


def _set_aside(store: Store, state_dir: Path, path: Path, custody: Custody) -> bool:
    try:
        _quarantine(store, state_dir, path, custody, "no row speaks of it")
    except OSError as error:
        _log.error("file without a row stays where it is", path=path, reason=error)
        return False
    return True


def _judge(store: Store, state_dir: Path, row: sqlite3.Row, custody: Custody) -> str:
    path = state_dir / row["path"]
    try:
        sync_file(path)
        found = hash_file(path)
    except FileNotFoundError:
        return _note_damaged(store, row)
    count, last_dts = _readable(path, row)
    if count == 0:
        _quarantine(store, state_dir, path, custody, "no picture of it can be read")
        return _note_damaged(store, row)
    time_base = Fraction(row["time_base_num"], row["time_base_den"])
    end_utc_ns = row["start_utc_ns"] + int((last_dts - row["first_dts"]) * time_base * NS_PER_S)
    values = (end_utc_ns, last_dts, count, found.size_bytes, found.sha256, row["id"])

    def change(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE segment SET state = 'recovered', end_utc_ns = ?, last_dts = ?, packets = ?,"
            " size_bytes = ?, sha256 = ? WHERE id = ?",
            values,
        )
        detail = {"packets": count, "sha256": found.sha256, "size_bytes": found.size_bytes}
        custody(connection, "segment.recovered", row["path"], detail)

    store.write(change)
    return "recovered"


def _note_damaged(store: Store, row: sqlite3.Row) -> str:
    query = "UPDATE segment SET state = 'damaged' WHERE id = ?"
    store.write(lambda connection: connection.execute(query, (row["id"],)).rowcount)
    return "damaged"


def _readable(path: Path, row: sqlite3.Row) -> tuple[int, int]:
    count, last_dts = 0, row["first_dts"]
    time_base = Fraction(row["time_base_num"], row["time_base_den"])
    try:
        for packet in demux(path):
            if packet.dts is None or packet.time_base is None:
                continue
            count += 1
            last_dts = row["first_dts"] + round(packet.dts * packet.time_base / time_base)
    except StorageError as error:
        _log.warning("segment cannot be read", path=row["path"], reason=error)
    return count, last_dts


def _quarantine(store: Store, state_dir: Path, path: Path, custody: Custody, reason: str) -> None:
    folder = state_dir / QUARANTINE
    folder.mkdir(exist_ok=True)
    target = folder / f"{path.parent.name}-{path.name}"
    number = 1
    while target.exists():  # never over what was set aside before
        number += 1
        target = folder / f"{path.parent.name}-{number}-{path.name}"
    name = str(path.relative_to(state_dir))
    detail = {"moved_to": str(target.relative_to(state_dir)), "reason": reason}
    store.write(lambda connection: custody(connection, "file.quarantined", name, detail))
    path.rename(target)
    sync_directory(folder)
    sync_directory(path.parent)
