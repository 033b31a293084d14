"""A dock of USB ports on a sysfs tree: who is a camera, who is not, what is plugged anew."""

import contextlib
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import app
from agent.core import config
from agent.core.clock import RealClock, SimClock
from agent.core.errors import ConfigError, SourceLost, StorageError, Unsupported
from drivers import _mounts, _uevents
from drivers import usb_dock as driver
from firmware_sim.usb_tree import Disk, UsbThing, UsbTree
from tests.drivers import machine

USB2, USB3 = (f"pci-0000:00:14.0-usbv{version}-0:1.1" for version in (2, 3))
SECOND = "pci-0000:00:14.0-usbv2-0:1.2"
SLOTS = (driver.Slot("1", (USB2, USB3)), driver.Slot("2", (SECOND,)))
SPOKEN_TO = UsbThing("4255:0001", ("020201", "0a0000"), ttys=("ttyACM0",), serial="BC0001")


class Opened:
    """What `open_link` gives: the port that was asked for."""

    def __init__(self, port):
        self.port = port


@pytest.fixture
def tree(tmp_path):
    return UsbTree(tmp_path / "sys")


@pytest.fixture
def dev(tmp_path):
    folder = tmp_path / "dev"
    folder.mkdir()
    return folder


@pytest.fixture
def clock():
    return SimClock()


@pytest.fixture
def dock(tree, dev, clock, tmp_path):
    settings = driver.Config(
        SLOTS, mount_socket=tmp_path / "mount.sock", sys_root=tree.root, dev_root=dev
    )
    made = driver.build(settings, clock, Opened)
    yield made
    made.close()


def look(dock, clock, slot="1"):
    """Look when it is time to look without an event."""
    clock.advance(6)
    return dock.seen(slot)


def test_without_events_it_is_looked_more_often(tree, dev, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_uevents, "NETLINK_KOBJECT_UEVENT", 31)  # no such family here
    clock = SimClock()
    settings = driver.Config(SLOTS, sys_root=tree.root, dev_root=dev)
    with contextlib.closing(driver.build(settings, clock, Opened)) as dock:
        assert dock.seen("1") is None
        tree.plug("1-1.1", SPOKEN_TO)
        assert dock.seen("1") is None
        clock.advance(0.5)
        assert dock.seen("1").has_link


def test_an_empty_port_holds_nothing(dock) -> None:
    assert dock.slots == ("1", "2")
    assert dock.seen("1") is None
    for ask in (dock.link, dock.storage):
        with pytest.raises(SourceLost, match="slot 1: nothing hangs there"):
            ask("1")


def test_a_camera_is_spoken_to_over_its_serial_line(dock, tree, dev, clock) -> None:
    tree.plug("1-1.1", SPOKEN_TO)
    seen = look(dock, clock)
    assert (seen.has_link, seen.has_storage, seen.usb_id) == (True, False, "4255:0001")
    assert dock.seen("2") is None
    (dev / "ttyACM0").touch()
    assert dock.link("1").port == str(dev / "ttyACM0")
    with pytest.raises(Unsupported, match="device 4255:0001 has no storage"):
        dock.storage("1")


def test_a_serial_converter_is_one_too(dock, tree, dev, clock) -> None:
    tree.plug("1-1.2", UsbThing("10c4:ea60", ("ff0000",), ttys=("ttyUSB4",)))
    assert look(dock, clock, "2").has_link
    (dev / "ttyUSB4").touch()
    assert dock.link("2").port.endswith("ttyUSB4")


def test_either_half_of_a_socket_is_the_slot(dock, tree, clock) -> None:
    tree.plug("2-1.1", SPOKEN_TO)
    assert look(dock, clock).has_link
    tree.pull("2-1.1")
    assert look(dock, clock) is None


def test_a_serial_line_that_may_not_be_opened_is_waited_for(dock, tree, clock) -> None:
    tree.plug("1-1.1", SPOKEN_TO)
    began_ns = clock.mono_ns()
    with pytest.raises(SourceLost, match="ttyACM0 may not be opened; allowed by the udev rules"):
        dock.link("1")
    assert clock.mono_ns() - began_ns >= 4_000_000_000, "udevd gives leave a little later"


def test_the_camera_that_comes_back_is_plugged_anew(dock, tree, clock) -> None:
    tree.plug("1-1.1", SPOKEN_TO)
    first = look(dock, clock)
    tree.pull("1-1.1")
    assert look(dock, clock) is None
    tree.plug("1-1.1", machine.camera(Disk("sdb", (8, 16), 1000)))
    second = look(dock, clock)
    assert (second.has_link, second.has_storage) == (False, True)
    assert second.plug != first.plug
    with pytest.raises(Unsupported, match="device 4255:0002 has no serial line"):
        dock.link("1")


