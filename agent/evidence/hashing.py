"""SHA-256 of a file and of its 4 MiB leaves, in one pass over the bytes.

Leaves and root follow the Merkle tree hash of RFC 6962, section 2.1: a leaf is
SHA-256(0x00 || bytes), a node SHA-256(0x01 || left || right).
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

LEAF_BYTES = 4 << 20
BLOCK_BYTES = 1 << 20
LEAF_PREFIX = b"\x00"
_NODE_PREFIX = b"\x01"


@dataclass(frozen=True, slots=True)
class FileHash:
    """What is known of a file's bytes; hashes in lower-case hex."""

    size_bytes: int
    sha256: str
    leaves: tuple[str, ...]
    leaf_root: str


class LeafHasher:
    """Hashes a stream of bytes, whole and by leaves.

    Args:
        pool: hashes the whole there, beside the leaves here; a block is then not to be changed
            before the next one is given.
    """

    def __init__(self, pool: Executor | None = None) -> None:
        self._pool = pool
        self._pending: Future[None] | None = None
        self._whole = hashlib.sha256()
        self._leaf = hashlib.sha256(LEAF_PREFIX)
        self._leaf_room = LEAF_BYTES
        self._leaves: list[bytes] = []
        self._size_bytes = 0

    @property
    def whole_leaves(self) -> Sequence[bytes]:
        """Hashes of the leaves that are whole, so far."""
        return self._leaves

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        self._wait()
        if self._pool is None:
            self._whole.update(view)
        else:
            self._pending = self._pool.submit(self._whole.update, view)
        self._size_bytes += len(view)
        while view:
            part = view[: self._leaf_room]
            self._leaf.update(part)
            self._leaf_room -= len(part)
            view = view[len(part) :]
            if self._leaf_room == 0:
                self._end_leaf()

    def finish(self) -> FileHash:
        """Give the hashes; the hasher is used up."""
        self._wait()
        if self._leaf_room < LEAF_BYTES:
            self._end_leaf()
        return FileHash(
            self._size_bytes,
            self._whole.hexdigest(),
            tuple(leaf.hex() for leaf in self._leaves),
            tree_hash(self._leaves).hex(),
        )

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _end_leaf(self) -> None:
        self._leaves.append(self._leaf.digest())
        self._leaf = hashlib.sha256(LEAF_PREFIX)
        self._leaf_room = LEAF_BYTES


class Writable(Protocol):
    """Where bytes go."""

    def write(self, data: memoryview, /) -> int:
        """Take bytes, and say how many were taken."""
        ...


class HashingWriter:
    """Passes bytes on to a stream and hashes them on the way."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream
        self._hasher = LeafHasher()

    def write(self, data: bytes) -> int:
        """Write all of it and hash it."""
        self._hasher.update(data)
        left = memoryview(data)
        while left:
            left = left[self._stream.write(left) :]
        return len(data)

    def finish(self) -> FileHash:
        """Give the hashes of all that was written."""
        return self._hasher.finish()


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """Give the root over leaf hashes (RFC 6962, 2.1)."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = tree_hash(leaves[:split]), tree_hash(leaves[split:])
    return hashlib.sha256(_NODE_PREFIX + left + right).digest()


def hash_file(path: Path) -> FileHash:
    """Hash a file on the disk; OSError if it cannot be read."""
    hasher = LeafHasher()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            hasher.update(block)
    return hasher.finish()


def copy_hashed(source: Path, target: BinaryIO) -> FileHash:
    """Copy a file into a stream and give the hashes of what was written."""
    writer = HashingWriter(target)
    with source.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            writer.write(block)
    return writer.finish()
