"""What was set aside: counted, and deleted with a record only after its days are over."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.store import Store
from agent.evidence.hashing import hash_file
from agent.vision.disks import STATE_DIR, Folder
from agent.vision.recovery import QUARANTINE, Custody, quarantine

SPOOL = "spool"
NS_PER_DAY = 86_400 * NS_PER_S
SET_NS = 1_600_000_000 * NS_PER_S  # a time before it was told by a clock that nobody had set

_NEEDED = """
    SELECT snapshot FROM clip WHERE state IN ('wanted', 'sealed') AND snapshot != ''
    UNION ALL
    SELECT 'spool/' || id || '.jpg' FROM event WHERE state = 'open'
"""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Aside:
    """What lies in quarantine."""

    files: int = 0
    size_bytes: int = 0


def count(folders: Iterable[Folder]) -> Aside:
    """Count what lies in quarantine."""
    sizes = [found.stat.st_size for folder in folders for found in _files(folder, QUARANTINE)]
    return Aside(len(sizes), sum(sizes))


def empty_quarantine(
    store: Store, clock: Clock, folders: Iterable[Folder], custody: Custody, keep_days: int
) -> int:
    """Delete what has lain in quarantine for its days, each file with its hash on record.

    Raises:
        StorageError: the database refuses.
    """
    deleted = 0
    for folder in folders:
        for found in _files(folder, QUARANTINE):
            if _is_younger(found, clock, keep_days * NS_PER_DAY):
                continue
            try:
                detail = {"sha256": hash_file(found.path).sha256, "days": keep_days}
                _record(store, custody, str(found.path.relative_to(folder.path)), detail)
                found.path.unlink()
                deleted += 1
            except OSError as error:
                _log.warning("file stays in quarantine", path=found.path, reason=error)
    return deleted


def sweep_spool(store: Store, clock: Clock, folders: Iterable[Folder], custody: Custody) -> int:
    """Set pictures aside that have waited a day for an event or a clip that never came.

    Raises:
        StorageError: the database refuses.
    """
    with store.reading() as connection:
        needed = {row[0] for row in connection.execute(_NEEDED)}
    moved = 0
    for folder in folders:
        if folder.folder_id != STATE_DIR:
            continue
        for found in _files(folder, SPOOL):
            name = str(found.path.relative_to(folder.path))
            if name in needed or _is_younger(found, clock, NS_PER_DAY):
                continue
            try:
                quarantine(store, folder, found.path, custody, "no event and no clip wants it")
                moved += 1
            except OSError as error:
                _log.warning("picture stays in the spool", path=found.path, reason=error)
    return moved


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    stat: os.stat_result


def _files(folder: Folder, name: str) -> Iterator[_Found]:
    try:
        with os.scandir(folder.path / name) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_file(follow_symlinks=False):
                    yield _Found(Path(entry.path), entry.stat(follow_symlinks=False))
    except OSError:
        return  # there is none, or its disk went


def _is_younger(found: _Found, clock: Clock, age_ns: int) -> bool:
    """Whether a file came here less than `age_ns` ago: moving it set the time of its change."""
    came_ns, now_ns = found.stat.st_ctime_ns, clock.utc_ns()
    if came_ns < SET_NS or came_ns > now_ns:  # told by a wrong clock: it counts from now on
        _touch(found.path)
        return True
    return now_ns - came_ns < age_ns


def _touch(path: Path) -> None:
    try:
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    except OSError as error:
        _log.warning("file of a wrong time", path=path, reason=error)


def _record(store: Store, custody: Custody, name: str, detail: Mapping[str, object]) -> None:
    store.write(lambda connection: custody(connection, "quarantine.deleted", name, detail))
