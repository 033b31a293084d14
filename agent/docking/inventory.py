"""What lies on a camera's storage: all of it is listed, none of it is trusted.

The medium may be damaged or made to harm: folders are opened one below the other by descriptor and
never through a link, depth, count and size are bounded, and a name is only data.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from agent.core.errors import SourceLost
from agent.docking import names

LONGEST_PATH = 4096  # bytes
SHOWN_BYTES = 512  # of a path that is longer
FURTHEST_NS = 1 << 62  # from 1970, either way: what a row holds
_GONE = frozenset({errno.ENODEV, errno.ENOTCONN, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Limits:
    """How much there may be on a camera."""

    max_files: int = 20_000  # folders are counted too
    max_depth: int = 8
    capacity_bytes: int = 0  # of the medium; 0: as its file system says


@dataclass(frozen=True, slots=True)
class Entry:
    """A file."""

    name: str  # path below the root, as data
    size_bytes: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Ignored:
    """Something that cannot be copied, or was beyond the limits."""

    name: str
    reason: str


@dataclass(slots=True)
class Inventory:
    """All that was found."""

    files: list[Entry] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)  # links, devices, folders that fail
    is_cut: bool = False  # there was more, or deeper, than the limits allow
    has_odd: bool = False  # something that no camera makes
    free_percent: float | None = None
    entries: int = 0  # looked at: files, folders and all else


def survey(root: Path, limits: Limits) -> Inventory:
    """List all files below a folder.

    Raises:
        SourceLost: the storage went away.
    """
    found = Inventory()
    try:
        with _folder(root) as descriptor:
            space = os.fstatvfs(descriptor)
            _walk(descriptor, b"", 0, limits, found)
    except OSError as error:
        raise SourceLost(f"storage {root}: {error.strerror}") from error
    if space.f_blocks:
        found.free_percent = 100 * space.f_bavail / space.f_blocks
    _bound(found, limits.capacity_bytes or space.f_blocks * space.f_frsize)
    return found


@contextmanager
def opened(root: Path, name: str) -> Iterator[int]:
    """Open a file by its name as data, through no link, for reading.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    with parent(root, name) as (folder, last):
        descriptor = os.open(
            last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(f"{name}: no plain file")
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def parent(root: Path, name: str) -> Iterator[tuple[int, bytes]]:
    """Open the folder of a file by the file's name as data; gives it and the last part."""
    *folders, last = names.raw(name).split(b"/")
    descriptors = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for part in folders:
            if part in (b"", b".", b".."):
                raise OSError(f"{name}: leads out of the storage")
            descriptors.append(_open_folder(part, descriptors[-1]))
        yield descriptors[-1], last
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def remove(root: Path, name: str) -> None:
    """Delete one file, durably; OSError if it cannot be."""
    with parent(root, name) as (folder, last):
        os.unlink(last, dir_fd=folder)
        os.fsync(folder)


def _walk(descriptor: int, above: bytes, depth: int, limits: Limits, found: Inventory) -> None:
    try:
        with os.scandir(descriptor) as listing:
            room = limits.max_files - found.entries + 1
            entries = sorted(islice(listing, room), key=lambda entry: entry.name)
    except OSError as error:
        _failed(found, above, error)
        return
    for entry in entries:
        if found.entries >= limits.max_files:
            found.is_cut = True
            return
        found.entries += 1
        _add(descriptor, above, os.fsencode(entry.name), depth, (limits, found))


def _add(
    folder: int, above: bytes, last: bytes, depth: int, work: tuple[Limits, Inventory]
) -> None:
    limits, found = work
    path = above + last
    if len(path) > LONGEST_PATH:
        found.has_odd = True
        start = names.shown(path[:SHOWN_BYTES])
        found.ignored.append(Ignored(start, f"a path of {len(path)} bytes"))
        return
    name = names.shown(path)
    try:
        status = os.stat(last, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        _failed(found, path, error)
        return
    if stat.S_ISREG(status.st_mode):
        mtime_ns = max(-FURTHEST_NS, min(status.st_mtime_ns, FURTHEST_NS))
        found.files.append(Entry(name, status.st_size, mtime_ns, status.st_ino))
    elif not stat.S_ISDIR(status.st_mode):
        found.has_odd = True
        found.ignored.append(Ignored(name, f"no plain file: {stat.filemode(status.st_mode)[0]}"))
    elif depth >= limits.max_depth:
        found.is_cut = True
        found.ignored.append(Ignored(name, f"deeper than {limits.max_depth} folders"))
    else:
        _below(folder, path, last, depth, work)


def _below(
    folder: int, path: bytes, last: bytes, depth: int, work: tuple[Limits, Inventory]
) -> None:
    limits, found = work
    try:
        descriptor = _open_folder(last, folder)
    except OSError as error:
        _failed(found, path, error)
        return
    try:
        _walk(descriptor, path + b"/", depth + 1, limits, found)
    finally:
        os.close(descriptor)


def _failed(found: Inventory, path: bytes, error: OSError) -> None:
    """Note what cannot be read; what is gone with all of the storage ends the listing."""
    code = os.strerror(error.errno or 0)
    if error.errno in _GONE:
        raise error
    found.ignored.append(Ignored(names.shown(path), f"cannot be read: {code}"))


def _bound(found: Inventory, capacity_bytes: int) -> None:
    """Leave out what is larger than the medium, and tell when all of it together is."""
    for entry in [item for item in found.files if item.size_bytes > capacity_bytes]:
        found.files.remove(entry)
        reason = f"{entry.size_bytes} bytes on a medium of {capacity_bytes}"
        found.ignored.append(Ignored(entry.name, reason))
        found.is_cut = True
    if sum(entry.size_bytes for entry in found.files) > capacity_bytes:
        found.is_cut = True


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_folder(last: bytes, folder: int) -> int:
    return os.open(last, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
