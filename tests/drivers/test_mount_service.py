"""The privileged part: what it mounts, how, for whom, and what it refuses."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.core.errors import SourceLost, StorageError, Unsupported
from drivers import _mounting, _mounts
from firmware_sim.usb_tree import Disk, UsbThing, UsbTree
from tests.drivers import machine

pytestmark = pytest.mark.skipif(bool(machine.needs_mounting()), reason=machine.needs_mounting())

PORTS = {"1": "pci-0000:00:14.0-usbv2-0:1.1", "2": "pci-0000:00:14.0-usbv2-0:1.2"}
USER = "nobody"


class Box:
    """A box with a dock: its USB tree, its configuration, its socket unit."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.base = folder / "mounts"
        self.tree = UsbTree(folder / "sys")
        self.config = folder / "outpost.toml"
        slots = [
            f'[[dock.hardware.slots]]\nname = "{n}"\nports = ["{p}"]' for n, p in PORTS.items()
        ]
        self.config.write_text("\n".join(slots))
        self.config.chmod(0o640)
        options = ["--config", str(self.config), "--user", USER, "--base", str(self.base)]
        options += ["--sys", str(self.tree.root), "--types", "ext4,vfat", *words]
        self.unit = machine.SocketUnit(folder / "mount.sock", *options)

    def ask(self, word: str, slot: str = "1") -> dict:
        return _mounting.ask(self.unit.path, word, slot)

    def mounted(self) -> list[str]:
        return [str(path.relative_to(self.base)) for path in _mounts.below(self.base)]

    def close(self) -> None:
        self.unit.close()
        for path in _mounts.below(self.base):
            _mounts.detach(path)


@pytest.fixture
def box(tmp_path):
    started = Box(tmp_path)
    yield started
    started.close()


@pytest.fixture
def card(tmp_path):
    """A card with a film and a link on it, in a reader without a slot yet."""
    files = tmp_path / "files"
    (files / "DCIM").mkdir(parents=True)
    (files / "DCIM" / "0001.MP4").write_bytes(b"film")
    (files / "DCIM" / "link").symlink_to("/etc/passwd")
    with machine.loop(machine.ext4(tmp_path / "card.img", files)) as device:
        yield device


def flags_at(path) -> frozenset:
    found = _mounts.at(Path(path))
    return found.flags - {"ro", "rw"} | {"ro" if found.is_read_only else "rw"}


def test_a_card_is_mounted_so_that_nothing_on_it_can_act(box, card) -> None:
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    told = box.ask("mount")
    root = Path(told["root"])
    assert root == box.base / "1"
    assert (told["usb_serial"], told["label"]) == ("BC0001", "BODYCAM")
    assert told["capacity_bytes"] == machine.SECTORS * 512
    assert told["left_out"] == []
    assert flags_at(root) >= {"ro", "nosuid", "nodev", "noexec", "nosymfollow"}
    assert (root / "DCIM" / "0001.MP4").read_bytes() == b"film"
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        (root / "DCIM" / "link").read_bytes()
    with pytest.raises(OSError, match="Read-only"):
        (root / "new").touch()
    box.ask("umount")
    assert box.mounted() == []
    assert list(root.iterdir()) == []


def test_writing_is_allowed_for_a_moment_and_nothing_else(box, card) -> None:
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    root = Path(box.ask("mount")["root"])
    box.ask("rw")
    assert flags_at(root) >= {"rw", "nosuid", "nodev", "noexec", "nosymfollow"}
    (root / "DCIM" / "0001.MP4").unlink()
    box.ask("ro")
    assert flags_at(root) >= {"ro", "nosuid", "nodev", "noexec", "nosymfollow"}
    box.ask("umount")
    assert not (Path(box.ask("mount")["root"]) / "DCIM" / "0001.MP4").exists()


AGENT = """
import os, sys
for line in sys.stdin:
    word, path = line.split()
    try:
        print(os.listdir(path) if word == "list" else os.unlink(path), flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


@pytest.mark.parametrize("spaces", ["-m", "-mUr"], ids=["mounts", "mounts and users"])
def test_an_agent_in_a_sandbox_of_its_own_sees_the_same(box, card, spaces) -> None:
    """As systemd gives it one: what is mounted outside comes in, nothing goes out."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed (util-linux)")
    box.base.mkdir()
    subprocess.run(["mount", "--bind", str(box.base), str(box.base)], check=True)
    subprocess.run(["mount", "--make-shared", str(box.base)], check=True)
    words = ["unshare", spaces, "--propagation", "slave", sys.executable, "-c", AGENT]
    agent = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    film = f"{box.base}/1/DCIM/0001.MP4"

    def told(word: str, path: str) -> str:
        agent.stdin.write(f"{word} {path}\n")
        agent.stdin.flush()
        return agent.stdout.readline().strip()

    try:
        if told("list", str(box.base)) == "":
            pytest.skip("namespaces are not allowed here")
        box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
        box.ask("mount")
        assert "DCIM" in told("list", f"{box.base}/1")
        assert told("unlink", film) == "Read-only file system"
        box.ask("rw")
        assert told("unlink", film) == "None"
        box.ask("ro")
        assert told("unlink", f"{box.base}/1/DCIM/link") == "Read-only file system"
        box.ask("umount")
        assert told("list", f"{box.base}/1") == "[]"
    finally:
        agent.communicate(timeout=30)


