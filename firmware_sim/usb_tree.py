"""A sysfs tree as the kernel makes it for USB devices, on plain disk.

Layout and attributes are those of Linux 6.1 on an xHCI controller: devices under their hubs,
interfaces under devices, terminals and disks under interfaces, links in `bus/usb/devices`.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CONTROLLER = "0000:00:14.0"
HUB = ("1d6b", "0002")


@dataclass(frozen=True)
class Disk:
    """A logical unit of mass storage."""

    name: str
    number: tuple[int, int]
    sectors: int  # 0: no medium
    parts: "tuple[Disk, ...]" = ()


@dataclass(frozen=True)
class UsbThing:
    """Something with a USB plug.

    Attributes:
        interfaces: class, subclass and protocol of each, as in `080650`.
        ttys: terminals, `ttyACM0` of the first interface, `ttyUSB0` of a converter.
        disks: of the last interface.
    """

    usb_id: str
    interfaces: tuple[str, ...]
    ttys: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    serial: str | bytes = ""
    product: str = ""
    kind: str = "00"


class UsbTree:
    """The tree; `plug` and `pull` change it as the kernel would.

    Attributes:
        told: called after every change, where the kernel would send its event.
    """

    def __init__(self, root: Path, buses: tuple[str, ...] = ("2.00", "3.00")) -> None:
        self.root = root
        self.told: Callable[[], None] = lambda: None
        self._devnum = 1
        controller = root / "devices" / "pci0000:00" / CONTROLLER
        (root / "bus" / "pci").mkdir(parents=True)
        (root / "bus" / "usb" / "devices").mkdir(parents=True)
        for number, version in enumerate(buses, 1):
            hub = controller / f"usb{number}"
            _write(hub, version=f" {version}", idVendor=HUB[0], idProduct=HUB[1], devnum="1")
            self._link(hub)
        (controller / "subsystem").symlink_to("../../../bus/pci")

    def plug(self, name: str, thing: UsbThing) -> Path:
        """Put something into a port, `1-1.2`; gives its folder."""
        self._devnum = self._devnum % 127 + 1
        folder = self.folder(name)
        vendor, product = thing.usb_id.split(":")
        _write(folder, idVendor=vendor, idProduct=product, devnum=str(self._devnum))
        _write(folder, bDeviceClass=thing.kind, product=thing.product)
        if thing.serial:
            serial = thing.serial.encode() if isinstance(thing.serial, str) else thing.serial
            (folder / "serial").write_bytes(serial + b"\n")
        interfaces = [folder / f"{name}:1.{index}" for index in range(len(thing.interfaces))]
        for path, triple in zip(interfaces, thing.interfaces, strict=True):
            _write(path, bInterfaceClass=triple[:2], bInterfaceSubClass=triple[2:4])
            _write(path, bInterfaceProtocol=triple[4:])
        for tty in thing.ttys:
            between = Path() if tty.startswith("ttyACM") else Path(tty)
            (interfaces[0] / between / "tty" / tty).mkdir(parents=True)
        self._pair(folder)
        self._link(folder)
        self.grow(name, *thing.disks)
        return folder

    def grow(self, name: str, *disks: Disk) -> None:
        """Show the disks of a device's last interface, as the kernel does a second or two later."""
        interfaces = sorted(self.folder(name).glob(f"{name}:*"))
        for lun, disk in enumerate(disks):
            at = interfaces[-1] / "host6" / "target6:0:0" / f"6:0:0:{lun}" / "block"
            _write_disk(at / disk.name, disk)
        self.told()

    def pull(self, name: str) -> None:
        """Take out what hangs in a port, and all below it."""
        for link in (self.root / "bus" / "usb" / "devices").iterdir():
            if link.name == name or link.name.startswith((f"{name}.", f"{name}:")):
                link.unlink()
        shutil.rmtree(self.folder(name))
        self.told()

    def folder(self, name: str) -> Path:
        """Give where a device stands: below its hubs."""
        bus, _, chain = name.partition("-")
        path = self.root / "devices" / "pci0000:00" / CONTROLLER / f"usb{bus}"
        ports = chain.split(".")
        for depth in range(1, len(ports) + 1):
            path /= f"{bus}-{'.'.join(ports[:depth])}"
        return path

    def _pair(self, folder: Path) -> None:
        """Link a device to its port, and that to the other half of the socket."""
        bus, _, chain = folder.name.partition("-")
        hubs, _, port = chain.rpartition(".")
        other = "2" if bus == "1" else "1"
        ports = {}
        for number in (bus, other):
            hub = self.folder(f"{number}-{hubs}" if hubs else f"{number}-0")
            name = f"{number}-{hubs}-port{port}" if hubs else f"usb{number}-port{port}"
            interface = f"{number}-{hubs or 0}:1.0"
            ports[number] = (hub if hubs else hub.parent) / interface / name
            ports[number].mkdir(parents=True, exist_ok=True)
        peer = ports[bus] / "peer"
        if not peer.is_symlink():
            peer.symlink_to(ports[other])
        (folder / "port").symlink_to(ports[bus])

    def _link(self, folder: Path) -> None:
        link = self.root / "bus" / "usb" / "devices" / folder.name
        link.symlink_to(Path("../../..") / folder.relative_to(self.root))


def _write(folder: Path, **attributes: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in attributes.items():
        (folder / name).write_text(f"{value}\n")


def _write_disk(path: Path, disk: Disk) -> None:
    _write(path, dev=f"{disk.number[0]}:{disk.number[1]}", size=str(disk.sectors), ro="0")
    for number, part in enumerate(disk.parts, 1):
        _write_disk(path / part.name, part)
        _write(path / part.name, partition=str(number))
