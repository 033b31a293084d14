"""One file from a camera: copied and hashed in one pass, resumed where it was cut short.

Beside `<id>.part` stands `<id>.leaves`, a line for every 4 MiB that were written: what its hash
confirms on our own disk needs no second reading of the camera. Before going on, the last 4 MiB are
compared with the camera; no more of it is read twice. If they differ, all begins anew, and what was
here stays as `<id>.aside-<n>`. What cannot be read is tried three times,
then in steps of 64 KiB, and stands as zeros in the copy and as ranges in its map, `<id>.bad`.
"""

import errno
import hashlib
import json
import os
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.core import log
from agent.core.errors import HashMismatch, SourceLost, StorageError, Unsupported
from agent.core.files import write_atomic
from agent.docking import inventory
from agent.evidence.hashing import LEAF_BYTES, LEAF_PREFIX, FileHash, LeafHasher

BLOCK_BYTES = 512 << 10
SYNC_BYTES = 64 << 20
STEP_BYTES = 64 << 10  # around what cannot be read
TRIES = 3
SAMPLES = 5  # places read twice, besides the first and the last
ZERO_TAIL_BYTES = 64 << 10
MOST_BAD = 200  # ranges told; more are joined into the last one
NOT_THIS_ONE = frozenset(
    {errno.ENOENT, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, None}
)
PART, LEAVES, BAD, ASIDE = ".part", ".leaves", ".bad", ".aside"
GONE = frozenset({errno.ENODEV, errno.ENOTCONN, errno.ENXIO, errno.ESTALE, errno.ENOMEDIUM})

_log = log.get(__name__)

Tick = Callable[[int], None]
"""Called with the bytes done since the last call; raises to end the work."""

Range = tuple[int, int]
"""First byte, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file on a camera, as the inventory told it."""

    root: Path
    name: str  # as data
    size_bytes: int
    mtime_ns: int


@dataclass(slots=True)
class Copy:
    """What came of it."""

    hash: FileHash
    flags: list[str] = field(default_factory=list)
    bad: list[Range] = field(default_factory=list)  # could not be read, zeros here


def part_path(folder: Path, part_id: str) -> Path:
    """Give the place of a copy under way."""
    return folder / f"{part_id}{PART}"


def discard(folder: Path, part_id: str) -> None:
    """Delete a copy under way; fine if there is none."""
    for suffix in (PART, LEAVES, BAD):
        (folder / f"{part_id}{suffix}").unlink(missing_ok=True)


