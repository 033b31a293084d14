"""One file on its way in: chunks in any order, with gaps and repeats, until all of it is there."""

import os
from pathlib import Path
from typing import Self

from agent.core import wire
from agent.core.errors import HashMismatch, MalformedMessage
from agent.evidence.hashing import hash_file
from agent.receiver.ranges import Ranges, Span

FLUSH_BYTES = 4 << 20
MOST_RANGES = 256  # in one `need`; what is beyond is asked for next time


class Assembly:
    """The part file of one transfer and what is known of it; used by one thread."""

    def __init__(self, path: Path, offer: wire.Json, entry: wire.Json, have: Ranges) -> None:
        self.path = path
        self.offer = offer
        self.entry = entry  # the file as the manifest describes it
        self.have = have
        self._descriptor = -1
        self.dirty_bytes = 0

    def open(self) -> Self:
        """Open the part file; OSError if the disk refuses."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return self

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
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], offset + written)
        self.have.add(offset, end)
        self.dirty_bytes += len(data)

    def sync(self) -> None:
        """Bring what was written to the disk."""
        if self.dirty_bytes:
            os.fdatasync(self._descriptor)
            self.dirty_bytes = 0

    def check(self) -> None:
        """Compare the whole file with its manifest.

        Raises:
            HashMismatch: naming the first difference.
        """
        found = hash_file(self.path)
        if found.size_bytes != self.entry["size_bytes"]:
            raise HashMismatch(f"{found.size_bytes} bytes; manifest: {self.entry['size_bytes']}")
        for number, (here, there) in enumerate(
            zip(found.leaves, self.entry["leaves"], strict=False)
        ):
            if here != there:
                raise HashMismatch(f"leaf {number} is {here}; manifest: {there}")
        if found.leaf_root != self.entry["leaf_root"] or found.sha256 != self.entry["sha256"]:
            raise HashMismatch(f"sha256 {found.sha256}; manifest: {self.entry['sha256']}")

    def close(self) -> None:
        """Close the part file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
