"""After a crash: what the killed recorder left becomes rows again, and nothing is deleted."""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S
from agent.core.errors import StorageError
from agent.core.files import atomic, sync_directory, sync_file
from agent.core.store import Store
from agent.evidence.hashing import hash_file
from agent.vision.disks import Disks, Folder
from agent.vision.fragments import readable_end
from agent.vision.remux import demux
from agent.vision.segment import FOLDER

QUARANTINE = "quarantine"
COPY_BYTES = 1 << 20

_log = log.get(__name__)

Custody = Callable[[sqlite3.Connection, str, str, Mapping[str, object]], object]
"""Appends (kind, subject, detail) to the custody log inside a transaction."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found."""

    segments: int = 0
    damaged: int = 0
    quarantined: int = 0


def recover(store: Store, disks: Disks, custody: Custody) -> Recovered:
    """Settle every row that was left open, and set files without a row aside.

    What lies on a disk that is away waits until that is back.

    Raises:
        StorageError: the database refuses.
    """
    folders = disks.present()
    with store.reading() as connection:
        rows = connection.execute("SELECT * FROM segment WHERE state = 'open'").fetchall()
        query = "SELECT folder, path FROM segment UNION ALL SELECT folder, path FROM garbage"
        known = {(row["folder"], row["path"]) for row in connection.execute(query)}
    states = _settle_all(store, folders, rows, custody)
    orphans = [
        (folder, path)
        for folder in folders
        for path in sorted((folder.path / FOLDER).glob("*/*"))
        if (folder.folder_id, str(path.relative_to(folder.path))) not in known
    ]
    moved = [_set_aside(store, folder, path, custody) for folder, path in orphans]
    found = Recovered(states.count("recovered"), states.count("damaged"), moved.count(True))
    if rows or orphans:
        _log.info(
            "recordings recovered",
            segments=found.segments,
            damaged=found.damaged,
            quarantined=found.quarantined,
        )
    return found


def settle(store: Store, disks: Disks, camera: str, custody: Custody) -> int:
    """Settle the open rows of one camera, that nobody is writing; gives how many there were.

    Raises:
        StorageError: the database refuses.
    """
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT * FROM segment WHERE state = 'open' AND camera = ?", (camera,)
        ).fetchall()
    return len(_settle_all(store, disks.present(), rows, custody)) if rows else 0


def settle_returned(
    store: Store, disks: Disks, folder_ids: Collection[str], custody: Custody
) -> int:
    """Settle the open rows of disks that are back; gives how many there were.

    The newest row of a camera is left to its recorder: it may be writing there again.

    Raises:
        StorageError: the database refuses.
    """
    with store.reading() as connection:
        rows = connection.execute(
            "SELECT * FROM segment s WHERE state = 'open'"
            " AND id < (SELECT max(id) FROM segment WHERE camera = s.camera)"
        ).fetchall()
    returned = [row for row in rows if row["folder"] in folder_ids]
    return len(_settle_all(store, disks.present(), returned, custody)) if returned else 0


def _settle_all(
    store: Store, folders: Iterable[Folder], rows: Iterable[sqlite3.Row], custody: Custody
) -> list[str]:
    by_id = {folder.folder_id: folder for folder in folders}
    return [
        _settle(store, by_id[row["folder"]], row, custody) for row in rows if row["folder"] in by_id
    ]


def _settle(store: Store, folder: Folder, row: sqlite3.Row, custody: Custody) -> str:
    try:
        return _judge(store, folder, row, custody)
    except OSError as error:  # this file's disk has trouble: the others are settled all the same
        _log.error("segment not recovered, stays open", path=row["path"], reason=error)
        return "open"


def _set_aside(store: Store, folder: Folder, path: Path, custody: Custody) -> bool:
    try:
        quarantine(store, folder, path, custody, "no row speaks of it")
    except OSError as error:
        _log.error("file without a row stays where it is", path=path, reason=error)
        return False
    return True


def _judge(store: Store, folder: Folder, row: sqlite3.Row, custody: Custody) -> str:
    path = folder.path / row["path"]
    try:
        sync_file(path)
        found = hash_file(path)
    except FileNotFoundError:
        return _note_damaged(store, row)
    count, last_dts = _readable(path, row)
    origin: dict[str, object] = {}
    if count == 0 and (end := readable_end(path)):
        origin = {"derived_from": found.sha256, "original": _rescue(folder, path, end)}
        found = hash_file(path)
        count, last_dts = _readable(path, row)
    if count == 0:
        quarantine(store, folder, path, custody, "no picture of it can be read")
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
        detail = {
            "packets": count,
            "sha256": found.sha256,
            "size_bytes": found.size_bytes,
            **origin,
        }
        custody(connection, "segment.recovered", row["path"], detail)

    store.write(change)
    return "recovered"


def _rescue(folder: Folder, path: Path, end: int) -> str:
    """Leave the head of a file that no player opens in its place; gives where the original went.

    The original is copied before anything is changed: a kill in between costs a second copy.
    """
    target = _free_name(folder, path)
    for source_bytes, copy in ((path.stat().st_size, target), (end, path)):
        with path.open("rb") as source, atomic(copy) as stream:
            left = source_bytes
            while left > 0 and (piece := source.read(min(left, COPY_BYTES))):
                stream.write(piece)
                left -= len(piece)
    return str(target.relative_to(folder.path))


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


def quarantine(store: Store, folder: Folder, path: Path, custody: Custody, reason: str) -> Path:
    """Move a file of a folder aside, with a custody entry; gives where it is now.

    Raises:
        StorageError, OSError: the database or the disk refuses.
    """
    target = _free_name(folder, path)
    name = str(path.relative_to(folder.path))
    detail = {"moved_to": str(target.relative_to(folder.path)), "reason": reason}
    store.write(lambda connection: custody(connection, "file.quarantined", name, detail))
    path.rename(target)
    sync_directory(target.parent)
    sync_directory(path.parent)
    return target


def _free_name(folder: Folder, path: Path) -> Path:
    """Give a place in quarantine that is not over what was set aside before."""
    aside = folder.path / QUARANTINE
    aside.mkdir(exist_ok=True)
    target = aside / f"{path.parent.name}-{path.name}"
    number = 1
    while target.exists():
        number += 1
        target = aside / f"{path.parent.name}-{number}-{path.name}"
    return target
