"""The directory store: `<store>/<site>/<device>/<clip_id>/`, each a hand-over, never altered.

A file appears under its name only when it is whole, checked and on the disk. Names and ids reach
this module checked by schema: nothing in them can leave the folder.
"""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

from agent.core import log, wire
from agent.core.clock import Clock
from agent.core.errors import IntegrityError, OutboxFull
from agent.core.files import sync_directory, write_atomic
from agent.evidence import manifest, receipt
from agent.evidence.hashing import hash_file
from agent.receiver.config import ReceiverConfig

INCOMING, REJECTED = "incoming", "rejected"
PART_SUFFIX = ".part"
VERSION_HEX = 12

_log = log.get(__name__)


class Refused(IntegrityError):
    """An offer or a file that is set aside; the text goes to the device."""

    is_final = False  # whether the same offer could ever be taken


class RefusedForGood(Refused):
    """An offer that waiting will not make better."""

    is_final = True


class Full(IntegrityError):
    """There is no room for a file at present."""


def is_full(error: BaseException) -> bool:
    """Whether the disk or the index has refused for want of room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OutboxFull | Full)


class Archive:
    """Files and folders of a receiver; every method raises OSError when the disk refuses."""

    def __init__(self, config: ReceiverConfig, clock: Clock) -> None:
        self._config = config
        self._root = config.store_dir
        self._clock = clock

    @property
    def free_bytes(self) -> int:
        """What may still be filled."""
        return max(0, shutil.disk_usage(self._root).free - self._config.keep_free_bytes)

    def part(self, device: str, fid: str) -> Path:
        """Where a transfer is put together."""
        return self._root / INCOMING / device / f"{fid}{PART_SUFFIX}"

    def parts(self) -> list[tuple[str, str]]:
        """Give device and fid of every part file."""
        found = (self._root / INCOMING).glob(f"*/*{PART_SUFFIX}")
        return [(path.parent.name, path.stem) for path in found]

    def place(self, device: str, folder: str, name: str) -> Path:
        """Where a file is kept."""
        return self._root / self._config.site / device / folder / name

    def folder(self, device: str, clip_id: str, signed: wire.Json) -> str:
        """Give the name of a hand-over's folder: its id, unless another manifest stands there.

        A device whose database went back in time may seal a clip again under its id. Both stay.
        """
        path = self.place(device, clip_id, manifest.FILE_NAME)
        try:
            is_other = json.loads(path.read_bytes()) != signed
        except (FileNotFoundError, NotADirectoryError, ValueError):  # a damaged one is written anew
            is_other = False
        if not is_other:
            return clip_id
        digest = hashlib.sha256(wire.canonical(signed)).hexdigest()
        return f"{clip_id}.{digest[:VERSION_HEX]}"

    def relative(self, place: Path) -> str:
        """Give a place as the index notes it."""
        return str(place.relative_to(self._root))

    def has(self, relative: str, size_bytes: int) -> bool:
        """Whether a file is at its place with its size; its bytes are not read."""
        try:
            return (self._root / relative).stat().st_size == size_bytes
        except OSError:
            return False

    def holds(self, place: Path, sha256: str) -> bool:
        """Whether the bytes are there, read and hashed now."""
        return place.is_file() and hash_file(place).sha256 == sha256

    def link(self, relative: str, place: Path, sha256: str) -> bool:
        """Keep the same bytes under a second name; false if they are not there any more."""
        source = self._root / relative
        if not self.holds(source, sha256):
            return False
        try:
            os.link(source, place)
        except OSError as error:  # a file system without links: the bytes are sent again
            _log.info("file not linked", path=place, reason=error)
            return False
        sync_directory(place.parent)
        return True

    def has_manifest(self, offer: wire.Json, place: Path) -> bool:
        """Whether the hand-over's manifest is kept.

        Raises:
            Refused: another one is.
        """
        path = place.parent / manifest.FILE_NAME
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):  # a damaged one is written again
            return False
        if found != offer["manifest"]:
            raise Refused(f"hand-over {place.parent.name} is kept with another manifest")
        return True

    def keep_manifest(self, offer: wire.Json, place: Path) -> None:
        """Make the hand-over's folder and put its manifest there.

        Raises:
            Refused: the folder has another manifest.
        """
        if not self.has_manifest(offer, place):
            _make_folders(place.parent)
            write_atomic(place.parent / manifest.FILE_NAME, wire.encode(offer["manifest"]))

    def take_in(self, part: Path, place: Path) -> None:
        """Move a whole and synced part file to its place."""
        part.rename(place)
        sync_directory(place.parent)
        sync_directory(part.parent)

    def keep_receipt(self, document: wire.Json, place: Path) -> None:
        """Put a receipt beside its file."""
        write_atomic(place.with_name(receipt.file_name(place.name)), wire.encode(document))

    def set_aside(self, path: Path, name: str) -> None:
        """Move a wrong file out of the way; the oldest ones go when there are too many bytes."""
        folder = self._root / REJECTED
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / f"{name}-{self._clock.utc_ns()}")
        kept = [(found.stat(), found) for found in folder.iterdir()]
        kept.sort(key=lambda item: item[0].st_mtime_ns)
        too_many = sum(found.st_size for found, _ in kept) - self._config.max_rejected_bytes
        for found, old in kept[:-1]:
            if too_many <= 0:
                break
            too_many -= found.st_size
            old.unlink()
            _log.warning("old rejected file removed", file=old.name, size_bytes=found.st_size)


def _make_folders(folder: Path) -> None:
    """Make a folder and its parents so that their names survive a power cut."""
    if folder.exists():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_directory(folder.parent)
