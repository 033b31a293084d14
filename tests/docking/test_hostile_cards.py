"""Cards that were tampered with or are damaged, through the slots' machine."""

import json
import os
import shutil
from typing import NamedTuple

import pytest

from firmware_sim import bodycam_card
from tests.docking.dockside import Camera, Dockside, sparse


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def side(tmp_path):
    made = Dockside(tmp_path)
    yield made
    made.close()


@pytest.fixture
def camera(tmp_path):
    made = Camera(tmp_path, "BC0001")
    made.film(f"{bodycam_card.FOLDER}/MOV_0001.mp4", 100_000)
    return made


def done(side, camera):
    """Dock a card and let the centre sign; gives the slot's state and code."""
    camera.plug(side.slots["1"])
    side.rest()
    side.sign()
    side.rest()
    return side.state()


@pytest.mark.parametrize(
    ("fault", "code"),
    [("dir_loop", "D-10"), ("huge_sparse", "D-10"), ("symlink", "D-23")],
)
def test_what_no_camera_makes_is_kept_and_a_technician_called(side, camera, fault, code):
    bodycam_card.FAULTS[fault](camera.root)
    assert done(side, camera) == ("quarantine", code)
    assert camera.ever[0][1] in side.sealed()
    assert (camera.root / camera.ever[0][0]).exists(), "nothing of it is wiped"
    (ignored,) = side.rows("SELECT ignored FROM dock_session")
    if fault != "dir_loop":
        assert "MOV_" in ignored[0]


def test_a_link_is_never_followed(side, camera, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"not for the centre")
    (camera.root / "MOV_0002.mp4").symlink_to(secret)
    (camera.root / "DCIM" / "out").symlink_to(tmp_path)
    assert done(side, camera) == ("quarantine", "D-23")
    assert side.sealed() == [camera.ever[0][1]]


def test_a_tail_of_zeros_is_told_and_kept_as_it_is(side, camera):
    bodycam_card.FAULTS["zero_tail"](camera.root)
    path = camera.root / camera.ever[0][0]
    data = path.read_bytes() + bytes(100_000)
    path.write_bytes(data)
    assert done(side, camera) == ("ready", "")
    assert side.sealed() == [data]
    assert side.footage()[camera.ever[0][0]]["flags"] == ["zero_tail"]


def test_a_file_that_shrinks_while_it_is_read_is_kept_and_called_for(side, tmp_path):
    camera = Camera(tmp_path, "BC0004")
    path = camera.film("MOV_0001.mp4", 20_000_000)
    camera.plug(side.slots["1"])
    path = camera.root / "MOV_0001.mp4"
    side.dock.at[side.dock.looks + 14] = lambda: os.truncate(path, 6_000_000)
    side.rest()
    flags = {flag for row in side.rows("SELECT flags FROM footage") for flag in json.loads(row[0])}
    assert "shrank" in flags
    assert path.read_bytes() in side.sealed(), "what is there now"
    side.sign()
    side.rest()
    assert side.state() == ("quarantine", "D-13")
    assert path.exists()


@pytest.mark.parametrize("fault", ["rtl_name", "long_name"])
def test_names_are_data(side, camera, fault):
    bodycam_card.FAULTS[fault](camera.root)
    assert done(side, camera) == ("ready", "")
    assert camera.files() == {}, "wiped by its very name"
    names = list(side.footage())
    assert len(names) == 2
    assert all(name.isprintable() for name in names)


def test_names_that_are_no_text_come_and_go_as_they_are(side, camera):
    folder = os.fsencode(camera.root)
    odd = [b"\xff\xfe.mp4", b"a\nb.mp4", b"-rf", b"$(reboot).mp4", b"back\\slash.mp4"]
    for number, name in enumerate(odd):
        with open(os.path.join(folder, name), "wb") as stream:  # noqa: PTH118, PTH123 - bytes
            stream.write(b"%d" % number)
    state = done(side, camera)
    assert state == ("ready", "")
    assert len(side.sealed()) == 6
    left = os.listdir(os.fsencode(camera.root))  # noqa: PTH208 - bytes
    assert sorted(left) == [b"-rf", b"DCIM"], "what is no recording stays"


def test_more_files_than_allowed_are_kept_as_far_as_they_are_listed(tmp_path, camera):
    side = Dockside(tmp_path / "few", copy={"max_files": 10})
    for number in range(20):
        camera.film(f"{bodycam_card.FOLDER}/X_{number:02}.jpg", 10)
    assert done(side, camera) == ("quarantine", "D-10")
    assert len(side.sealed()) == 8, "folders count too"
    assert len(camera.files()) == 21
    side.close()


def test_what_is_larger_than_its_medium_is_a_lie(side, tmp_path):
    camera = Camera(tmp_path, "BC0002")
    camera.film("MOV_0001.mp4", 1000)
    sparse(camera.root / "MOV_0002.mp4", 40 << 30)
    camera.plug(side.slots["1"], capacity_bytes=32 << 30)
    side.rest()
    assert side.sealed() == [camera.ever[0][1]]
    side.sign()
    side.rest()
    assert side.state() == ("quarantine", "D-10")


def test_other_files_are_kept_and_stay(side, camera):
    bodycam_card.FAULTS["other_files"](camera.root)
    assert done(side, camera) == ("ready", "")
    assert list(camera.files()) == ["autorun.inf"]
    assert len(side.sealed()) == 2
    assert side.footage()["autorun.inf"]["flags"] == ["other"]


def test_two_cameras_that_claim_one_serial_are_both_kept(side, tmp_path):
    cameras = [Camera(tmp_path, "BC0001", seed) for seed in range(2)]
    for camera, slot in zip(cameras, side.slots.values(), strict=True):
        camera.film("MOV_0001.mp4", 50_000)
        camera.plug(slot)
        side.turn()
    side.rest()
    side.sign()
    side.rest()
    assert sorted(side.sealed()) == sorted(camera.ever[0][1] for camera in cameras)
    assert side.state("2") == ("quarantine", "D-08")
    assert len(cameras[1].files()) == 1


def test_a_full_disk_of_the_dock_leaves_footage_on_the_cameras(side, camera, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 99, 1))
    camera.plug(side.slots["1"])
    side.rest()
    assert side.state() == ("attention", "D-12")
    assert len(camera.files()) == 1
    monkeypatch.undo()
    side.clock.advance(60)
    side.rest()
    side.sign()
    side.rest()
    assert side.state() == ("ready", "")
    assert camera.files() == {}


def test_a_camera_that_is_on_no_list_is_kept_and_not_wiped(tmp_path, camera):
    side = Dockside(tmp_path / "listed", only_fleet=True)
    assert done(side, camera) == ("quarantine", "D-09")
    assert side.sealed() == [camera.ever[0][1]]
    assert len(camera.files()) == 1
    side.close()


def test_a_camera_without_a_serial_is_kept_under_a_name_of_its_own(side, tmp_path):
    camera = Camera(tmp_path, "")
    camera.film("MOV_0001.mp4", 1000)
    assert done(side, camera) == ("quarantine", "D-06")
    ((name,),) = side.rows("SELECT camera FROM footage")
    assert name.startswith("unknown.")


def test_a_file_that_grows_is_copied_again_and_never_wiped_short(side, camera):
    camera.plug(side.slots["1"])
    path = camera.root / camera.ever[0][0]
    for _ in range(6):
        with path.open("ab") as stream:
            stream.write(b"more")
        side.turn()
    side.rest()
    side.sign()
    side.rest()
    whole = camera.ever[0][1] + b"more" * 6
    assert whole in side.sealed() or path.read_bytes() == whole
