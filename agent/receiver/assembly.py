"""One file on its way in: chunks in any order, with gaps and repeats, until all of it is there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

from agent.core import wire
from agent.core.errors import MalformedMessage
from agent.evidence import manifest
from agent.evidence.hashing import BLOCK_BYTES, LeafHasher
from agent.receiver.ranges import Ranges, Span

FLUSH_BYTES = 4 << 20
MOST_RANGES = 256  # in one `need`; what is beyond is asked for next time


class Assembly:
    """The part file of one transfer and what is known of it.

    Used by one thread, but for `check`, which another may run while no chunks are written.
    """

    def __init__(self, path: Path, offer: wire.Json, entry: wire.Json, clip_id: str) -> None:
        self.path = path
        self.offer = offer
        self.entry = entry  # the file as the manifest describes it
        self.clip_id = clip_id
        self.have = Ranges()
        self.dirty_bytes = 0
        self.is_checking = False
        self._descriptor = -1

    def open(self, have: Ranges) -> Self:
        """Open the part file; OSError if the disk refuses.

        Args:
            have: what was on the disk; where the file is gone or shorter than that, and where
                nothing is known of it, it is begun anew.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o640)
        known_bytes = max((end for _, end in have.spans), default=0)
        if 0 < known_bytes <= os.fstat(self._descriptor).st_size:
            self.have = have
        else:
            os.ftruncate(self._descriptor, 0)
        return self

    @property
    def device(self) -> str:
        """Whose file it is."""
        return str(self.offer["device"])

    @property
    def fid(self) -> str:
        """The transfer's id."""
        return str(self.offer["fid"])

    @property
    def size_bytes(self) -> int:
        """Size of the whole file."""
        return int(self.offer["size_bytes"])

    @property
    def missing(self) -> tuple[Span, ...]:
        """What is still to come, bounded."""
        return self.have.missing(self.size_bytes, MOST_RANGES)

    def write(self, offset: int, data: bytes) -> None:
        """Take a chunk.

        Raises:
            MalformedMessage: it does not lie inside the file.
            OSError: the disk refuses.
        """
        end = offset + len(data)
        if not data or end > self.size_bytes:
            raise MalformedMessage(
                f"chunk of bytes {offset} to {end}; allowed: inside 0 to {self.size_bytes}"
            )
        left = memoryview(data)
        while left:
            left = left[os.pwrite(self._descriptor, left, end - len(left)) :]
        self.have.add(offset, end)
        self.dirty_bytes += len(data)

    def sync(self) -> None:
        """Bring what was written to the disk; OSError if it refuses."""
        if self.dirty_bytes:
            os.fdatasync(self._descriptor)
            self.dirty_bytes = 0

    def check(self, is_stopped: Callable[[], bool]) -> bool:
        """Read the whole file and compare it with its manifest; false if stopped before the end.

        Raises:
            HashMismatch: naming the first difference.
            OSError: it cannot be read.
        """
        hasher = LeafHasher()
        at = 0
        while block := os.pread(self._descriptor, BLOCK_BYTES, at):
            if is_stopped():
                return False
            hasher.update(block)
            at += len(block)
        manifest.check_file(hasher.finish(), self.entry)
        return True

    def close(self) -> None:
        """Close the part file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
