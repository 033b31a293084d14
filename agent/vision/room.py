"""How much room recordings leave on their disk: the loop makes some before the writer must stop."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

RESERVE_BYTES, RESERVE_SHARE = 256 << 20, 0.04  # below it the recording loop deletes; the smaller
LEAST_BYTES, LEAST_SHARE = 64 << 20, 0.01  # below it no segment is begun: left to the database
RESERVE_FILES, LEAST_FILES = 2000, 200  # the same for inodes, with the same shares


class Room(NamedTuple):
    """A file system's room; one that counts no inodes has enough of them."""

    free_bytes: int
    size_bytes: int
    free_files: int = sys.maxsize
    size_files: int = 0

    @property
    def reserve_bytes(self) -> int:
        """What the recording loop keeps free."""
        return min(RESERVE_BYTES, int(self.size_bytes * RESERVE_SHARE))

    @property
    def least_bytes(self) -> int:
        """What a writer needs to begin a segment."""
        return min(LEAST_BYTES, int(self.size_bytes * LEAST_SHARE))

    @property
    def reserve_files(self) -> int:
        """How many inodes the recording loop keeps free."""
        return min(RESERVE_FILES, int(self.size_files * RESERVE_SHARE))

    @property
    def least_files(self) -> int:
        """How many inodes a writer needs to begin a segment."""
        return min(LEAST_FILES, int(self.size_files * LEAST_SHARE))


def of(path: Path) -> Room:
    """Look at the file system that holds `path`; OSError if that cannot be."""
    disk = os.statvfs(path)
    free_bytes, size_bytes = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if disk.f_files == 0:
        return Room(free_bytes, size_bytes)
    return Room(free_bytes, size_bytes, disk.f_favail, disk.f_files)
