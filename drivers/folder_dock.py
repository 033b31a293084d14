"""A dock made of folders, without privileges or hardware: for trials, tests and the demonstration.

A slot is `<folder>/<slot>/`. What hangs in it is said by what lies there:

    tty            link to a serial port or pseudo-terminal: a camera that is spoken to
    storage/       the camera's files, counted only beside
    volume.json    {"serial", "label", "capacity_bytes"}, each may be missing; laid last
    usb            "vendor:product", may be missing; alone it is a device that nobody knows
    eject          made here when the storage is let go; whoever plays the camera takes it away.
                   While it lies there the storage does not count: the camera is about to leave

A plug is told from the next by its inode number and the time of its last change (a wipe changes
the folder of the files, but neither the link nor `volume.json`). Both come from the kernel and
outlive us, so a camera that still hangs after a restart is the same plug.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from agent.core.clock import Clock
from agent.core.config import NAME, Doc, Length
from agent.core.dock import CameraLink, Seen
from agent.core.errors import ConfigError, SourceLost, StorageError, Unsupported

LINK = "tty"
STORAGE = "storage"
VOLUME = "volume.json"
USB = "usb"
EJECT = "eject"
LONGEST_BYTES = 4096  # of volume.json and usb


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a dock made of folders."""

    folder: Annotated[Path, Doc("Folder of the slots")]
    slots: Annotated[
        tuple[Annotated[str, NAME], ...],
        Doc("Names of the slots in the order they hang, each a folder"),
        Length(1, 64),
    ]

    def __post_init__(self) -> None:
        if len(set(self.slots)) != len(self.slots):
            raise ConfigError(f"slots: {list(self.slots)}; allowed: each name once")


def build(config: Config, clock: Clock, open_link: Callable[[str], CameraLink]) -> "FolderDock":
    """Give the dock; nothing is opened yet."""
    del clock  # folders tell no time
    return FolderDock(config, open_link)


class FolderDock:
    """See `agent.core.dock.Dock`."""

    def __init__(self, config: Config, open_link: Callable[[str], CameraLink]) -> None:
        self.slots = config.slots
        self._config = config
        self._open_link = open_link

    def seen(self, slot: str) -> Seen | None:
        """See `Dock.seen`."""
        return _look(self._config.folder / slot)

    def link(self, slot: str) -> CameraLink:
        """See `Dock.link`."""
        found = self._something(slot)
        if not found.has_link:
            raise Unsupported(f"slot {slot}: {_what(found)} is not spoken to")
        return self._open_link(str(self._config.folder / slot / LINK))

    def storage(self, slot: str) -> "FolderStorage":
        """See `Dock.storage`."""
        found = self._something(slot)
        if not found.has_storage:
            raise Unsupported(f"slot {slot}: {_what(found)} has no storage")
        return FolderStorage(self._config.folder / slot, found.plug)

    def _something(self, slot: str) -> Seen:
        found = self.seen(slot)
        if found is None:
            raise SourceLost(f"slot {slot}: nothing hangs there")
        return found


class FolderStorage:
    """See `agent.core.dock.Storage`.

    Raises:
        SourceLost: it was pulled meanwhile.
        Unsupported: `volume.json` is none.
    """

    def __init__(self, slot: Path, plug: str) -> None:
        self._slot = slot
        self._plug = plug
        self._is_open = True
        volume = _volume(slot)
        self.root = slot / STORAGE
        self.serial = str(volume.get("serial") or volume.get("label") or "")
        self.capacity_bytes = _whole(volume.get("capacity_bytes"))

    @contextmanager
    def writable(self) -> Iterator[None]:
        """See `Storage.writable`; a folder without the owner's write bit is a locked card."""
        self._check_plugged()
        try:
            mode = self.root.stat().st_mode
        except OSError as error:
            raise SourceLost(f"slot {self._slot.name}: {error.strerror}") from error
        # The bit is looked at too, since root may write anywhere.
        if not mode & stat.S_IWUSR or not os.access(self.root, os.W_OK):
            raise StorageError(f"slot {self._slot.name}: the card cannot be written")
        yield
        self._check_plugged()

    def close(self, *, eject: bool = True) -> None:
        """See `Storage.close`."""
        if eject and self._is_open and self._is_plugged():
            (self._slot / EJECT).touch()
        self._is_open = False

    def _check_plugged(self) -> None:
        if not self._is_open:
            raise SourceLost(f"slot {self._slot.name}: let go already")
        if not self._is_plugged():
            raise SourceLost(f"slot {self._slot.name}: the camera was pulled")

    def _is_plugged(self) -> bool:
        found = _look(self._slot)
        return found is not None and found.plug == self._plug


def _look(slot: Path) -> Seen | None:
    link = _mark(slot / LINK) if (slot / LINK).exists() else ""  # a link to nowhere is no port
    has_storage = bool(_mark(slot / STORAGE)) and not (slot / EJECT).exists()
    storage = _mark(slot / VOLUME) if has_storage else ""
    device = _mark(slot / USB)
    marks = [*filter(None, (link, storage))] or [*filter(None, (device,))]
    if not marks:
        return None
    return Seen("+".join(marks), bool(link), bool(storage), _usb_id(slot) if device else "")


def _usb_id(slot: Path) -> str:
    with suppress(SourceLost):
        return _text(slot / USB).strip()
    return ""


def _mark(path: Path) -> str:
    try:
        found = path.lstat()
    except OSError:
        return ""
    return f"{path.name}-{found.st_ino}-{found.st_ctime_ns}"


def _volume(slot: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(slot / VOLUME))
    except (ValueError, RecursionError) as error:
        raise Unsupported(f"slot {slot.name}: {VOLUME}: {error}") from error
    if not isinstance(found, dict):
        raise Unsupported(f"slot {slot.name}: {VOLUME}; allowed: an object")
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_BYTES).decode(errors="replace")
    except OSError as error:
        raise SourceLost(f"slot {path.parent.name}: {path.name}: {error.strerror}") from error


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _what(found: Seen) -> str:
    return f"device {found.usb_id}" if found.usb_id else "what hangs there"
