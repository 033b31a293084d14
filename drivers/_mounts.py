"""Mounting by system calls, and what the kernel says it really did.

Not by the program `mount`: that one hands over to helpers such as `mount.exfat-fuse`, which was
seen to drop `noexec` without a word.

Read only is the file system, not the mount: the agent sees a copy of the mount in a namespace of
its own, which would keep the flags of the mount as they were when it was made. Hence fsopen(2) and
its kin rather than mount(2), which cannot make the one without the other; Linux 5.14 is needed.
"""

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT = 429, 430, 431, 432  # the same on every machine
SET_FLAG, SET_STRING, CREATE = 0, 1, 6
CLOEXEC = 1
AT_FDCWD, FROM_DESCRIPTOR = -100, 4
ATTRIBUTES = 2 | 4 | 8 | 0x10 | 0x200000  # MOUNT_ATTR_: NOSUID NODEV NOEXEC NOATIME NOSYMFOLLOW
MS_RDONLY, MS_REMOUNT = 1, 32
MS_SAFE = 2 | 4 | 8 | 256 | 1024  # MS_: NOSUID NODEV NOEXEC NOSYMFOLLOW NOATIME
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
SAFE_WORDS = frozenset({"nosuid", "nodev", "noexec", "nosymfollow"})
LOG_BYTES = 1024

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo."""

    target: Path
    number: tuple[int, int]  # major, minor of the device
    flags: frozenset[str]
    is_read_only: bool  # the file system, hence every mount of it


def mount(source: Path, target: Path, kind: str, options: Mapping[str, str]) -> None:
    """Mount a device read only, so that nothing on it can act.

    Args:
        source: the block device.
        target: folder to mount on.
        kind: file system.
        options: of the file system; empty for one without a value.

    Raises:
        OSError: in the kernel's words, where it has any.
    """
    opened = _call(FSOPEN, kind.encode(), CLOEXEC)
    try:
        made = _make(opened, {"source": os.fspath(source), "ro": "", **options})
    except OSError as error:
        raise OSError(error.errno, _log_of(opened) or error.strerror) from error
    finally:
        os.close(opened)
    try:
        _call(MOVE_MOUNT, made, b"", AT_FDCWD, os.fsencode(target), FROM_DESCRIPTOR)
    finally:
        os.close(made)


def make_writable(target: Path) -> None:
    """Let the file system be written; OSError if the medium does not allow it."""
    _libc("mount", None, os.fsencode(target), None, MS_REMOUNT | MS_SAFE, None)


def make_read_only(target: Path) -> None:
    """End that; OSError while somebody has a file open for writing."""
    _libc("mount", None, os.fsencode(target), None, MS_REMOUNT | MS_SAFE | MS_RDONLY, None)


def detach(target: Path) -> bool:
    """Unmount, whoever still reads there; false if nothing was mounted."""
    try:
        _libc("umount2", os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def mounted(table: Path = MOUNTINFO) -> Iterator[Mount]:
    """Read the kernel's table of mounts; format: proc(5)."""
    for line in table.read_text(errors="surrogateescape").splitlines():
        words = line.split(" ")
        major, _, minor = words[2].partition(":")
        yield Mount(
            target=Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), words[4])),
            number=(int(major), int(minor)),
            flags=frozenset(words[5].split(",")),
            is_read_only="ro" in words[words.index("-") + 3].split(","),
        )


def at(target: Path, table: Path = MOUNTINFO) -> Mount | None:
    """Give what is mounted on a folder, the topmost; None: nothing."""
    found = [item for item in mounted(table) if item.target == target]
    return found[-1] if found else None


def below(folder: Path, table: Path = MOUNTINFO) -> list[Path]:
    """Give what is mounted on a folder and in it, the deepest first."""
    found = [item.target for item in mounted(table) if item.target.is_relative_to(folder)]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _make(opened: int, options: Mapping[str, str]) -> int:
    """Give a descriptor of the mount, which stands nowhere yet."""
    for key, value in options.items():
        if value:
            _call(FSCONFIG, opened, SET_STRING, key.encode(), os.fsencode(value), 0)
        else:
            _call(FSCONFIG, opened, SET_FLAG, key.encode(), None, 0)
    _call(FSCONFIG, opened, CREATE, None, None, 0)
    return _call(FSMOUNT, opened, CLOEXEC, ATTRIBUTES)


def _log_of(opened: int) -> str:
    """Read why it failed: lines such as `e ext4: …`."""
    with contextlib.suppress(OSError):
        return os.read(opened, LOG_BYTES).decode(errors="replace").strip().removeprefix("e ")
    return ""


def _call(number: int, *words: bytes | int | None) -> int:
    return _libc("syscall", number, *words)


def _libc(name: str, *words: bytes | int | None) -> int:
    call = getattr(ctypes.CDLL(None, use_errno=True), name)
    call.restype = ctypes.c_long
    told = call(*(ctypes.c_long(word) if isinstance(word, int) else word for word in words))
    if told < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(told)
