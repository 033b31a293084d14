"""A dock of USB ports: a slot is a port, whatever name the kernel gives to what hangs there.

What hangs there is read from sysfs; the kernel's events only say when to look again, and once in a
while it is looked without. Storage is mounted by the privileged part (`_mount_service.py`), serial
lines are opened here. What is or has anything but storage and a serial line (keyboard, network
adapter, hub) is no camera: it is neither spoken to nor mounted.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.config import NAME, Doc, Length, Pattern, Range
from agent.core.dock import CameraLink, Seen
from agent.core.errors import AgentError, ConfigError, SourceLost, Unsupported
from drivers import _mounting, _usb
from drivers._uevents import Uevents

LOOK_EVERY_NS = 5 * NS_PER_S  # without an event
LOOK_DEAF_NS = NS_PER_S // 2  # where no events are to be had
SUBSYSTEMS = frozenset({"usb", "block", "tty"})
EARLY_NS = NS_PER_S  # the kernel needs as long until a serial line has its driver
MEDIUM_NS = 20 * NS_PER_S  # and so long for a disk to be ready, if it is slow
LEAVING_NS = 10 * NS_PER_S  # a camera that was told to go is off the bus by then, or stays
POLL_S = 0.1

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a camera."""

    name: Annotated[str, Doc("Name of the slot, as it stands at it"), NAME]
    ports: Annotated[
        tuple[Annotated[str, Pattern(r"\S{1,200}", "as in pci-0000:00:14.0-usbv2-0:1.2")], ...],
        Doc("Its USB ports; a USB 3 socket has two. `outpost dock learn` finds them"),
        Length(1, 4),
    ]


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a dock of USB ports."""

    slots: Annotated[tuple[Slot, ...], Doc("In the order they hang"), Length(1, 64)]
    serial_from: Annotated[
        Literal["usb", "label", "none"],
        Doc(
            "What of the storage is the camera's serial number: that of USB, or the volume's label"
        ),
    ] = "usb"
    mount_socket: Annotated[Path, Doc("Of the privileged part")] = _mounting.SOCKET
    sys_root: Annotated[Path, Doc("Where the kernel shows its devices")] = _usb.SYS
    dev_root: Annotated[Path, Doc("Where the device files are")] = Path("/dev")
    settle_s: Annotated[
        float, Doc("How long a serial line or a medium is waited for at once"), Range(0, 30)
    ] = 4.0

    def __post_init__(self) -> None:
        names = [slot.name for slot in self.slots]
        ports = [port for slot in self.slots for port in slot.ports]
        for what, found in (("name", names), ("ports", ports)):
            if twice := sorted({item for item in found if found.count(item) > 1}):
                raise ConfigError(f"slots: {what}: {twice[0]!r} stands twice; allowed: once")


def build(config: Config, clock: Clock, open_link: Callable[[str], CameraLink]) -> "UsbDock":
    """Give the dock; nothing is opened yet."""
    return UsbDock(config, clock, open_link)


class UsbDock:
    """See `agent.core.dock.Dock`."""

    def __init__(
        self, config: Config, clock: Clock, open_link: Callable[[str], CameraLink]
    ) -> None:
        self.slots = tuple(slot.name for slot in config.slots)
        self._config = config
        self._clock = clock
        self._open_link = open_link
        self._ports = {slot.name: slot.ports for slot in config.slots}
        self._lock = threading.Lock()
        self._has_listened = False
        self._uevents: Uevents | None = None  # None: not to be had
        self._looked_ns: int | None = None
        self._devices: Mapping[str, _usb.Device] = {}
        self._first_seen_ns: dict[str, int] = {}  # by plug
        self._mounted: dict[str, str] = {}  # the plug whose storage was mounted last, by slot
        self._ejected: dict[str, tuple[str, int]] = {}  # the plug that was told to go, and when

    def seen(self, slot: str) -> Seen | None:
        """See `Dock.seen`."""
        found = self._device(slot)
        if found is None or self._is_leaving(slot, found):
            return None
        seen = _seen(found)
        if not (seen.has_link or seen.has_storage or found.refusal):
            return None if self._age_ns(found) < EARLY_NS else seen
        return seen

    def link(self, slot: str) -> CameraLink:
        """See `Dock.link`."""
        found = self._camera(slot)
        if not found.ttys:
            raise Unsupported(f"slot {slot}: device {found.usb_id} has no serial line")
        path = self._config.dev_root / found.ttys[0]
        if not self._within(lambda: os.access(path, os.R_OK | os.W_OK)):
            raise SourceLost(f"slot {slot}: {path} may not be opened; allowed by the udev rules?")
        return self._open_link(str(path))

    def storage(self, slot: str) -> "UsbStorage":
        """See `Dock.storage`; waits for the medium."""
        found = self._camera(slot)
        if not found.has_storage:
            raise Unsupported(f"slot {slot}: device {found.usb_id} has no storage")
        if not self._within(lambda: self._has_medium(slot, found.plug)):
            why = f"slot {slot}: device {found.usb_id} has no medium"
            raise SourceLost(f"{why} yet") if self._age_ns(found) < MEDIUM_NS else Unsupported(why)
        answer = _mounting.ask(self._config.mount_socket, "mount", slot)
        for left_out in answer.get("left_out", ()):
            _log.warning("part of a medium left out", slot=slot, part=left_out)
        self._mounted[slot] = found.plug
        texts = {"usb": "usb_serial", "label": "label"}
        serial = str(answer.get(texts.get(self._config.serial_from, ""), ""))
        return UsbStorage(self, slot, found.plug, answer, serial)

    def ask(self, word: str, slot: str, plug: str) -> None:
        """Have the privileged part do something with what hangs in a slot.

        Raises:
            SourceLost: it is not that plug any more.
            AgentError: see `_mounting.ask`.
        """
        found = self._device(slot, anew=True)
        if found is None or found.plug != plug:
            raise SourceLost(f"slot {slot}: the camera was pulled")
        _mounting.ask(self._config.mount_socket, word, slot)

    def let_go(self, slot: str, plug: str, *, eject: bool) -> None:
        """Unmount, and tell the camera, if asked to and if it still hangs there."""
        if self._mounted.get(slot) != plug:
            return  # mounting the next one has unmounted this one
        del self._mounted[slot]
        found = self._device(slot, anew=True)
        is_there = found is not None and found.plug == plug
        word = "eject" if eject and is_there else "umount"
        if word == "eject":
            self._ejected[slot] = (plug, self._clock.mono_ns())
        try:
            _mounting.ask(self._config.mount_socket, word, slot)
        except AgentError as error:
            _log.warning("not unmounted", slot=slot, reason=str(error))

    def close(self) -> None:
        """Stop listening to the kernel; any number of times. Mounts stay as they are."""
        with self._lock:
            if self._uevents is not None:
                self._uevents.close()

    def _age_ns(self, device: _usb.Device) -> int:
        """How long it has hung there, as far as we have seen."""
        now_ns = self._clock.mono_ns()
        return now_ns - self._first_seen_ns.get(device.plug, now_ns)

    def _is_leaving(self, slot: str, found: _usb.Device) -> bool:
        """Whether it was told that its storage is let go of, and is not off the bus yet."""
        plug, since_ns = self._ejected.get(slot, ("", 0))
        return plug == found.plug and self._clock.mono_ns() - since_ns < LEAVING_NS

    def _camera(self, slot: str) -> _usb.Device:
        found = self._device(slot, anew=True)
        if found is None:
            raise SourceLost(f"slot {slot}: nothing hangs there")
        if found.refusal:
            raise Unsupported(f"slot {slot}: {found.refusal}")
        return found

    def _has_medium(self, slot: str, plug: str) -> bool:
        found = self._device(slot, anew=True)
        if found is None or found.plug != plug:
            raise SourceLost(f"slot {slot}: the camera was pulled")
        return any(disk.size_bytes for disk in found.disks)

    def _within(self, is_there: Callable[[], bool]) -> bool:
        """Wait for it as long as a device may take to settle."""
        never = threading.Event()
        until_ns = self._clock.mono_ns() + round(self._config.settle_s * NS_PER_S)
        while not is_there():
            if self._clock.mono_ns() >= until_ns:
                return False
            self._clock.wait(never, POLL_S)
        return True

    def _device(self, slot: str, *, anew: bool = False) -> _usb.Device | None:
        with self._lock:
            if anew or self._is_stale():
                self._look()
            found = [self._devices[port] for port in self._ports[slot] if port in self._devices]
        # Of a hub with both halves of USB 3 in one socket each shows: what refuses wins.
        return max(found, key=lambda device: bool(device.refusal), default=None)

    def _is_stale(self) -> bool:
        if not self._has_listened:
            self._listen()
        news = self._uevents.news() if self._uevents is not None else None
        every_ns = LOOK_EVERY_NS if news is not None else LOOK_DEAF_NS
        if self._looked_ns is None or self._clock.mono_ns() - self._looked_ns >= every_ns:
            return True
        if news is None:
            return False
        has_some = any(event.get("SUBSYSTEM") in SUBSYSTEMS for event in news.events)
        return news.has_gaps or has_some

    def _listen(self) -> None:
        self._has_listened = True
        listener = Uevents()
        try:
            listener.open()
        except OSError as error:  # then it is looked more often: slower, no less true
            _log.warning("no kernel events", reason=str(error))
        else:
            self._uevents = listener

    def _look(self) -> None:
        self._looked_ns = self._clock.mono_ns()
        ports = {port for known in self._ports.values() for port in known}
        found = _usb.scan(self._config.sys_root)
        self._devices = {port: device for port, device in found.items() if port in ports}
        self._first_seen_ns = {
            device.plug: self._first_seen_ns.get(device.plug, self._looked_ns)
            for device in self._devices.values()
        }


class UsbStorage:
    """See `agent.core.dock.Storage`."""

    def __init__(
        self, dock: UsbDock, slot: str, plug: str, answer: Mapping[str, Any], serial: str
    ) -> None:
        self.root = Path(answer["root"])
        self.serial = serial
        self.capacity_bytes = int(answer.get("capacity_bytes", 0))
        self._dock = dock
        self._slot = slot
        self._plug = plug
        self._is_open = True

    @contextmanager
    def writable(self) -> Iterator[None]:
        """See `Storage.writable`."""
        if not self._is_open:
            raise SourceLost(f"slot {self._slot}: let go already")
        self._dock.ask("rw", self._slot, self._plug)
        try:
            yield
        except BaseException:
            with suppress(AgentError):  # what went wrong inside says more
                self._dock.ask("ro", self._slot, self._plug)
            raise
        self._dock.ask("ro", self._slot, self._plug)

    def close(self, *, eject: bool = True) -> None:
        """See `Storage.close`."""
        if self._is_open:
            self._is_open = False
            self._dock.let_go(self._slot, self._plug, eject=eject)


def _seen(device: _usb.Device) -> Seen:
    if device.refusal:
        return Seen(device.plug, has_link=False, has_storage=False, usb_id=device.usb_id)
    has_link = bool(device.ttys)
    has_medium = any(disk.size_bytes for disk in device.disks)
    # A disk comes a second or two after its device: what can be nothing else is storage by then.
    has_storage = has_medium or (device.has_storage and not has_link)
    return Seen(device.plug, has_link, has_storage, device.usb_id)