def test_the_same_plug_after_a_restart(dock, tree, dev, clock, tmp_path) -> None:
    tree.plug("1-1.1", SPOKEN_TO)
    plug = look(dock, clock).plug
    settings = driver.Config(SLOTS, mount_socket=tmp_path / "s", sys_root=tree.root, dev_root=dev)
    with contextlib.closing(driver.build(settings, clock, Opened)) as again:
        assert again.seen("1").plug == plug


def test_a_pull_too_short_to_be_seen_is_another_plug(dock, tree, clock) -> None:
    plugs = set()
    for _ in range(50):
        tree.plug("1-1.1", SPOKEN_TO)
        plugs.add(look(dock, clock).plug)
        tree.pull("1-1.1")
    assert len(plugs) == 50


def test_storage_counts_before_its_disk_is_there(dock, tree, clock) -> None:
    tree.plug("1-1.1", machine.camera())
    assert look(dock, clock).has_storage
    with pytest.raises(SourceLost, match="device 4255:0002 has no medium yet"):
        dock.storage("1")
    clock.advance(20)
    with pytest.raises(Unsupported, match=r"device 4255:0002 has no medium$"):
        dock.storage("1")


def test_an_empty_reader_beside_a_serial_line_is_not_storage_yet(dock, tree, clock) -> None:
    no_medium = Disk("sdb", (8, 16), 0)
    both = UsbThing("4255:0003", ("020201", "080650"), ("ttyACM0",), (no_medium,))
    tree.plug("1-1.1", both)
    seen = look(dock, clock)
    assert (seen.has_link, seen.has_storage) == (True, False)
    tree.pull("1-1.1")
    with_medium = Disk("sdb", (8, 16), 1000)
    tree.plug("1-1.1", UsbThing("4255:0003", ("020201", "080650"), ("ttyACM0",), (with_medium,)))
    seen = look(dock, clock)
    assert (seen.has_link, seen.has_storage) == (True, True)


@pytest.mark.parametrize(
    ("thing", "what"),
    [
        (UsbThing("046d:c31c", ("030101",)), "is a keyboard or mouse"),
        (UsbThing("0bda:8153", ("020600", "0a0000")), "is a modem or network adapter"),
        (UsbThing("1a40:0201", ("090000",), kind="09"), "is a hub"),
        (
            UsbThing("4255:0002", ("030101", "080650"), ("ttyACM0",), (Disk("sdb", (8, 16), 9),)),
            "is a keyboard or mouse",
        ),
    ],
    ids=["keyboard", "network", "hub", "storage with a keyboard"],
)
def test_what_is_no_camera_is_told_at_once(dock, tree, clock, thing, what) -> None:
    tree.plug("1-1.1", thing)
    seen = dock.seen("1")
    assert (seen.has_link, seen.has_storage, seen.usb_id) == (False, False, thing.usb_id)
    for ask in (dock.link, dock.storage):
        with pytest.raises(Unsupported, match=f"slot 1: device {thing.usb_id} {what}"):
            ask("1")


def test_what_hangs_behind_a_hub_in_a_slot_is_out_of_reach(dock, tree, clock) -> None:
    tree.plug("1-1.1", UsbThing("1a40:0201", ("090000",), kind="09"))
    tree.plug("1-1.1.1", SPOKEN_TO)
    assert not look(dock, clock).has_link
    assert look(dock, clock, "2") is None


def test_a_hub_in_one_half_of_a_socket_refuses_the_other(dock, tree, clock) -> None:
    tree.plug("1-1.1", SPOKEN_TO)
    tree.plug("2-1.1", UsbThing("1a40:0203", ("090000",), kind="09"))
    assert look(dock, clock).usb_id == "1a40:0203"


def test_a_device_without_its_driver_is_given_a_moment(dock, tree, clock) -> None:
    tree.plug("1-1.1", UsbThing("4255:0001", ("ff0000",)))
    assert look(dock, clock) is None
    clock.advance(1)
    seen = dock.seen("1")
    assert (seen.has_link, seen.has_storage, seen.usb_id) == (False, False, "4255:0001")
    with pytest.raises(Unsupported, match="no serial line"):
        dock.link("1")


def test_without_the_privileged_part_nothing_is_mounted(dock, tree, clock) -> None:
    tree.plug("1-1.1", machine.camera(Disk("sdb", (8, 16), 1000)))
    with pytest.raises(SourceLost, match="outpost-mount"):
        dock.storage("1")


