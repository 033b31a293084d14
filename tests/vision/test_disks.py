"""Recordings on two disks: taken in turn, one may go, be exchanged, refuse, and come back."""

import json
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.errors import StorageError
from agent.core.store import Store
from agent.vision.config import RecordConfig
from agent.vision.disks import META, Disks
from agent.vision.footage import Span, gather
from agent.vision.loop import RecordingLoop
from agent.vision.recovery import recover
from tests import footage
from tests.vision.recording import (
    CAMERA,
    Desk,
    looped,
    mount_ext4,
    mount_tmpfs,
    segments,
    sha256,
)
from tests.vision.test_recorder import wait_for
from tests.vision.test_recovery import note

pytestmark = pytest.mark.video

DEVICE = "box-1"


class Rig:
    """Two folders and a clock; each folder may be a disk of its own."""

    def __init__(self, store: Store, tmp_path: Path) -> None:
        self.store = store
        self.state_dir = tmp_path / "state"
        self.state_dir.mkdir()
        self.one, self.two = tmp_path / "one", tmp_path / "two"
        for path in (self.one, self.two):
            path.mkdir()
        self.clock = SimClock()
        self.disks = self.anew()

    def anew(self, *paths: Path, device: str = DEVICE) -> Disks:
        """The agent's view after a start."""
        folders = paths or (self.one, self.two)
        return Disks(self.state_dir, self.store, self.clock, device, folders)

    def desk(self, **config) -> Desk:
        source = looped(footage.numbered(60), self.clock)
        return Desk(self.store, self.state_dir, source, self.clock, disks=self.disks, **config)

    def states(self) -> list[str]:
        self.disks.check()
        return [health.state for health in self.disks.health().values()]

    def detail(self, name: str) -> str:
        return self.disks.health()[name].detail

    def loop(self, **config) -> RecordingLoop:
        return RecordingLoop(self.store, self.disks, self.clock, RecordConfig(**config), note)

    def places(self) -> Counter[str]:
        return Counter(row["folder"] for row in segments(self.store))

    def file(self, row) -> Path:
        ids = {folder.folder_id: folder.path for folder in self.disks.present()}
        return ids[row["folder"]] / row["path"]


@pytest.fixture
def rig(store: Store, tmp_path: Path) -> Rig:
    return Rig(store, tmp_path)


def umount(path: Path, *options: str) -> None:
    subprocess.run(["umount", *options, str(path)], check=True)


@pytest.fixture
def mounted(rig: Rig) -> Iterator[Rig]:
    """Both folders are disks of their own."""
    try:
        for path in (rig.one, rig.two):
            mount_tmpfs(path)
        yield rig
    finally:
        for path in (rig.one, rig.two):
            while os.path.ismount(path):
                umount(path, "-l")


def test_folders_are_taken_in_turn_and_rows_lead_to_files(rig: Rig) -> None:
    rig.desk().record(200)
    assert sorted(rig.places().values()) == [5, 5]
    for row in segments(rig.store):
        path = rig.file(row)
        assert path.is_relative_to(rig.one) or path.is_relative_to(rig.two)
        assert (row["size_bytes"], row["sha256"]) == (path.stat().st_size, sha256(path))
    assert not (rig.state_dir / "segments").exists()
    paper = json.loads((rig.one / META).read_text())
    assert paper["device"] == DEVICE
    assert paper["folder"] in rig.places()
    assert rig.states() == ["ready", "ready"]


def test_cameras_begin_on_different_folders(rig: Rig) -> None:
    rig.disks.present()
    assert [rig.disks.in_turn(name)[0].path for name in ("a", "b", "a", "b")] == [
        rig.one,
        rig.two,
        rig.two,
        rig.one,
    ]


def test_a_clip_is_gathered_from_both(rig: Rig) -> None:
    begun_ns = rig.clock.utc_ns()
    rig.desk().record(100)
    span = Span(CAMERA, begun_ns + NS_PER_S, begun_ns + 9 * NS_PER_S)
    found = gather(rig.store, rig.state_dir, None, span)
    (part,) = found.parts
    assert len(list(part.packets)) == 80


def test_paths_hold_after_a_start_and_when_disks_change_places(mounted: Rig) -> None:
    rig = mounted
    rig.desk().record(80)
    swapped = rig.one.parent / "aside"
    swapped.mkdir()
    for source, target in ((rig.one, swapped), (rig.two, rig.one), (swapped, rig.two)):
        subprocess.run(["mount", "--make-private", str(source)], check=False)
        subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
        umount(source, "-l")
    rig.disks = rig.anew()
    rows = segments(rig.store)
    assert recover(rig.store, rig.disks, note).quarantined == 0
    assert all(rig.file(row).is_file() for row in rows)
    assert rig.states() == ["ready", "ready"]


