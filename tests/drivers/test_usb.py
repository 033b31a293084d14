"""What hangs on the USB ports, read from a sysfs tree; and the kernel's own events."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import _superblock, _uevents, _usb
from firmware_sim.usb_tree import Disk, UsbThing, UsbTree

VENDOR = UsbThing("4255:0001", ("ff0000",), ttys=("ttyUSB0",), serial="BC0001", product="Cam")
PORT = "pci-0000:00:14.0-usbv2-0:1.2"


@pytest.fixture
def tree(tmp_path):
    return UsbTree(tmp_path / "sys")


def test_a_port_is_named_by_its_controller_and_its_hubs(tree) -> None:
    tree.plug("1-1", UsbThing("1a40:0201", ("090000",), kind="09"))
    tree.plug("1-1.2", VENDOR)
    tree.plug("2-1", UsbThing("1a40:0203", ("090000",), kind="09"))
    tree.plug("2-1.2", VENDOR)
    found = _usb.scan(tree.root)
    assert set(found) == {
        "pci-0000:00:14.0-usbv2-0:1",
        PORT,
        "pci-0000:00:14.0-usbv3-0:1",
        "pci-0000:00:14.0-usbv3-0:1.2",
    }
    device = found[PORT]
    assert (device.usb_id, device.serial, device.product) == ("4255:0001", "BC0001", "Cam")
    assert device.ttys == ("ttyUSB0",)
    assert device.refusal == ""
    assert found["pci-0000:00:14.0-usbv2-0:1"].refusal == "device 1a40:0201 is a hub"


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("1-1.2", "pci-0000:00:14.0-usbv3-0:1.2"),
        ("2-1.2", "pci-0000:00:14.0-usbv2-0:1.2"),
        ("1-4", "pci-0000:00:14.0-usbv3-0:4"),
        ("1-4.1.3", "pci-0000:00:14.0-usbv3-0:4.1.3"),
    ],
)
def test_the_other_half_of_a_socket_is_known_by_the_kernel(tree, name, peer) -> None:
    folder = tree.plug(name, VENDOR)
    assert _usb.scan(tree.root)[_port_of(name)].peer == peer
    (folder / "port").unlink()
    assert _usb.scan(tree.root)[_port_of(name)].peer == "", "not every kernel does"


def _port_of(name: str) -> str:
    bus, _, chain = name.partition("-")
    return f"pci-0000:00:14.0-usbv{int(bus) + 1}-0:{chain}"


def test_serial_lines_and_disks_stand_below_their_interfaces(tree) -> None:
    parts = (Disk("sdb1", (8, 17), 2000), Disk("sdb2", (8, 18), 4000))
    disks = (Disk("sdb", (8, 16), 8000, parts), Disk("sdc", (8, 32), 0))
    tree.plug("1-3", UsbThing("4255:0003", ("020201", "0a0000", "080650"), ("ttyACM3",), disks))
    device = _usb.scan(tree.root)["pci-0000:00:14.0-usbv2-0:3"]
    assert device.ttys == ("ttyACM3",)
    assert [disk.name for disk in device.disks] == ["sdb", "sdc"]
    assert [part.name for part in device.disks[0].parts] == ["sdb1", "sdb2"]
    assert device.disks[0].parts[1].number == (8, 18)
    assert device.disks[0].parts[1].size_bytes == 4000 * 512
    assert device.disks[1].size_bytes == 0
    assert device.has_storage
    assert device.refusal == ""


@pytest.mark.parametrize(
    ("interfaces", "kind", "why"),
    [
        (("030101",), "00", "is a keyboard or mouse"),
        (("080650", "030101"), "00", "is a keyboard or mouse"),
        (("080650", "0e0100", "030000"), "00", "is video and a keyboard or mouse"),
        (("020600", "0a0000"), "00", "is a modem or network adapter"),
        (("0202ff", "0a0000"), "00", "is a modem or network adapter"),
        (("020d00",), "00", "is a modem or network adapter"),
        (("e00103",), "00", "is a radio or network adapter"),
        (("090000",), "09", "is a hub"),
        ((), "09", "is a hub"),
        (("fe0101",), "00", "is class fe"),
        (("",), "00", ""),  # the kernel is still about to tell
        (("080650", "060101", "ff0000"), "00", ""),
        (("020201", "0a0000"), "02", ""),
    ],
)
def test_only_storage_and_serial_lines_are_taken(tree, interfaces, kind, why) -> None:
    tree.plug("1-1", UsbThing("dead:beef", interfaces, kind=kind))
    refusal = _usb.scan(tree.root)["pci-0000:00:14.0-usbv2-0:1"].refusal
    assert refusal == (f"device dead:beef {why}" if why else "")


def test_every_plug_is_told_from_the_next(tree) -> None:
    plugs = set()
    for _ in range(130):  # device numbers begin anew at 127
        tree.plug("1-1", VENDOR)
        plugs.add(_usb.scan(tree.root)["pci-0000:00:14.0-usbv2-0:1"].plug)
        tree.pull("1-1")
    assert len(plugs) >= 127
    tree.plug("1-1", VENDOR)
    first, second = (_usb.scan(tree.root)["pci-0000:00:14.0-usbv2-0:1"] for _ in range(2))
    assert first == second


def test_what_a_device_says_is_cut_and_printable(tree) -> None:
    serial = b"\x1b[2J\x00AB\xff\xfe\n\xe2\x80\xaeCD" + b"x" * 10_000
    tree.plug("1-1", UsbThing("4255:0001", ("080650",), serial=serial))
    told = _usb.scan(tree.root)["pci-0000:00:14.0-usbv2-0:1"].serial
    assert told.isprintable()
    assert told.startswith("[2JAB")
    assert len(told) == 126


def test_a_device_that_goes_while_it_is_read_is_left_out(tree) -> None:
    folder = tree.plug("1-1", VENDOR)
    (folder / "idVendor").unlink()
    assert _usb.scan(tree.root) == {}
    tree.pull("1-1")
    assert _usb.scan(tree.root) == {}


def test_a_disk_half_there_is_left_out(tree) -> None:
    disk = Disk("sdb", (8, 16), 100)
    folder = tree.plug("1-1", UsbThing("4255:0001", ("080650",), disks=(disk,)))
    block = next(folder.rglob("sdb"))
    for name in ("dev", "size"):
        kept = (block / name).read_text()
        (block / name).write_text("")
        assert _usb.scan(tree.root)["pci-0000:00:14.0-usbv2-0:1"].disks == ()
        (block / name).write_text(kept)


def test_a_machine_without_usb_has_nothing(tmp_path) -> None:
    assert _usb.scan(tmp_path / "sys") == {}
    assert isinstance(_usb.scan(), dict), "nor does this one break it"


# Events.


def test_an_event_is_read() -> None:
    raw = b"add@/devices/x/block/sdb\0ACTION=add\0SUBSYSTEM=block\0EMPTY=\0SEQNUM=7\0"
    event = _uevents.parse(raw)
    assert event == {"ACTION": "add", "SUBSYSTEM": "block", "EMPTY": "", "SEQNUM": "7"}


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(raw) -> None:
    assert isinstance(_uevents.parse(raw), dict)


@pytest.fixture
def uevents():
    opened = _uevents.Uevents()
    try:
        opened.open()
    except OSError as error:
        pytest.skip(f"no kernel events here: {error}")
    yield opened
    opened.close()
    opened.close()


needs_loop = pytest.mark.skipif(
    not os.access("/sys/block/loop0/uevent", os.W_OK),
    reason="synthetic kernel events need root, a loop device and /sys to be writable",
)


def fire(words: str) -> None:
    Path("/sys/block/loop0/uevent").write_text(words)


@needs_loop
def test_the_kernel_tells_of_a_plug(uevents) -> None:
    fire("add 3b1e2c7e-0000-4000-8000-000000000001 SLOT=3 ID=BC0001")
    (event,) = [item for item in uevents.news().events if item.get("SYNTH_ARG_ID") == "BC0001"]
    assert (event["ACTION"], event["SUBSYSTEM"], event["SYNTH_ARG_SLOT"]) == ("add", "block", "3")
    assert uevents.news() == _uevents.News()


@needs_loop
def test_lost_events_are_told() -> None:
    uevents = _uevents.Uevents(buffer_bytes=2048)
    uevents.open()
    try:
        for _ in range(200):
            fire("change")
        news = uevents.news()
        assert news.has_gaps
        assert len(news.events) < 200
        fire("change")
        assert not uevents.news().has_gaps, "and from then on it goes on"
    finally:
        uevents.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="sending events needs root")
def test_events_of_others_than_the_kernel_are_passed_over(uevents) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as forger:
        forger.bind((0, 0))
        try:
            forger.sendto(b"add@/x\0ACTION=add\0SUBSYSTEM=usb\0FORGED=1\0", (0, 1))
        except OSError as error:
            pytest.skip(f"this kernel lets nobody send: {error}")
    assert not [event for event in uevents.news().events if "FORGED" in event]


def test_who_cannot_listen_has_gaps() -> None:
    assert _uevents.Uevents().news().has_gaps


# File systems by their first bytes.


def boot_sector(at: int, text: bytes, label_at: int = 0, label: bytes = b"") -> bytes:
    raw = bytearray(4096)
    raw[510:512] = b"\x55\xaa"
    raw[at : at + len(text)] = text
    raw[label_at : label_at + len(label)] = label
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "kind", "label"),
    [
        (boot_sector(3, b"EXFAT   "), "exfat", ""),
        (boot_sector(82, b"FAT32   ", 71, b"BODYCAM    "), "vfat", "BODYCAM"),
        (boot_sector(82, b"FAT32   ", 71, b"NO NAME    "), "vfat", ""),
        (boot_sector(54, b"FAT16   ", 43, b"CAM-7\x00\x1b    "), "vfat", "CAM-7"),
        (boot_sector(54, b"FAT12   ", 43, b"\xff\x1b[2J      "), "vfat", "\ufffd[2J"),
    ],
    ids=["exfat", "fat32", "fat32 unnamed", "fat16", "fat12 with odd letters"],
)
def test_a_file_system_is_told_by_its_first_bytes(raw, kind, label) -> None:
    volume = _superblock.read(raw)
    assert (volume.kind, volume.label) == (kind, label)


@pytest.mark.parametrize(
    "raw",
    [
        bytes(4096),
        b"",
        b"\x55" * 512,
        boot_sector(3, b"NTFS    "),
        boot_sector(0, b"LUKS\xba\xbe"),
        boot_sector(82, b"FAT32   ")[:510] + bytes(3586),
    ],
    ids=["empty", "cut", "short", "ntfs", "luks", "no mark"],
)
def test_no_other_is_known(raw) -> None:
    assert _superblock.read(raw) is None


@given(st.sampled_from([3, 43, 54, 71, 82, 1080, 1144]), st.binary(max_size=40))
def test_no_medium_breaks_it(at, raw) -> None:
    volume = _superblock.read(boot_sector(at, raw))
    assert volume is None or volume.label.isprintable()


@given(st.sampled_from([11, 22, 36, 44, 88, 96, 108]), st.binary(max_size=12), st.binary())
def test_no_root_folder_breaks_it(at, raw, root) -> None:
    for kind in (b"EXFAT   ", b""):
        first = bytearray(boot_sector(3, kind) if kind else boot_sector(82, b"FAT32   "))
        first[at : at + len(raw)] = raw
        assert 0 <= _superblock.read(bytes(first)).root_at < 1 << 62
    assert _superblock.label_in(root).isprintable()


@pytest.mark.parametrize(
    ("root", "label"),
    [
        (b"", ""),
        (bytes(64), ""),
        (b"DCIM       \x10" + bytes(20) + b"BODYCAM7   \x08" + bytes(20), "BODYCAM7"),
        (b"\xe5ODYCAM7   \x08" + bytes(20), ""),
        (b"Ab.c.d.e.f.\x0f" + bytes(20) + b"CAM        \x08" + bytes(20), "CAM"),
        (b"\x83\x05" + "Cam-\u202e".encode("utf-16-le") + bytes(20), "Cam-"),
        (b"\x83\xff" + "abcdefghijklmno".encode("utf-16-le"), "abcdefghijk"),
    ],
    ids=["cut", "empty", "fat", "fat removed", "fat behind a long name", "exfat", "exfat too long"],
)
def test_the_label_stands_in_the_root_folder(root, label) -> None:
    assert _superblock.label_in(root) == label


@pytest.mark.parametrize(
    ("words", "kind", "mebibytes"),
    [
        (("mkfs.fat", "-F", "12", "-n"), "vfat", 4),
        (("mkfs.fat", "-F", "16", "-n"), "vfat", 32),
        (("mkfs.fat", "-F", "32", "-n"), "vfat", 80),
        (("mkfs.exfat", "-L"), "exfat", 64),
    ],
    ids=["fat12", "fat16", "fat32", "exfat"],
)
def test_real_file_systems_are_told(tmp_path, words, kind, mebibytes) -> None:
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    program = shutil.which(words[0], path=path)
    if program is None:
        pytest.skip(f"{words[0]} is not installed (dosfstools, exfatprogs)")
    image = tmp_path / "card.img"
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    subprocess.run([program, *words[1:], "BODYCAM7", image], check=True, capture_output=True)
    with image.open("rb") as file:
        volume = _superblock.read(file.read(_superblock.FIRST_BYTES))
        file.seek(volume.root_at)
        assert (volume.kind, _superblock.label_in(file.read(1 << 16))) == (kind, "BODYCAM7")
