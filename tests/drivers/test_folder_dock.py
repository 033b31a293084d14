"""A dock made of folders: what hangs there, what is plugged anew, what may be written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent import app
from agent.core import config
from agent.core.clock import SimClock
from agent.core.errors import ConfigError, SourceLost, StorageError, Unsupported
from drivers import folder_dock as driver
from firmware_sim.dock import FolderSlot


class Opened:
    """What `open_link` gives: the port that was asked for."""

    def __init__(self, port):
        self.port = port


@pytest.fixture
def slot(tmp_path):
    return FolderSlot(tmp_path / "dock", "1")


@pytest.fixture
def dock(tmp_path):
    return driver.build(driver.Config(tmp_path / "dock", ("1", "2")), SimClock(), Opened)


@pytest.fixture
def port(tmp_path):
    path = tmp_path / "port"
    path.touch()
    return path


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "camera"
    (folder / "DCIM").mkdir(parents=True)
    (folder / "DCIM" / "0001.MP4").write_bytes(b"film")
    return folder


VOLUME = {"serial": "BC0001", "label": "BODYCAM", "capacity_bytes": 32_000_000_000}


def test_an_empty_slot_holds_nothing(dock, slot) -> None:
    assert dock.slots == ("1", "2")
    assert dock.seen("1") is None
    assert dock.seen("2") is None, "nor one whose folder is missing"
    for ask in (dock.link, dock.storage):
        with pytest.raises(SourceLost, match="slot 1: nothing hangs there"):
            ask("1")


def test_a_camera_is_spoken_to_and_then_comes_as_storage(dock, slot, port, files) -> None:
    slot.put_link(port, "4255:0001")
    first = dock.seen("1")
    assert (first.has_link, first.has_storage, first.usb_id) == (True, False, "4255:0001")
    assert dock.link("1").port == str(slot.path / "tty")
    with pytest.raises(Unsupported, match="device 4255:0001 has no storage"):
        dock.storage("1")

    slot.take()
    assert dock.seen("1") is None
    slot.put_storage(files, VOLUME)
    second = dock.seen("1")
    assert (second.has_link, second.has_storage) == (False, True)
    assert second.plug != first.plug
    with pytest.raises(Unsupported, match="not spoken to"):
        dock.link("1")

    storage = dock.storage("1")
    assert (storage.serial, storage.capacity_bytes) == ("BC0001", 32_000_000_000)
    assert (storage.root / "DCIM" / "0001.MP4").read_bytes() == b"film"
    storage.close()
    storage.close()
    assert slot.is_let_go
    assert dock.seen("1") is None, "it is about to leave"


def test_what_is_no_camera_is_told_by_its_number(dock, slot) -> None:
    slot.put_device("046d:c31c")
    seen = dock.seen("1")
    assert (seen.has_link, seen.has_storage, seen.usb_id) == (False, False, "046d:c31c")
    with pytest.raises(Unsupported, match="046d:c31c is not spoken to"):
        dock.link("1")
    with pytest.raises(Unsupported, match="046d:c31c has no storage"):
        dock.storage("1")


def test_every_plug_is_another_one_however_short_the_pull(dock, slot, port, files) -> None:
    plugs = []
    for _ in range(200):
        slot.put_link(port)
        plugs.append(dock.seen("1").plug)
        slot.take()
        slot.put_storage(files, VOLUME)
        plugs.append(dock.seen("1").plug)
        slot.take()
    assert len(set(plugs)) == 400


def test_a_plug_stays_the_same_while_files_go_and_over_a_restart(dock, slot, files) -> None:
    slot.put_storage(files, VOLUME)
    plug = dock.seen("1").plug
    storage = dock.storage("1")
    with storage.writable():
        (storage.root / "DCIM" / "0001.MP4").unlink()
        (storage.root / "DCIM").rmdir()
    storage.close(eject=False)
    assert dock.seen("1").plug == plug
    script = (
        "import sys; from pathlib import Path; from drivers import folder_dock as d\n"
        "print(d.FolderDock(d.Config(Path(sys.argv[1]), ('1',)), None).seen('1').plug)"
    )
    words = [sys.executable, "-c", script, str(slot.path.parent)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert told.strip() == plug


def test_a_locked_card_is_not_written_even_by_root(dock, slot, files) -> None:
    slot.put_storage(files, VOLUME)
    (slot.path / "storage").chmod(0o555)
    storage = dock.storage("1")
    with pytest.raises(StorageError, match="cannot be written"), storage.writable():
        pytest.fail("it was allowed")


def test_a_pull_is_lost_before_in_and_after_writing(dock, slot, files) -> None:
    slot.put_storage(files, VOLUME)
    storage = dock.storage("1")
    with pytest.raises(SourceLost, match="pulled"), storage.writable():
        slot.take()
    with pytest.raises(SourceLost, match="pulled"), storage.writable():
        pytest.fail("it was allowed")
    slot.put_storage(files, VOLUME)
    with pytest.raises(SourceLost, match="pulled"), storage.writable():
        pytest.fail("another plug is another card")
    storage.close()
    assert not slot.is_let_go, "a camera plugged later is not told about an earlier one"


def test_what_goes_wrong_while_writing_is_told_as_it_is(dock, slot, files) -> None:
    slot.put_storage(files, VOLUME)
    with pytest.raises(FileNotFoundError), dock.storage("1").writable():
        _pull_and_delete(slot)


def _pull_and_delete(slot):
    slot.take()
    (slot.path / "storage" / "0001.MP4").unlink()


def test_one_let_go_is_not_written(dock, slot, files) -> None:
    slot.put_storage(files, VOLUME)
    storage = dock.storage("1")
    storage.close()
    with pytest.raises(SourceLost, match="let go"), storage.writable():
        pytest.fail("it was allowed")


@pytest.mark.parametrize(
    ("text", "serial", "capacity_bytes"),
    [
        ("{}", "", 0),
        ('{"label": "CAM-7"}', "CAM-7", 0),
        ('{"serial": 7, "capacity_bytes": -1}', "7", 0),
        ('{"serial": null, "capacity_bytes": "big"}', "", 0),
    ],
)
def test_a_volume_may_tell_little(dock, slot, files, text, serial, capacity_bytes) -> None:
    slot.put_storage(files, VOLUME)
    (slot.path / "volume.json").write_text(text)
    storage = dock.storage("1")
    assert (storage.serial, storage.capacity_bytes) == (serial, capacity_bytes)


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "[" * 4000])
def test_a_volume_that_is_none_is_refused(dock, slot, files, text) -> None:
    slot.put_storage(files, VOLUME)
    (slot.path / "volume.json").write_text(text)
    with pytest.raises(Unsupported, match=r"slot 1: volume\.json"):
        dock.storage("1")


def test_storage_counts_only_when_it_is_whole(dock, slot, port) -> None:
    (slot.path / "storage").mkdir()
    assert dock.seen("1") is None, "its volume.json is still to come"
    (slot.path / "storage").rmdir()
    (slot.path / "volume.json").write_text("{}")
    assert dock.seen("1") is None, "and it without files is nothing"
    (slot.path / "tty").symlink_to(port.with_name("gone"))
    assert dock.seen("1") is None, "a link to nowhere neither"


def test_a_camera_may_be_both_at_once(dock, slot, port, files) -> None:
    slot.put_storage(files, VOLUME)
    slot.put_link(port)
    seen = dock.seen("1")
    assert seen.has_link
    assert seen.has_storage
    assert dock.storage("1").serial == "BC0001"


def test_its_settings_are_checked(tmp_path: Path) -> None:
    assert "folder_dock" in app.INSTRUMENTS
    file = tmp_path / "dock.toml"
    for slots in (["1", "1"], [], ["../1"], ["."]):
        file.write_text(f"folder = 'dock'\nslots = {json.dumps(slots)}\n")
        with pytest.raises(ConfigError, match="slots"):
            config.load(file, driver.Config, lambda _: {})
    file.write_text("folder = 'dock'\nslots = ['1']\n")
    assert config.load(file, driver.Config, lambda _: {}).folder == tmp_path / "dock"
