"""Which file system a medium says it holds, and what it calls itself, by its first bytes.

Looked at before anything is mounted, so that the kernel's code of no other file system ever sees a
stranger's medium. FAT and exFAT keep their label in the root folder; the one in FAT's boot sector
is often never written. Layouts: Microsoft's "FAT: General Overview of On-Disk Format" and "exFAT
file system specification"; of ext4 the kernel's own documentation.
"""

import struct
from dataclasses import dataclass

FIRST_BYTES = 4096  # how much `read` wants
ROOT_BYTES = 1 << 16  # how much of a root folder is looked through
BOOT_MARK = b"\x55\xaa"
NO_LABEL = "NO NAME"
EXT_AT = 1024
EXT_MAGIC = 0xEF53
ENTRY_BYTES = 32
IS_LABEL, LONG_NAME = 0x08, 0x0F  # of FAT's attributes
EXFAT_LABEL = 0x83
MOST_SHIFT = 25  # exFAT: clusters of at most 32 MiB
MOST_LETTERS = 11


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system's own words; texts are empty where it tells none."""

    kind: str  # as mount(2) has it
    label: str
    number: str  # serial number of the volume
    root_at: int = 0  # byte where the root folder begins, which has the label; 0: `label` is all


def read(first: bytes) -> Volume | None:
    """Tell the file system; None: none that we know."""
    if len(first) < FIRST_BYTES:
        return None
    if first[510:512] == BOOT_MARK and first[3:11] == b"EXFAT   ":
        return Volume("exfat", "", _number(first, 100), _exfat_root(first))
    if first[510:512] == BOOT_MARK and first[82:87] == b"FAT32":
        return Volume("vfat", _label(first[71:82]), _number(first, 67), _fat_root(first))
    if first[510:512] == BOOT_MARK and first[54:58] == b"FAT1":
        return Volume("vfat", _label(first[43:54]), _number(first, 39), _fat_root(first))
    if struct.unpack_from("<H", first, EXT_AT + 56)[0] == EXT_MAGIC:
        return Volume("ext4", _label(first[EXT_AT + 120 : EXT_AT + 136]), "")
    return None


def label_in(root: bytes) -> str:
    """Give the label that stands in the beginning of a root folder, of FAT or exFAT."""
    for at in range(0, len(root) - ENTRY_BYTES + 1, ENTRY_BYTES):
        entry = root[at : at + ENTRY_BYTES]
        if entry[0] == 0:  # no more entries
            break
        if entry[0] == EXFAT_LABEL:
            letters = entry[2 : 2 + 2 * min(entry[1], MOST_LETTERS)]
            return _printable(letters.decode("utf-16-le", errors="replace"))
        if entry[11] & LONG_NAME == IS_LABEL and entry[0] != 0xE5:  # noqa: PLR2004 - removed
            return _label(entry[:11])
    return ""


def _fat_root(first: bytes) -> int:
    sector, cluster, reserved, fats = struct.unpack_from("<HBHB", first, 11)
    fat_sectors = struct.unpack_from("<H", first, 22)[0]
    if fat_sectors:  # FAT12 and FAT16: right behind the tables
        return int((reserved + fats * fat_sectors) * sector)
    fat_sectors, number = struct.unpack_from("<I4xI", first, 36)
    return int((reserved + fats * fat_sectors + max(0, number - 2) * cluster) * sector)


def _exfat_root(first: bytes) -> int:
    heap, number = struct.unpack_from("<I4xI", first, 88)
    sector, cluster = first[108], first[109]
    if sector + cluster > MOST_SHIFT:
        return 0
    return int((heap << sector) + (max(0, number - 2) << sector + cluster))


def _number(first: bytes, at: int) -> str:
    return f"{struct.unpack_from('<I', first, at)[0]:08X}"


def _label(raw: bytes) -> str:
    text = _printable(raw.split(b"\0")[0].decode("ascii", errors="replace"))
    return "" if text == NO_LABEL else text


def _printable(text: str) -> str:
    return "".join(letter for letter in text.strip() if letter.isprintable())