def copy(source: Source, folder: Path, part_id: str, room: Callable[[], None], tick: Tick) -> Copy:
    """Copy a file, or the rest of it, and compare it with the camera and with our own disk.

    Args:
        source: the file on the camera.
        folder: of copies under way.
        part_id: names this one.
        room: raises StorageError when the disk is too full; asked before and every 64 MiB.
        tick: progress; raises to end the work, which can be resumed.

    Raises:
        SourceLost: the storage went away.
        Unsupported: this file cannot be opened.
        StorageError: our own disk refuses.
        HashMismatch: it does not give back what was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    room()
    try:
        with inventory.opened(source.root, source.name) as descriptor:
            work = _Work(source, descriptor, folder, part_id, room, tick)
            try:
                return work.run()
            finally:
                work.close()
    except OSError as error:
        if error.errno in NOT_THIS_ONE and source.root.is_dir():
            raise Unsupported(f"{source.name}: {error.strerror or error}") from error
        raise SourceLost(f"{source.name}: {error.strerror or error}") from error


def read_hash(source: Source, tick: Tick) -> FileHash:
    """Read a file of the camera once more and give its hashes.

    Raises:
        SourceLost: the storage went away.
        OSError: it cannot be opened or read.
    """
    hasher = LeafHasher()
    with inventory.opened(source.root, source.name) as descriptor:
        _forget(descriptor)
        place = 0
        while block := os.pread(descriptor, BLOCK_BYTES, place):
            hasher.update(block)
            place += len(block)
            tick(0)
    return hasher.finish()


class _Work:
    def __init__(
        self,
        source: Source,
        descriptor: int,
        folder: Path,
        part_id: str,
        room: Callable[[], None],
        tick: Tick,
    ) -> None:
        self._source = source
        self._descriptor = descriptor
        self._room = room
        self._tick = tick
        self._part_path = part_path(folder, part_id)
        self._bad_path = folder / f"{part_id}{BAD}"
        # Reading, writing, hashing and syncing go on beside each other, in order, a block each.
        self._pool = ThreadPoolExecutor(3, "copy") if source.size_bytes > LEAF_BYTES else None
        self._pending: Future[None] | None = None
        self._syncing: Future[None] | None = None
        self._hasher = LeafHasher(self._pool)
        self._leaves_told = 0
        self._bad: list[Range] = []
        self._flags_before: list[str] = []
        try:
            self._part = self._part_path.open("a+b", buffering=0)
            self._leaves = (folder / f"{part_id}{LEAVES}").open("a+b")
        except OSError as error:
            raise StorageError(f"{self._part_path}: {error.strerror}") from error

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        with suppress(OSError):
            self._leaves.flush()
        self._leaves.close()
        self._part.close()

    def run(self) -> Copy:
        _forget(self._descriptor)
        with suppress(OSError):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        place = self._resume()
        self._tick(place)
        place = self._read_on(place)
        found = self._hasher.finish()
        self._sync()
        flags = self._flags(place)
        self._read_back(found)
        return Copy(found, flags, self._bad)

    # Going on.

    def _resume(self) -> int:
        """Give how much of the file is here and right; the hasher has taken it in.

        What no line confirms may never have reached the disk: it is kept only as far as it is
        compared with the camera.
        """
        here = min(os.fstat(self._part.fileno()).st_size, self._source.size_bytes)
        self._bad = [(start, end) for start, end in self._known_bad() if start < here]
        sure = self._confirmed(here)
        if here - sure > LEAF_BYTES or not self._is_end_same(here):
            here = sure
            if not self._is_end_same(here):
                self._put_aside()
                here, self._bad = 0, []
        return self._take_in(here)

    def _put_aside(self) -> None:
        """Keep what was copied of a file that is another one now."""
        aside = self._part_path.with_suffix(f"{ASIDE}-{self._asides()}")
        try:
            os.link(self._part_path, aside)
            self._part.close()
            self._part_path.unlink()
            self._part = self._part_path.open("a+b", buffering=0)
            self._bad_path.unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(error) from error
        _log.warning("file has changed, begun anew", name=self._source.name, kept=aside.name)
        self._flags_before.append("begun_anew")

    def _asides(self) -> int:
        return len(list(self._part_path.parent.glob(f"{self._part_path.stem}{ASIDE}-*")))

    def _known_bad(self) -> list[Range]:
        try:
            return [(int(start), int(end)) for start, end in json.loads(self._bad_path.read_text())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise StorageError(f"{self._bad_path}: {error}") from error

    def _is_end_same(self, end: int) -> bool:
        """Compare the last 4 MiB with the camera, but for places that could not be read before."""
        start = max(0, end - LEAF_BYTES)
        steps = [(start, end)]
        if any(first < end and start < last for first, last in self._bad):
            ends = range(start, end, STEP_BYTES)
            steps = [(place, min(place + STEP_BYTES, end)) for place in ends]
        return all(self._is_same(first, last) for first, last in steps)

    def _is_same(self, start: int, end: int) -> bool:
        if any(first < end and start < last for first, last in self._bad):
            return True
        try:
            theirs = _exactly(self._descriptor, start, end - start)
        except OSError as error:
            self._look(error)
            return False
        return theirs == _exactly(self._part.fileno(), start, end - start)

    def _confirmed(self, limit: int) -> int:
        """Give the end of the last leaf whose line its bytes confirm."""
        self._leaves.seek(0)
        place = 0
        for line in self._leaves.read().split():
            if place + LEAF_BYTES > limit or self._leaf(place).encode() != line:
                break
            place += LEAF_BYTES
            self._tick(0)
        return place

    def _leaf(self, start: int) -> str:
        one = hashlib.sha256(LEAF_PREFIX)
        for place in range(start, start + LEAF_BYTES, BLOCK_BYTES):
            one.update(_exactly(self._part.fileno(), place, BLOCK_BYTES))
        return one.hexdigest()

    def _take_in(self, end: int) -> int:
        """Keep this much of the copy, hash it, and write its lines anew."""
        try:
            self._part.truncate(end)
            self._leaves.truncate(0)
        except OSError as error:
            raise self._refused(error) from error
        place = 0
        while place < end:
            block = _exactly(self._part.fileno(), place, min(BLOCK_BYTES, end - place))
            self._hasher.update(block)
            place += len(block)
            self._tell_leaves()
            self._tick(0)
        return end

    # Reading.

    def _read_on(self, place: int) -> int:
        synced = place
        while place < self._source.size_bytes:
            wanted = min(BLOCK_BYTES, self._source.size_bytes - place)
            block = self._block(place, wanted)
            if not block:
                break
            self._take(block)
            place += len(block)
            if place - synced >= SYNC_BYTES:
                self._sync_beside()
                self._room()
                synced = place
            self._tick(len(block))
        self._settle()
        return place

    def _take(self, block: bytes) -> None:
        if self._pool is None:
            self._write(block)
            return
        if self._pending is not None:
            self._pending.result()
        self._pending = self._pool.submit(self._write, block)

    def _sync_beside(self) -> None:
        if self._pool is not None:
            if self._syncing is not None:
                self._syncing.result()
            self._syncing = self._pool.submit(self._sync)

    def _settle(self) -> None:
        for work in (self._pending, self._syncing):
            if work is not None:
                work.result()

    def _block(self, place: int, count: int) -> bytes:
        try:
            return os.pread(self._descriptor, count, place)
        except OSError as error:
            self._look(error)
        steps = [
            self._step(start, min(STEP_BYTES, place + count - start))
            for start in range(place, place + count, STEP_BYTES)
        ]
        return b"".join(steps)

    def _step(self, place: int, count: int) -> bytes:
        for _ in range(TRIES):
            try:
                return os.pread(self._descriptor, count, place)
            except OSError as error:
                self._look(error)
        self._note_bad(place, place + count)
        return bytes(count)

    def _look(self, error: OSError) -> None:
        """Raise unless it is this place alone that cannot be read."""
        self._tick(0)
        if error.errno in GONE:
            raise error
        self._source.root.stat()
        os.fstat(self._descriptor)

    def _note_bad(self, start: int, end: int) -> None:
        _log.warning("cannot be read", name=self._source.name, start=start, end=end)
        is_joined = self._bad and (self._bad[-1][1] == start or len(self._bad) >= MOST_BAD)
        if is_joined:
            self._bad[-1] = (self._bad[-1][0], end)
        else:
            self._bad.append((start, end))
        try:
            write_atomic(self._bad_path, json.dumps(self._bad).encode())
        except OSError as error:
            raise self._refused(error) from error

    # Writing.

    def _write(self, block: bytes) -> None:
        left = memoryview(block)
        try:
            while left:
                left = left[self._part.write(left) :]
        except OSError as error:
            raise self._refused(error) from error
        self._hasher.update(block)
        self._tell_leaves()

    def _tell_leaves(self) -> None:
        """Write a line for every leaf that is whole."""
        leaves = self._hasher.whole_leaves
        try:
            for leaf in leaves[self._leaves_told :]:
                self._leaves.write(leaf.hex().encode() + b"\n")
            if len(leaves) > self._leaves_told:
                self._leaves.flush()
        except OSError as error:
            raise self._refused(error) from error
        self._leaves_told = len(leaves)

    def _sync(self) -> None:
        try:
            os.fdatasync(self._part.fileno())
            os.fdatasync(self._leaves.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(f"{self._part_path.name}: {error.strerror}")

    # Comparing.

    def _flags(self, copied: int) -> list[str]:
        flags = [*self._flags_before, *(["partial"] if self._bad else [])]
        now = os.fstat(self._descriptor)
        if copied < self._source.size_bytes or now.st_size < self._source.size_bytes:
            flags.append("shrank")
        elif now.st_size > self._source.size_bytes:
            flags.append("grew")
        if not self._bad and not self._is_same_twice(copied):
            flags.append("unstable")
        tail = _exactly(
            self._part.fileno(), max(0, copied - ZERO_TAIL_BYTES), min(copied, ZERO_TAIL_BYTES)
        )
        if copied > ZERO_TAIL_BYTES and not any(tail):
            flags.append("zero_tail")
        return flags

    def _is_same_twice(self, size_bytes: int) -> bool:
        """Read some places of the camera's file again."""
        _forget(self._descriptor)
        last = max(0, size_bytes - STEP_BYTES)
        dice = random.Random(size_bytes)  # noqa: S311 - places to look at
        places = {0, last, *(dice.randint(0, last) for _ in range(SAMPLES))}
        for place in sorted(places):
            count = min(STEP_BYTES, size_bytes - place)
            self._tick(0)
            try:
                theirs = _exactly(self._descriptor, place, count)
            except OSError as error:
                self._look(error)
                return False
            if theirs != _exactly(self._part.fileno(), place, count):
                return False
        return True

    def _read_back(self, found: FileHash) -> None:
        """Read our own copy from the disk: its leaves say that its bytes are those that came."""
        _forget(self._part.fileno())
        half = len(found.leaves) // 2
        try:
            is_right = os.fstat(self._part.fileno()).st_size == found.size_bytes
            if self._pool is None:
                is_right &= self._is_right(found, 0, len(found.leaves))
            else:
                beside = self._pool.submit(self._is_right, found, 0, half)
                is_right &= self._is_right(found, half, len(found.leaves))
                is_right &= beside.result()
        except OSError as error:
            raise self._refused(error) from error
        if not is_right:
            raise HashMismatch(f"{self._part_path.name}: our own disk gives back other bytes")

    def _is_right(self, found: FileHash, first: int, end: int) -> bool:
        return all(
            self._leaf(number * LEAF_BYTES) == found.leaves[number] for number in range(first, end)
        )


def _exactly(descriptor: int, place: int, count: int) -> bytes:
    parts = []
    while count > 0 and (part := os.pread(descriptor, count, place)):
        parts.append(part)
        place, count = place + len(part), count - len(part)
    return b"".join(parts)


def _forget(descriptor: int) -> None:
    """Have the next reading come from the medium, as far as the kernel goes along."""
    with suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