def test_the_device_itself_cannot_be_written_but_for_that_moment(box, card) -> None:
    locked = Path(f"/sys/block/{card.name}/ro")
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    told = []
    for word in ("mount", "rw", "ro", "umount"):
        box.ask(word)
        told.append(locked.read_text().strip())
    assert told == ["1", "0", "1", "0"]


def test_a_locked_card_stays_mounted_read_only(box, tmp_path) -> None:
    with machine.loop(machine.ext4(tmp_path / "card.img"), "--read-only") as device:
        box.tree.plug("1-1.1", machine.camera(machine.disk(device)))
        root = Path(box.ask("mount")["root"])
        with pytest.raises(StorageError, match="slot 1: the medium cannot be written"):
            box.ask("rw")
        assert "ro" in flags_at(root)
        box.ask("umount")


def test_a_card_that_does_not_become_read_only_again_is_let_go(box, card) -> None:
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    root = Path(box.ask("mount")["root"])
    box.ask("rw")
    with (root / "open").open("w"):
        with pytest.raises(StorageError, match="did not become read only"):
            box.ask("ro")
        assert box.mounted() == []


def test_systemd_itself_hands_it_its_requests(box, card, tmp_path) -> None:
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not installed (systemd)")
    path = tmp_path / "systemd.sock"
    words = ["--accept", "--inetd", "--seqpacket", "--listen", str(path)]
    systemd = subprocess.Popen([program, *words, *box.unit.program], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):  # until it listens
            with contextlib.suppress(SourceLost):
                _mounting.ask(path, "umount", "1")
                break
            time.sleep(0.05)
        box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
        told = [_mounting.ask(path, word, "1") for word in ("mount", "rw", "ro", "eject")]
        assert told[0]["label"] == "BODYCAM"
        assert told[3] == {"ejected": False}
    finally:
        systemd.terminate()
        systemd.wait(timeout=30)


def test_requests_for_one_slot_wait_for_each_other(box, card) -> None:
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    with ThreadPoolExecutor(8) as many:
        told = list(many.map(box.ask, ["mount"] * 8))
    assert {answer["root"] for answer in told} == {str(box.base / "1")}
    assert box.mounted() == ["1"]


def test_slots_do_not_wait_for_each_other(box, card, tmp_path) -> None:
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    with machine.loop(machine.ext4(tmp_path / "b.img")) as other:
        box.tree.plug("1-1.2", machine.camera(machine.disk(other)))
        box.ask("umount", "1")
        with (box.base / ".1.lock").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # a sick card in slot 1
            assert box.ask("mount", "2")["root"] == str(box.base / "2")
        box.ask("umount", "2")


@pytest.mark.parametrize("missing", ["ro", "noexec", "nosymfollow", "nosuid", "nodev"])
def test_a_mount_without_a_flag_is_undone(tmp_path, card, missing) -> None:
    table = tmp_path / "mountinfo"
    number = card.stat().st_rdev
    said = ",".join(sorted({"noexec", "nosymfollow", "nosuid", "nodev"} - {missing}))
    device = f"{os.major(number)}:{os.minor(number)}"
    of_all = "rw" if missing == "ro" else "ro"
    table.write_text(
        f"90 28 {device} / {tmp_path}/mounts/1 rw,{said},relatime shared:1 - ext4 {card} {of_all}\n"
    )
    box = Box(tmp_path, "--mountinfo", str(table))
    with contextlib.closing(box):
        box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
        with pytest.raises(Unsupported, match=f"mounted without {missing}"):
            box.ask("mount")
        assert box.mounted() == []


def test_another_device_than_asked_for_is_undone(tmp_path, card) -> None:
    table = tmp_path / "mountinfo"
    flags = "rw,noexec,nosymfollow,nosuid,nodev"
    table.write_text(f"90 28 8:99 / {tmp_path}/mounts/1 {flags} - ext4 /dev/sdz ro\n")
    box = Box(tmp_path, "--mountinfo", str(table))
    with contextlib.closing(box):
        box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
        with pytest.raises(Unsupported, match="another device was mounted"):
            box.ask("mount")
        assert box.mounted() == []


