"""Which file system a medium says it holds, by its first bytes.

Looked at before anything is mounted, so that the kernel's code of no other file system ever sees a
stranger's medium. Layouts: Microsoft's "FAT: General Overview of On-Disk Format" and "exFAT file
system specification"; of ext4 the kernel's own documentation.
"""

import struct
from dataclasses import dataclass

FIRST_BYTES = 4096  # how much `read` wants
BOOT_MARK = b"\x55\xaa"
NO_LABEL = "NO NAME"
EXT_AT = 1024
EXT_MAGIC = 0xEF53


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system's own words; texts are empty where it tells none."""

    kind: str  # as mount(2) has it
    label: str
    number: str  # serial number of the volume


def read(first: bytes) -> Volume | None:
    """Tell the file system; None: none that we know."""
    if len(first) < FIRST_BYTES:
        return None
    if first[510:512] == BOOT_MARK and first[3:11] == b"EXFAT   ":
        return Volume("exfat", "", _number(first, 100))
    if first[510:512] == BOOT_MARK and first[82:87] == b"FAT32":
        return Volume("vfat", _label(first[71:82]), _number(first, 67))
    if first[510:512] == BOOT_MARK and first[54:58] == b"FAT1":
        return Volume("vfat", _label(first[43:54]), _number(first, 39))
    if struct.unpack_from("<H", first, EXT_AT + 56)[0] == EXT_MAGIC:
        return Volume("ext4", _label(first[EXT_AT + 120 : EXT_AT + 136]), "")
    return None


def _number(first: bytes, at: int) -> str:
    return f"{struct.unpack_from('<I', first, at)[0]:08X}"


def _label(raw: bytes) -> str:
    text = raw.split(b"\0")[0].decode("ascii", errors="replace").strip()
    kept = "".join(letter for letter in text if letter.isprintable())
    return "" if kept == NO_LABEL else kept