THINGS = {
    "camera": SPOKEN_TO,
    "storage": machine.camera(Disk("sdb", (8, 16), 1000)),
    "keyboard": UsbThing("046d:c31c", ("030101",)),
}


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["1-1.1", "2-1.1", "1-1.2", "1-1.9"]),
            st.sampled_from([*THINGS, "nothing"]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_whatever_is_plugged_where_the_slots_tell_it(steps) -> None:
    """After any plugging, looked at in between or not, a slot tells what hangs there."""
    with tempfile.TemporaryDirectory() as folder:
        tree, clock = UsbTree(Path(folder) / "sys"), SimClock()
        config = driver.Config(SLOTS, sys_root=tree.root, dev_root=Path(folder))
        hanging, plugs = {}, {}
        with contextlib.closing(driver.build(config, clock, Opened)) as dock:
            for count, (port, what, is_looked_at) in enumerate(steps):
                if hanging.pop(port, ""):
                    tree.pull(port)
                if what != "nothing":
                    tree.plug(port, THINGS[what])
                    hanging[port] = (what, count)
                if is_looked_at:
                    check(dock, clock, hanging, plugs)
            check(dock, clock, hanging, plugs)


def check(dock, clock, hanging, plugs) -> None:
    clock.advance(6)
    for slot, ports in {"1": ("1-1.1", "2-1.1"), "2": ("1-1.2",)}.items():
        here = [hanging[port] for port in ports if port in hanging]
        seen = dock.seen(slot)
        assert (seen is None) == (not here)
        if len(here) != 1:
            continue
        what, count = here[0]
        assert (seen.has_link, seen.has_storage) == (what == "camera", what == "storage")
        assert plugs.setdefault(seen.plug, (ports, count)) == (ports, count)


# Events of a real kernel.


needs_events = pytest.mark.skipif(
    not os.access("/sys/block/loop0/uevent", os.W_OK),
    reason="synthetic kernel events need root, a loop device and /sys to be writable",
)


@needs_events
def test_an_event_makes_it_look_at_once(dock, tree) -> None:
    assert dock.seen("1") is None
    tree.plug("1-1.1", SPOKEN_TO)
    Path("/sys/block/loop0/uevent").write_text("add")
    assert dock.seen("1").has_link
    tree.pull("1-1.1")
    Path("/sys/block/loop0/uevent").write_text("remove")
    assert dock.seen("1") is None


@needs_events
def test_a_flood_of_events_is_cured_by_looking(dock, tree) -> None:
    assert dock.seen("1") is None
    for _ in range(20_000):  # more than the socket holds
        Path("/sys/block/loop0/uevent").write_text("change")
    tree.plug("1-1.1", SPOKEN_TO)
    assert dock.seen("1").has_link


def test_many_threads_may_ask(dock, tree, clock) -> None:
    tree.plug("1-1.1", SPOKEN_TO)
    seen = []

    def ask() -> None:
        seen.extend(look(dock, clock) for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 200
    assert len({item.plug for item in seen}) == 1


# With real mounts.


@pytest.fixture
def mounting(tree, tmp_path):
    """A dock with its privileged part, and a camera's card."""
    if reason := machine.needs_mounting():
        pytest.skip(reason)
    slots = [f'[[dock.hardware.slots]]\nname = "{s.name}"\nports = {list(s.ports)}' for s in SLOTS]
    file = tmp_path / "outpost.toml"
    file.write_text("\n".join(slots))
    base = tmp_path / "mounts"
    words = ["--config", str(file), "--user", "root", "--base", str(base)]
    unit = machine.SocketUnit(
        tmp_path / "mount.sock", *words, "--sys", str(tree.root), "--types", "ext4"
    )
    files = tmp_path / "files"
    files.mkdir()
    (files / "0001.MP4").write_bytes(b"film")
    with machine.loop(machine.ext4(tmp_path / "card.img", files)) as card:
        yield card
        unit.close()
        for path in _mounts.below(base):
            _mounts.detach(path)


@pytest.fixture
def real(tree, tmp_path, mounting):
    settings = driver.Config(SLOTS, mount_socket=tmp_path / "mount.sock", sys_root=tree.root)
    made = driver.build(settings, RealClock(), Opened)
    yield made
    made.close()


def flags(path) -> frozenset:
    found = _mounts.at(path)
    return found.flags - {"ro"} | {"ro" if found.is_read_only else "rw"} if found else frozenset()


def test_a_camera_as_storage_is_read_wiped_and_let_go(real, tree, mounting) -> None:
    tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
    storage = real.storage("1")
    assert (storage.serial, storage.capacity_bytes) == ("BC0001", machine.SECTORS * 512)
    film = storage.root / "0001.MP4"
    assert film.read_bytes() == b"film"
    with pytest.raises(OSError, match="Read-only"):
        film.unlink()
    with storage.writable():
        assert "noexec" in flags(storage.root)
        film.unlink()
    assert "ro" in flags(storage.root)
    assert not film.exists()
    storage.close()
    storage.close()
    assert flags(storage.root) == frozenset()
    with pytest.raises(SourceLost, match="let go"), storage.writable():
        pytest.fail("it was allowed")


@pytest.mark.parametrize(
    ("serial_from", "serial"), [("usb", "BC0001"), ("label", "BODYCAM"), ("none", "")]
)
def test_what_tells_whose_it_is_is_chosen(tree, tmp_path, mounting, serial_from, serial) -> None:
    settings = driver.Config(
        SLOTS, serial_from=serial_from, mount_socket=tmp_path / "mount.sock", sys_root=tree.root
    )
    with contextlib.closing(driver.build(settings, RealClock(), Opened)) as dock:
        tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
        storage = dock.storage("1")
        assert storage.serial == serial
        storage.close()


def test_a_disk_that_comes_later_is_waited_for(real, tree, mounting) -> None:
    tree.plug("1-1.1", machine.camera())
    later = threading.Timer(0.4, tree.grow, ("1-1.1", machine.disk(mounting)))
    later.start()
    storage = real.storage("1")
    assert (storage.root / "0001.MP4").exists()
    storage.close()
    later.join()


def test_a_camera_pulled_while_it_is_mounted_is_let_go(real, tree, mounting) -> None:
    tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
    storage = real.storage("1")
    tree.pull("1-1.1")
    with pytest.raises(SourceLost, match="pulled"), storage.writable():
        pytest.fail("it was allowed")
    with (storage.root / "0001.MP4").open("rb"):
        storage.close()
    assert flags(storage.root) == frozenset()


def test_a_camera_that_is_told_to_go_is_gone_unless_it_stays(real, tree, mounting) -> None:
    tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
    storage = real.storage("1")
    plug = real.seen("1").plug
    storage.close()
    assert real.seen("1") is None, "it takes a moment until it is off the bus"
    tree.pull("1-1.1")
    tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
    again = real.storage("1")
    assert real.seen("1").plug != plug
    again.close(eject=False)
    assert real.seen("1").has_storage, "one that is not told stays"


def test_a_camera_that_does_not_go_is_seen_again(tree, dev, tmp_path, mounting) -> None:
    clock = SimClock()
    settings = driver.Config(SLOTS, mount_socket=tmp_path / "mount.sock", sys_root=tree.root)
    tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
    with contextlib.closing(driver.build(settings, clock, Opened)) as dock:
        dock.storage("1").close()
        assert dock.seen("1") is None
        clock.advance(10)
        assert dock.seen("1").has_storage


def test_letting_go_late_leaves_the_next_camera_alone(real, tree, mounting) -> None:
    tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
    first = real.storage("1")
    tree.pull("1-1.1")
    tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
    second = real.storage("1")
    first.close()
    assert (second.root / "0001.MP4").exists()
    second.close()


def test_what_goes_wrong_while_writing_still_ends_it(real, tree, mounting) -> None:
    tree.plug("1-1.1", machine.camera(machine.disk(mounting)))
    storage = real.storage("1")
    with pytest.raises(FileNotFoundError), storage.writable():
        (storage.root / "nothing").unlink()
    assert "ro" in flags(storage.root)
    with pytest.raises(StorageError, match="did not become read only"), storage.writable():
        held = (storage.root / "open").open("w")
    held.close()
    assert flags(storage.root) == frozenset()


# Settings.


def test_its_settings_are_checked(tmp_path) -> None:
    assert "usb_dock" in app.INSTRUMENTS
    file = tmp_path / "dock.toml"
    slot = '[[slots]]\nname = "{}"\nports = ["{}"]\n'
    for text, why in (
        (slot.format("1", "a") + slot.format("1", "b"), "name: '1' stands twice"),
        (slot.format("1", "a") + slot.format("2", "a"), "ports: 'a' stands twice"),
        (slot.format("../1", "a"), "slots"),
        (slot.format("1", "two words"), "usbv2"),
        ("slots = []", "slots"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=why):
            config.load(file, driver.Config, lambda _: {})
    file.write_text(slot.format("1", "a"))
    assert config.load(file, driver.Config, lambda _: {}).slots == (driver.Slot("1", ("a",)),)