def test_full_folder_is_passed_over_and_made_room_on(mounted: Rig) -> None:
    rig = mounted
    rig.desk().record(40)
    filler = rig.one / "filler"
    with filler.open("wb") as stream:
        stream.write(bytes(99_400_000 + (5 << 20)))
    rig.desk().record(100)
    late = segments(rig.store)[2:]
    assert {rig.file(row).is_relative_to(rig.two) for row in late} == {True}
    assert rig.states() == ["full", "ready"]
    before = len(segments(rig.store))
    assert rig.loop().tidy() == 1  # what lies on the full one goes, the other is left alone
    assert len(segments(rig.store)) == before - 1
    assert all(rig.file(row).is_relative_to(rig.two) for row in segments(rig.store))


def refuse_ext4(rig: Rig) -> None:
    """Make the first disk one that its file system gives up on: writes end with EROFS or EIO."""
    subprocess.run(["mount", "-o", "remount,abort", str(rig.one)], check=True)


def pull(rig: Rig) -> None:
    """Take the first disk away while a file on it is open."""
    umount(rig.one, "-l")


@pytest.mark.parametrize("fail", [pull, refuse_ext4])
def test_disk_that_goes_while_it_is_written_costs_no_more_than_its_file(
    mounted: Rig, fail: Callable[[Rig], None]
) -> None:
    rig = mounted
    if fail is refuse_ext4:
        umount(rig.one)
        mount_ext4(rig.one)
    desk = rig.desk()

    def each(count: int) -> None:
        if count == 95:
            wait_for(lambda: len(segments(rig.store)) >= 5)  # the fifth lies on the first disk
            fail(rig)

    desk.record(400, each)
    rows = segments(rig.store)
    late = [row for row in rows if row["start_utc_ns"] > rows[0]["start_utc_ns"] + 12 * NS_PER_S]
    (ours,) = {row["folder"] for row in late}
    assert ours == json.loads((rig.two / META).read_text())["folder"]
    assert all(row["state"] == "closed" for row in late)
    lost = 400 - sum(row["packets"] for row in rows if row["state"] == "closed")
    assert lost <= 30  # the file that was open there, and at most a group of pictures
    assert rig.states() == ["missing" if fail is pull else "refusing", "ready"]
    if fail is pull:
        assert list(rig.one.iterdir()) == []
    assert desk.recorder.health().state == "stopped"


def test_read_only_disk_is_told_and_used_again_when_it_can_be_written(mounted: Rig) -> None:
    rig = mounted
    rig.desk().record(40)
    subprocess.run(["mount", "-o", "remount,ro", str(rig.one)], check=True)
    rig.desk().record(100)
    late = segments(rig.store)[2:]
    assert len(late) == 5
    assert all(rig.file(row).is_relative_to(rig.two) for row in late)
    assert rig.states() == ["refusing", "ready"]
    assert "Read-only" in rig.detail("disk-1")
    subprocess.run(["mount", "-o", "remount,rw", str(rig.one)], check=True)
    rig.clock.advance(61)
    rig.desk().record(100)
    late = segments(rig.store)[7:]
    assert 2 <= sum(rig.file(row).is_relative_to(rig.one) for row in late) <= 3
    assert rig.states() == ["ready", "ready"]


def test_disk_that_is_away_keeps_its_rows_and_is_used_again(mounted: Rig) -> None:
    rig = mounted
    rig.desk().record(80)
    away = rig.one.parent / "away"
    away.mkdir()
    subprocess.run(["mount", "--bind", str(rig.one), str(away)], check=True)
    umount(rig.one)
    try:
        rig.disks = rig.anew()
        assert rig.states() == ["missing", "ready"]
        assert "not mounted" in rig.detail("disk-1")
        known = len(segments(rig.store))
        assert recover(rig.store, rig.disks, note).damaged == 0
        loop = rig.loop(keep_max_gb=0.05, keep_days=1)
        rig.clock.advance(3 * 86_400)
        assert loop.tidy() == 2  # too old, on the disk that is there
        assert len(segments(rig.store)) == known - 2
        rig.desk().record(40)
        assert list(rig.one.iterdir()) == []  # nothing went to the disk below
        subprocess.run(["mount", "--bind", str(away), str(rig.one)], check=True)
        assert rig.states() == ["ready", "ready"]
        assert loop.tidy() == 2
        assert not list(rig.one.glob("segments/*/*"))
        rig.desk().record(80)
        assert list(rig.one.glob("segments/*/*"))
    finally:
        umount(away, "-l")


