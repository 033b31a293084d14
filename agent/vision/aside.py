"""What lies aside: quarantine and spool, counted, told by their age, strays set aside."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.store import Store
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
    sizes = [found.size_bytes for folder in folders for found in lying(folder, QUARANTINE)]
    return Aside(len(sizes), sum(sizes))


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
        for found in lying(folder, SPOOL):
            name = str(found.path.relative_to(folder.path))
            count_from_now(found, clock.utc_ns())
            if name in needed or found.age_ns(clock.utc_ns()) < NS_PER_DAY:
                continue
            try:
                quarantine(store, folder, found.path, custody, "no event and no clip wants it")
                moved += 1
            except OSError as error:
                _log.warning("picture stays in the spool", path=found.path, reason=error)
    return moved


@dataclass(frozen=True, slots=True)
class Found:
    """A file that lies aside."""

    path: Path
    size_bytes: int
    came_ns: int  # when it was moved here: that set the time of its change

    def age_ns(self, now_ns: int) -> int:
        """Give how long it has been here; 0 where a wrong clock told when it came."""
        is_wrong = self.came_ns < SET_NS or self.came_ns > now_ns
        return 0 if is_wrong else now_ns - self.came_ns


def lying(folder: Folder, name: str) -> Iterator[Found]:
    """Give the files of a folder's `quarantine` or `spool`, by name; links are left alone."""
    try:
        with os.scandir(folder.path / name) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    yield Found(Path(entry.path), stat.st_size, stat.st_ctime_ns)
    except OSError:
        return  # there is none, or its disk went


def count_from_now(found: Found, now_ns: int) -> None:
    """Let a file that came by a wrong clock count from now on."""
    if SET_NS <= found.came_ns <= now_ns:
        return
    try:
        stat = found.path.stat()
        os.utime(found.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    except OSError as error:
        _log.warning("file of a wrong time", path=found.path, reason=error)
