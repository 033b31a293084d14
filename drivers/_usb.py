"""What hangs on the USB ports, read from sysfs.

sysfs is the truth: events only say when to look again. A port is named by its controller and the
ports of the hubs in between, `pci-0000:00:14.0-usbv2-0:1.2`, in the manner of udev's ID_PATH: bus
numbers change with every start, this does not. The two halves of a USB 3 socket are two ports.

Every text that a device tells is hostile: it is cut and kept printable.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SECTOR_BYTES = 512
LONGEST_TEXT = 126  # letters of a USB string descriptor
HUB = "09"
STORAGE = "08"
MODEM = "02"
SERIAL = ("02", "02")  # of the modem class only serial lines: it has network adapters too
RNDIS = "ff"  # and one that calls itself a serial line
# Storage, the far half of a serial line, pictures (nothing of the kernel takes them), vendor's own.
HARMLESS = frozenset({STORAGE, "0a", "06", "ff"})
CLASSES = {
    "01": "sound",
    MODEM: "a modem or network adapter",
    "03": "a keyboard or mouse",
    "07": "a printer",
    HUB: "a hub",
    "0b": "a smart card reader",
    "0e": "video",
    "e0": "a radio or network adapter",
}

_PEER = re.compile(r"(?:usb)?(\d+)(?:-(\d+(?:\.\d+)*))?-port(\d+)")
_DEVICE = re.compile(r"(\d+)-(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class Interface:
    """One function of a device: its class, subclass and protocol, two hex digits each."""

    kind: str
    subclass: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Block:
    """A disk or one of its partitions."""

    name: str  # of the device file
    number: tuple[int, int]  # major, minor
    size_bytes: int  # 0: no medium
    parts: "tuple[Block, ...]" = ()


@dataclass(frozen=True, slots=True)
class Device:
    """A device on a port."""

    port: str
    peer: str  # the other half of a USB 3 socket, where the kernel knows it
    plug: str  # another one after every pull, the same over our restarts
    usb_id: str
    serial: str
    product: str
    kind: str  # class of the whole device; "00": each interface has its own
    interfaces: tuple[Interface, ...]
    ttys: tuple[str, ...]  # names of device files
    disks: tuple[Block, ...]

    @property
    def has_storage(self) -> bool:
        """Whether it is mass storage, with a medium or not, now or in a moment."""
        return any(item.kind == STORAGE for item in self.interfaces)

    @property
    def refusal(self) -> str:
        """Why it is no camera, whatever else it offers; empty: it may be one."""
        kinds = [self.kind] if self.kind == HUB else []
        kinds += [item.kind for item in self.interfaces if not _is_harmless(item)]
        named = dict.fromkeys(CLASSES.get(kind, f"class {kind}") for kind in kinds)
        return f"device {self.usb_id} is {' and '.join(named)}" if named else ""


def scan(sys_root: Path = SYS) -> Mapping[str, Device]:
    """Give every device by its port; one that goes meanwhile is left out."""
    boot = _text(BOOT_ID)
    found = {}
    folder = sys_root / "bus" / "usb" / "devices"
    for path in _entries(folder):
        if (match := _DEVICE.fullmatch(path.name)) and (device := _device(path, match, boot)):
            found[device.port] = device
    return found


def _is_harmless(interface: Interface) -> bool:
    if interface.kind == MODEM:
        return (interface.kind, interface.subclass) == SERIAL and interface.protocol != RNDIS
    return interface.kind in HARMLESS


def _device(path: Path, match: "re.Match[str]", boot: str) -> Device | None:
    real = path.resolve()
    with contextlib.suppress(OSError):
        inode = real.stat().st_ino
        vendor, product = _text(real / "idVendor"), _text(real / "idProduct")
        interfaces = _interfaces(real)
        if not vendor or not product:
            return None
        return Device(
            port=_port(real, *match.groups()),
            peer=_peer(real),
            # The kernel counts device numbers up to 127, but gives no inode twice.
            plug=f"{boot[:8]}-{match[0]}-{_text(real / 'devnum')}-{inode}",
            usb_id=f"{vendor}:{product}",
            serial=_text(real / "serial"),
            product=_text(real / "product"),
            kind=_text(real / "bDeviceClass"),
            interfaces=tuple(_interface(item) for item in interfaces),
            ttys=tuple(name for item in interfaces for name in _ttys(item)),
            disks=tuple(disk for item in interfaces for disk in _disks(item)),
        )
    return None


def _port(hub: Path, bus: str, chain: str) -> str:
    """Name a port by a folder of its bus, the bus's number, and the ports of the hubs up to it."""
    root_hub = next((above for above in hub.parents if above.name == f"usb{bus}"), hub.parent)
    controller = root_hub.parent
    version = _text(root_hub / "version")[:1] or "2"
    subsystem = (controller / "subsystem").resolve().name
    return f"{subsystem}-{controller.name}-usbv{version}-0:{chain}"


def _peer(real: Path) -> str:
    """Follow `port/peer` to `…/usb2/2-1/2-1:1.0/2-1-port4`, or `usb2-port4` of a root hub."""
    there = (real / "port" / "peer").resolve()
    if match := _PEER.fullmatch(there.name):
        bus, hubs, port = match.groups()
        return _port(there, bus, f"{hubs}.{port}" if hubs else port)
    return ""


def _interfaces(device: Path) -> list[Path]:
    """Give the folders of its functions; one that has no attributes yet is not there yet."""
    found = [path for path in _entries(device) if path.name.startswith(f"{device.name}:")]
    return [path for path in found if _text(path / "bInterfaceClass")]


def _interface(path: Path) -> Interface:
    return Interface(
        _text(path / "bInterfaceClass"),
        _text(path / "bInterfaceSubClass"),
        _text(path / "bInterfaceProtocol"),
    )


def _ttys(interface: Path) -> Iterator[str]:
    """Find `tty/ttyACM0` of the modem class and `ttyUSB0/tty/ttyUSB0` of serial converters."""
    for pattern in ("tty/*", "*/tty/*"):
        yield from sorted(path.name for path in interface.glob(pattern))


def _disks(interface: Path) -> Iterator[Block]:
    for path in sorted(interface.glob("host*/target*/*/block/*")):
        parts = [item for item in _entries(path) if (item / "partition").exists()]
        if block := _block(path, tuple(filter(None, map(_block, parts)))):
            yield block


def _block(path: Path, parts: tuple[Block, ...] = ()) -> Block | None:
    number, size = _text(path / "dev").split(":"), _text(path / "size")
    if len(number) != 2 or not all(map(str.isdecimal, (*number, size))):  # noqa: PLR2004 - a pair
        return None
    return Block(path.name, (int(number[0]), int(number[1])), int(size) * SECTOR_BYTES, parts)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()[: 4 * LONGEST_TEXT].decode(errors="replace")
    except OSError:
        return ""
    return "".join(letter for letter in raw.strip() if letter.isprintable())[:LONGEST_TEXT]
