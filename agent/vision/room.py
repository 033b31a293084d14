"""How much room recordings leave on their disk: the loop makes some before the writer must stop."""

import os
from pathlib import Path
from typing import NamedTuple

RESERVE_BYTES, RESERVE_SHARE = 256 << 20, 0.04  # below it the recording loop deletes; the smaller
LEAST_BYTES, LEAST_SHARE = 64 << 20, 0.01  # below it no segment is begun: left to the database


class Room(NamedTuple):
    """A file system's room."""

    free_bytes: int
    size_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """What the recording loop keeps free."""
        return min(RESERVE_BYTES, int(self.size_bytes * RESERVE_SHARE))

    @property
    def least_bytes(self) -> int:
        """What a writer needs to begin a segment."""
        return min(LEAST_BYTES, int(self.size_bytes * LEAST_SHARE))


def of(path: Path) -> Room:
    """Look at the file system that holds `path`; OSError if that cannot be."""
    disk = os.statvfs(path)
    return Room(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)
