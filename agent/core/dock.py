"""What a dock's drivers and its slots say to each other.

A slot is a place for one body camera. Many cameras come twice: first as a device that is spoken to
(`CameraLink`), then, once told to, as storage (`Storage`); each time they are plugged anew.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Seen:
    """What hangs in a slot now."""

    plug: str  # another one after every pull, however short
    has_link: bool
    has_storage: bool
    usb_id: str = ""  # vendor:product, where the bus tells it


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a camera says it is; texts are the camera's own, empty where it tells none."""

    serial: str
    model: str = ""
    firmware: str = ""
    officer: str = ""  # the user id set in the camera


@dataclass(frozen=True, slots=True)
class ClockReading:
    """A camera's clock beside ours."""

    camera_utc_ns: int  # what it told; of one that tells local time, by the site's zone
    our_utc_ns: int  # in the middle of asking
    rtt_ms: int  # of asking: the offset is right to half of it, and to the camera's own step

    @property
    def offset_ms(self) -> int:
        """How far the camera is ahead of us."""
        return (self.camera_utc_ns - self.our_utc_ns) // 1_000_000


@dataclass(frozen=True, slots=True)
class Battery:
    """A camera's charge."""

    percent: int
    is_charging: bool | None = None  # None: it does not tell


class CameraLink(Protocol):
    """A camera that is spoken to, logged in; one thread at a time.

    Raises, from every method:
        SourceLost: it went away, or answers nothing that makes sense, tried again and again.
        AuthRefused: it does not take our login.
        Unsupported: it does not know this word.
    """

    def identify(self) -> Identity:
        """Ask who it is."""
        ...

    def read_clock(self) -> ClockReading:
        """Ask its clock."""
        ...

    def set_clock(self, utc_ns: int) -> None:
        """Set its clock."""
        ...

    def battery(self) -> Battery:
        """Ask its charge."""
        ...

    def marks(self) -> Sequence[str]:
        """Ask for the names of recordings that the officer marked, as on the storage."""
        ...

    def configure(self, settings: Mapping[str, str]) -> None:
        """Set its settings, by its own names."""
        ...

    def enter_storage(self) -> None:
        """Have it come back as storage; the link ends with this."""
        ...

    def close(self) -> None:
        """Let go; any number of times."""
        ...


class Storage(Protocol):
    """A camera's files, read only.

    Attributes:
        root: folder of its files. What lies there is hostile: see `agent/docking/inventory.py`.
        serial: who the storage says it is (USB serial, volume label); empty if it tells nothing.
        capacity_bytes: of the medium; 0 if unknown.
    """

    root: Path
    serial: str
    capacity_bytes: int

    def writable(self) -> AbstractContextManager[None]:
        """Allow deleting for a moment; read only again afterwards, and checked.

        Raises:
            StorageError: the medium does not allow it.
            SourceLost: it went away.
        """
        ...

    def close(self, *, eject: bool = True) -> None:
        """Let go, any number of times.

        Args:
            eject: whether the camera is told so; one that comes twice then comes back as a device
                that is spoken to, any other is gone until it is plugged anew.
        """
        ...


class Dock(Protocol):
    """All slots of a dock; methods may be called from any thread.

    Attributes:
        slots: their names, in the order they hang.
    """

    slots: Sequence[str]

    def seen(self, slot: str) -> Seen | None:
        """Tell at once what hangs in a slot; None: nothing."""
        ...

    def link(self, slot: str) -> CameraLink:
        """Open and log in.

        Raises:
            SourceLost: nothing there, or it went away.
            AuthRefused: it does not take our login.
            Unsupported: no device that we know.
        """
        ...

    def storage(self, slot: str) -> Storage:
        """Mount read only.

        Raises:
            SourceLost: nothing there, or it went away.
            Unsupported: no file system that we take, or one that cannot be mounted safely.
        """
        ...