def test_open_file_of_a_disk_that_was_away_is_settled_when_it_is_back(mounted: Rig) -> None:
    rig = mounted
    desk = rig.desk()
    away = rig.one.parent / "away"
    away.mkdir()
    loop = rig.loop()
    loop.tidy()

    def each(count: int) -> None:
        if count == 55:  # the third file, again on the first disk
            wait_for(lambda: len(segments(rig.store)) == 3)
            subprocess.run(["mount", "--bind", str(rig.one), str(away)], check=True)
            umount(rig.one, "-l")

    try:
        desk.record(200, each)
        loop.tidy()
        states = [row["state"] for row in segments(rig.store)]
        assert states.count("open") == 1
        assert "damaged" not in states
        subprocess.run(["mount", "--bind", str(away), str(rig.one)], check=True)
        loop.tidy()
        rows = segments(rig.store)
        (row,) = [row for row in rows if row["state"] == "recovered"]
        assert row["sha256"] == sha256(rig.file(row))
        assert {row["state"] for row in rows} == {"closed", "recovered"}
    finally:
        umount(away, "-l")


def test_disk_of_another_device_is_neither_written_nor_tidied(mounted: Rig) -> None:
    rig = mounted
    other = rig.anew(rig.one, device="box-2")
    desk = Desk(
        rig.store, rig.state_dir, looped(footage.numbered(60), rig.clock), rig.clock, disks=other
    )
    desk.record(40)
    foreign = {path: sha256(path) for path in rig.one.rglob("*") if path.is_file()}
    rig.store.write(lambda connection: connection.execute("DELETE FROM segment").rowcount)
    rig.disks = rig.anew()
    assert recover(rig.store, rig.disks, note).quarantined == 0
    rig.desk().record(80)
    loop = rig.loop(keep_days=1)
    rig.clock.advance(400 * 86_400)
    assert loop.tidy() == 4
    assert {path: sha256(path) for path in rig.one.rglob("*") if path.is_file()} == foreign
    assert rig.states() == ["foreign", "ready"]
    assert "box-2" in rig.detail("disk-1")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"folder": 3}', "\\xff"])
def test_paper_that_cannot_be_read_makes_a_folder_foreign(rig: Rig, content: str) -> None:
    (rig.one / META).write_text(content)
    assert rig.states() == ["foreign", "ready"]
    rig.desk().record(40)
    assert {path.name for path in rig.one.iterdir()} == {META}


def test_folder_with_other_files_is_not_taken(rig: Rig) -> None:
    (rig.one / "holiday.jpg").write_bytes(b"x")
    assert rig.states() == ["foreign", "ready"]
    assert "allowed: an empty folder" in rig.detail("disk-1")


def test_new_empty_disk_in_place_of_an_old_one_is_taken(mounted: Rig) -> None:
    rig = mounted
    rig.desk().record(40)
    before = json.loads((rig.one / META).read_text())["folder"]
    umount(rig.one)
    mount_tmpfs(rig.one)
    (rig.one / "lost+found").mkdir()
    rig.disks = rig.anew()
    assert rig.states() == ["ready", "ready"]
    assert json.loads((rig.one / META).read_text())["folder"] != before
    rig.desk().record(80)
    assert len(rig.places()) == 3


def test_no_folder_at_all_is_told_and_ends_when_one_is_there(rig: Rig) -> None:
    rig.disks = rig.anew(rig.one / "none")
    with pytest.raises(StorageError, match="No such file"):
        rig.disks.in_turn(CAMERA)
    desk = rig.desk()
    states = []

    def each(count: int) -> None:
        if count == 50:
            wait_for(lambda: desk.recorder.health().state == "not_recording")
            states.append(desk.recorder.health().detail)
            (rig.one / "none").mkdir()
        elif count > 50:
            threading.Event().wait(0.005)

    desk.record(400, each)
    assert "No such file" in states[0]
    assert segments(rig.store)[-1]["state"] == "closed"


def test_folder_left_out_of_the_configuration_is_still_read_and_tidied(rig: Rig) -> None:
    rig.desk().record(80)
    rig.disks = rig.anew(rig.two)
    rig.desk().record(40)
    late = segments(rig.store)[-2:]
    assert all(rig.file(row).is_relative_to(rig.two) for row in late)
    loop = rig.loop(keep_days=1)
    rig.clock.advance(3 * 86_400)
    assert loop.tidy() == 6
    assert not list(rig.one.glob("segments/*/*"))


def test_default_is_the_state_directory_without_paper(rig: Rig) -> None:
    disks = Disks(rig.state_dir, rig.store, rig.clock)
    (folder,) = disks.present()
    assert (folder.folder_id, folder.path) == ("", rig.state_dir)
    assert not (rig.state_dir / META).exists()


def test_change_of_state_is_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    paper = rig.one / META
    rig.states()
    content = paper.read_text()
    since = [health.since_utc_ns for health in rig.disks.health().values()]
    rig.clock.advance(10)
    for _ in range(3):
        assert rig.states() == ["ready", "ready"]
    assert [health.since_utc_ns for health in rig.disks.health().values()] == since
    paper.write_text("rubbish")
    for _ in range(3):
        assert rig.states() == ["foreign", "ready"]
    paper.write_text(content)
    assert rig.states() == ["ready", "ready"]
    assert caplog.text.count("recording folder foreign") == 1
