"""A file that is there to be deleted: on a full disk a database cannot even delete rows.

What fills the disk may be somebody else's. Once a write is refused the ballast goes, so that the
keeper can note what it gives up and make room; it is laid again when there is room enough.
Source: SQLite in WAL mode writes before it frees; more than the longest log is needed.
"""

import os
from contextlib import suppress
from pathlib import Path

from agent.core import log
from agent.core.files import sync_directory
from agent.vision import room

NAME = "ballast.bin"
MOST_BYTES, MOST_SHARE = 32 << 20, 0.04  # of the disk; the smaller

_log = log.get(__name__)


def lay(state_dir: Path) -> bool:
    """Lay the ballast if there is room beside the reserve; gives whether it lies there."""
    path = state_dir / NAME
    try:
        disk = room.of(state_dir)
        wanted_bytes = min(MOST_BYTES, int(disk.size_bytes * MOST_SHARE))
        if path.exists() and path.stat().st_size == wanted_bytes:
            return True
        if disk.free_bytes < wanted_bytes + disk.reserve_bytes:
            return False
        with path.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, wanted_bytes)
            os.fsync(stream.fileno())
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        _log.info("no ballast", reason=error)
        return False
    return True


def release(state_dir: Path) -> bool:
    """Give the ballast's room back; gives whether there was one."""
    path = state_dir / NAME
    try:
        path.unlink()
        sync_directory(state_dir)
    except OSError:
        return False
    _log.warning("disk full, ballast released")
    return True
