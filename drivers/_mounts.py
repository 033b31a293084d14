"""mount(2) and what the kernel says it really did.

The system call itself, not the program `mount`: that one hands over to helpers such as
`mount.exfat-fuse`, which was seen to drop `noexec` without a word.
"""

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOSYMFOLLOW, MS_NOATIME = 32, 256, 1024  # nosymfollow: since Linux 5.10
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOSYMFOLLOW | MS_NOATIME
SAFE_WORDS = frozenset({"nosuid", "nodev", "noexec", "nosymfollow"})

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo."""

    target: Path
    number: tuple[int, int]  # major, minor of the device
    flags: frozenset[str]
    kind: str


def mount(source: Path, target: Path, kind: str, flags: int, options: str) -> None:
    """Mount; OSError as the kernel tells it."""
    words = (os.fsencode(source), os.fsencode(target), kind.encode(), flags, options.encode())
    _call("mount", target, *words)


def remount(target: Path, flags: int) -> None:
    """Change a mount's flags; its options stay as they are."""
    _call("mount", target, None, os.fsencode(target), None, MS_REMOUNT | flags, None)


def detach(target: Path) -> bool:
    """Unmount, whoever still reads there; false if nothing was mounted."""
    try:
        _call("umount2", target, os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW)
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
            kind=words[words.index("-") + 1],
        )


def at(target: Path, table: Path = MOUNTINFO) -> Mount | None:
    """Give what is mounted on a folder, the topmost; None: nothing."""
    found = [item for item in mounted(table) if item.target == target]
    return found[-1] if found else None


def below(folder: Path, table: Path = MOUNTINFO) -> list[Path]:
    """Give what is mounted on a folder and in it, the deepest first."""
    found = [item.target for item in mounted(table) if item.target.is_relative_to(folder)]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _call(name: str, target: Path, *words: object) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), name)
    if call(*(ctypes.c_ulong(word) if isinstance(word, int) else word for word in words)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
