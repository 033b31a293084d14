"""A file that is read here and there: little memory, holes passed over, never written."""

import os
import re
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.core.errors import StorageError

BLOCK_BYTES = 1 << 20
MOST_BYTES = 64 << 30  # of one recording: cards hold no longer one, and a lie costs hours

_ZEROS = bytes(BLOCK_BYTES)


class Source:
    """Reads a file; holds about one block of it.

    Raises, from every method:
        StorageError: the file cannot be read, or is larger than `MOST_BYTES`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = self._mtime_ns = 0
        self._descriptor = -1
        self._start, self._block = 0, b""

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            found = os.fstat(self._descriptor)
        except OSError as error:
            self.close()
            raise StorageError(f"{self.path}: {error.strerror}") from error
        self.size_bytes, self._mtime_ns = found.st_size, found.st_mtime_ns
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise StorageError(f"{self.path}: no file")
        if self.size_bytes > MOST_BYTES:
            self.close()
            raise StorageError(f"{self.path}: {self.size_bytes} bytes; allowed: up to {MOST_BYTES}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def check_unchanged(self) -> None:
        """Raise if somebody has written to it since it was opened."""
        found = os.fstat(self._descriptor)
        if (found.st_size, found.st_mtime_ns) != (self.size_bytes, self._mtime_ns):
            raise StorageError(f"{self.path}: was changed while it was read")

    def read(self, place: int, count: int) -> bytes:
        """Give bytes; fewer where the file ends, none beyond it."""
        if place >= self.size_bytes:
            return b""
        offset = place - self._start
        if offset >= 0 and offset + count <= len(self._block):
            return self._block[offset : offset + count]
        if count >= BLOCK_BYTES:
            return self._fetch(place, count)
        self._start, self._block = place, self._fetch(place, BLOCK_BYTES)
        return self._block[:count]

    def find(self, pattern: re.Pattern[bytes], place: int, end: int, reach: int) -> int:
        """Give where a pattern begins, or `end`.

        Args:
            pattern: matches at most `reach` bytes, not only zeros.
            place: where to begin.
            end: where to stop.
            reach: bytes of the longest match.
        """
        while place < end:
            place = self._data_from(place, end)
            block = self.read(place, min(BLOCK_BYTES, end - place))
            if not block:
                return end
            if block != _ZEROS[: len(block)] and (found := pattern.search(block)):
                return place + found.start()
            if len(block) < reach or place + len(block) >= end:
                return end
            place += len(block) - reach + 1
        return end

    def zeros_at_end(self) -> int:
        """Give how many zeros the file ends in."""
        end = self.size_bytes
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            if self._data_from(start, end) < end:
                kept = len(self._fetch(start, end - start).rstrip(b"\0"))
                if kept:
                    return self.size_bytes - start - kept
            end = start
        return self.size_bytes

    def _data_from(self, place: int, end: int) -> int:
        """Give the next place that is no hole of the file."""
        try:
            return min(os.lseek(self._descriptor, place, os.SEEK_DATA), end)
        except OSError:  # nothing but a hole, or a file system that knows none
            return self._after_hole(place, end)

    def _after_hole(self, place: int, end: int) -> int:
        try:
            is_hole = os.lseek(self._descriptor, place, os.SEEK_HOLE) == place
        except OSError:
            is_hole = False
        return end if is_hole else place

    def _fetch(self, place: int, count: int) -> bytes:
        found = bytearray()
        try:
            while len(found) < count:
                piece = os.pread(self._descriptor, count - len(found), place + len(found))
                if not piece:
                    break
                found += piece
        except OSError as error:
            raise StorageError(f"{self.path}: byte {place}: {error.strerror}") from error
        return bytes(found)