def test_what_was_pulled_while_it_was_read_is_let_go(box, card, tmp_path) -> None:
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    root = Path(box.ask("mount")["root"])
    with (root / "DCIM" / "0001.MP4").open("rb") as reading:
        box.tree.pull("1-1.1")
        for word in ("rw", "mount"):
            with pytest.raises(SourceLost, match="nothing hangs there"):
                box.ask(word)
        assert box.mounted() == [], "whoever still reads does not hold it"
        assert reading.read() == b"film"


def test_a_mount_left_behind_makes_room_for_the_next_camera(box, card, tmp_path) -> None:
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    box.ask("mount")
    box.tree.pull("1-1.1")
    with machine.loop(machine.ext4(tmp_path / "b.img", label="OTHER")) as other:
        box.tree.plug("1-1.1", machine.camera(machine.disk(other)))
        with pytest.raises(SourceLost, match="what is mounted there was pulled"):
            box.ask("rw")
        told = box.ask("mount")
        assert told["label"] == "OTHER"
        assert box.mounted() == ["1"]
        box.ask("umount")


def test_several_partitions_stand_side_by_side(box, card, tmp_path) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(1 << 20))
    with (
        machine.loop(machine.ext4(tmp_path / "b.img", label="")) as second,
        machine.loop(empty) as third,
    ):
        parts = tuple(machine.disk(device) for device in (card, second, third))
        whole = Disk("sdz", (8, 400), 3 * machine.SECTORS, parts)
        no_medium = Disk("sdy", (8, 384), 0)
        box.tree.plug("1-1.1", machine.camera(whole, no_medium))
        told = box.ask("mount")
        root = Path(told["root"])
        assert sorted(path.name for path in root.iterdir()) == ["1", "2"]
        assert (root / "1" / "DCIM" / "0001.MP4").read_bytes() == b"film"
        assert told["left_out"] == [f"{third.name}: no file system known"]
        box.ask("rw")
        assert all("rw" in flags_at(root / name) for name in ("1", "2"))
        box.ask("ro")
        assert all("ro" in flags_at(root / name) for name in ("1", "2"))
        box.ask("umount")
        assert list(root.iterdir()) == []


def test_one_bad_partition_leaves_none_mounted(box, card, tmp_path) -> None:
    image = machine.ext4(tmp_path / "b.img")
    with image.open("r+b") as file:  # the superblock stays, what it points to goes
        file.seek(4096)
        file.write(b"\xff" * (1 << 20))
    with machine.loop(image) as broken:
        parts = (machine.disk(card), machine.disk(broken))
        whole = Disk("sdz", (8, 400), 2 * machine.SECTORS, parts)
        box.tree.plug("1-1.1", machine.camera(whole))
        with pytest.raises(Unsupported, match=f"{broken.name}: ext4: "):
            box.ask("mount")
        assert box.mounted() == []


def test_the_kernel_never_sees_another_file_system(box, tmp_path) -> None:
    image = tmp_path / "card.img"
    with image.open("wb") as file:
        file.truncate(machine.SECTORS * 512)
        file.write(b"XFSB")
    with machine.loop(image) as device:
        box.tree.plug("1-1.1", machine.camera(machine.disk(device)))
        allowed = f"{device.name}: no file system known; allowed: ext4, vfat"
        with pytest.raises(Unsupported, match=allowed):
            box.ask("mount")


def test_a_file_system_that_is_not_allowed_is_named(tmp_path, card) -> None:
    box = Box(tmp_path, "--types", "vfat,exfat")
    with contextlib.closing(box):
        box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
        with pytest.raises(Unsupported, match=f"{card.name}: ext4; allowed: vfat, exfat"):
            box.ask("mount")


def test_what_the_kernel_refuses_is_said_in_its_words(box, tmp_path) -> None:
    image = tmp_path / "card.img"
    raw = bytearray(1 << 20)
    raw[510:512], raw[82:90] = b"\x55\xaa", b"FAT32   "
    image.write_bytes(raw)
    with machine.loop(image) as device:
        box.tree.plug("1-1.1", machine.camera(machine.disk(device)))
        with pytest.raises(Unsupported, match=r"vfat: \w"):
            box.ask("mount")
        assert box.mounted() == []


def test_an_empty_reader_has_no_medium(box) -> None:
    box.tree.plug("1-1.1", machine.camera(Disk("sdb", (8, 16), 0)))
    with pytest.raises(SourceLost, match="slot 1: no medium"):
        box.ask("mount")


def test_a_keyboard_beside_the_storage_refuses_all_of_it(box, card) -> None:
    both = UsbThing("4255:0002", ("030101", machine.STORAGE), disks=(machine.disk(card),))
    box.tree.plug("1-1.1", both)
    with pytest.raises(Unsupported, match="device 4255:0002 is a keyboard or mouse"):
        box.ask("mount")


def test_only_the_very_device_is_opened(tmp_path, card) -> None:
    dev = tmp_path / "dev"
    dev.mkdir()
    box = Box(tmp_path, "--dev", str(dev))
    with contextlib.closing(box):
        box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
        (dev / card.name).symlink_to(card)
        with pytest.raises(SourceLost, match="Too many levels"):
            box.ask("mount")
        (dev / card.name).unlink()
        os.mknod(dev / card.name, 0o600 | 0o060000, os.makedev(7, 250))
        with pytest.raises(SourceLost, match=f"{card.name}: "):
            box.ask("mount")
        (dev / card.name).unlink()
        (dev / card.name).write_bytes(b"not a device")
        with pytest.raises(SourceLost, match="another device by now"):
            box.ask("mount")


def test_what_hangs_on_another_port_is_out_of_reach(box, card) -> None:
    box.tree.plug("1-1.3", machine.camera(machine.disk(card)))
    for slot in PORTS:
        with pytest.raises(SourceLost, match="nothing hangs there"):
            box.ask("mount", slot)


@pytest.mark.parametrize(
    ("request_line", "why"),
    [
        ("mount 3", "slot '3'; allowed: 1, 2"),
        ("mount ../1", "slot '../1'; allowed"),
        ("mount", "slot ''; allowed"),
        ("mount 1 2", "slot '1 2'; allowed"),
        ("mount /dev/sda1", "slot '/dev/sda1'; allowed"),
        ("format 1", "'format'; allowed: mount, rw, ro, umount, eject"),
        ("", "''; allowed"),
        ("x" * 5000, "allowed"),
        (b"\xff\xfe", "no request"),
    ],
)
def test_nothing_else_can_be_asked_for(box, request_line, why) -> None:
    raw = request_line if isinstance(request_line, bytes) else request_line.encode()
    answer = json.loads(talk(str(box.unit.path), raw))
    assert answer["error"] == "refused"
    assert why in answer["why"]


def talk(address: str, raw: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        connection.send(raw) if raw else connection.shutdown(socket.SHUT_WR)
        return connection.recv(8192)


ASKING = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
    connection.connect("\\0" + sys.argv[1])
    connection.send(b"umount 1")
    print(connection.recv(8192).decode())
"""


@pytest.mark.parametrize(("uid", "is_let"), [(12345, False), (65534, True)])
def test_only_the_agent_may_ask(tmp_path, uid, is_let) -> None:
    name = f"outpost-test-{os.getpid()}"
    box = Box(tmp_path)
    box.unit.close()
    box.unit = machine.SocketUnit(f"\0{name}", *box.unit.program[3:])
    with contextlib.closing(box):
        said = subprocess.run(
            ["/usr/bin/env", "python3", "-c", ASKING, name],
            user=uid,
            group=uid,
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "/usr/bin:/bin"},
        ).stdout
        if is_let:
            assert json.loads(said) == {}
        else:
            assert json.loads(said)["why"] == "user 12345 asks; allowed: nobody"


def test_a_configuration_that_others_may_write_is_none(box, card) -> None:
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    for mode in (0o660, 0o602):
        box.config.chmod(mode)
        with pytest.raises(Unsupported, match="others than root may write it"):
            box.ask("mount")
    box.config.chmod(0o600)
    os.chown(box.config, 65534, 65534)
    with pytest.raises(Unsupported, match="others than root may write it"):
        box.ask("mount")


@pytest.mark.parametrize("text", ["", "role = 'camera'", "[dock]\nhardware = 3", "[[", "\xff"])
def test_a_configuration_without_ports_is_told(box, text) -> None:
    box.config.write_text(text)
    with pytest.raises(Unsupported, match="no slots with ports"):
        box.ask("mount")


def test_letting_go_twice_and_what_is_not_there_is_no_error(box, card) -> None:
    box.ask("umount")
    box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
    box.ask("mount")
    assert box.ask("eject") == {"ejected": False}, "a loop device has nothing to eject"
    assert box.ask("eject") == {"ejected": False}


def test_who_asks_and_gets_no_answer_is_told(tmp_path) -> None:
    with pytest.raises(SourceLost, match=r"is outpost-mount\.socket started"):
        _mounting.ask(tmp_path / "nothing", "mount", "1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(tmp_path / "mute"))
        server.listen()

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(100)
            connection.close()

        mute = threading.Thread(target=hang_up)
        mute.start()
        with pytest.raises(SourceLost, match="no answer that can be read"):
            _mounting.ask(tmp_path / "mute", "mount", "1")
        mute.join()
