"""What a card may be made of: everything is listed, nothing is followed, nothing is believed."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import SourceLost
from agent.docking import inventory, names
from agent.docking.inventory import Limits, survey

LIMITS = Limits(capacity_bytes=1 << 30)


def listed(root, limits=LIMITS):
    return {entry.name: entry for entry in survey(root, limits).files}


def reasons(root, limits=LIMITS):
    return {item.name: item.reason for item in survey(root, limits).ignored}


def test_files_of_every_kind_are_listed_with_size_and_time(tmp_path):
    (tmp_path / "DCIM").mkdir()
    (tmp_path / "DCIM" / "A.mp4").write_bytes(b"abc")
    (tmp_path / ".hidden").write_bytes(b"")
    os.utime(tmp_path / "DCIM" / "A.mp4", ns=(0, 5_000_000_000))
    found = listed(tmp_path)
    assert set(found) == {"DCIM/A.mp4", ".hidden"}
    assert (found["DCIM/A.mp4"].size_bytes, found["DCIM/A.mp4"].mtime_ns) == (3, 5_000_000_000)


def test_links_pipes_and_sockets_are_named_and_never_opened(tmp_path):
    (tmp_path / "to_a_file").symlink_to("/etc/passwd")
    (tmp_path / "to_a_folder").symlink_to("/")
    (tmp_path / "round").symlink_to(".")
    os.mkfifo(tmp_path / "pipe.mp4")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()
    (tmp_path / "good.mp4").write_bytes(b"x")
    found = survey(tmp_path, LIMITS)
    assert [entry.name for entry in found.files] == ["good.mp4"]
    assert set(reasons(tmp_path)) == {"to_a_file", "to_a_folder", "round", "pipe.mp4", "socket"}
    assert found.has_odd


@pytest.mark.parametrize("name", ["pipe.mp4", "link.mp4", "folder/link.mp4", "up/../good.mp4"])
def test_what_is_no_plain_file_below_the_root_is_not_opened(tmp_path, name):
    (tmp_path / "up").mkdir()
    (tmp_path / "good.mp4").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("good.mp4")
    (tmp_path / "folder").symlink_to(tmp_path)
    with pytest.raises(OSError), inventory.opened(tmp_path, name):  # noqa: PT011 - of any number
        pass
    with pytest.raises(OSError):  # noqa: PT011
        inventory.remove(tmp_path, "up/../good.mp4")
    assert (tmp_path / "good.mp4").exists()


def test_folders_deeper_than_allowed_are_told(tmp_path):
    deep = tmp_path / "/".join("d" * 12)
    deep.mkdir(parents=True)
    (deep / "lost.mp4").write_bytes(b"x")
    (tmp_path / "d" / "near.mp4").write_bytes(b"x")
    found = survey(tmp_path, LIMITS)
    assert [entry.name for entry in found.files] == ["d/near.mp4"]
    assert found.is_cut
    assert [item.reason for item in found.ignored] == ["deeper than 8 folders"]


def test_more_entries_than_allowed_are_told(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02}.mp4").write_bytes(b"x")
    found = survey(tmp_path, Limits(20, capacity_bytes=1 << 30))
    assert (len(found.files), found.is_cut) == (20, True)
    assert not survey(tmp_path, LIMITS).is_cut


def test_a_tree_of_empty_folders_without_end_is_cut(tmp_path):
    def fill(folder, depth):
        for number in range(5):
            (folder / str(number)).mkdir()
            if depth:
                fill(folder / str(number), depth - 1)

    fill(tmp_path, 3)
    found = survey(tmp_path, Limits(100, capacity_bytes=1 << 30))
    assert found.is_cut


def test_a_giant_of_holes_is_left_out_and_the_sum_is_watched(tmp_path):
    with (tmp_path / "giant.mp4").open("wb") as stream:
        os.truncate(stream.fileno(), 1 << 40)
    (tmp_path / "good.mp4").write_bytes(b"x")
    found = survey(tmp_path, LIMITS)
    assert [entry.name for entry in found.files] == ["good.mp4"]
    assert found.is_cut
    assert "1099511627776 bytes on a medium of" in reasons(tmp_path)["giant.mp4"]
    for number in range(3):
        with (tmp_path / f"{number}.mp4").open("wb") as stream:
            os.truncate(stream.fileno(), 400 << 20)
    assert survey(tmp_path, LIMITS).is_cut


def test_names_that_deceive_are_shown_escaped_and_opened_by_their_bytes(tmp_path):
    cruel = [
        b"-rf",
        b"$(reboot).mp4",
        "gpj.\u202e4pm".encode(),
        "e\u0301.mp4".encode(),
        "\u00e9.mp4".encode(),
        b"\xff\xfe.mp4",
        b"two\nlines.mp4",
        b"back\\x0aslash.mp4",
        b"n" * 255,
        b"\x1b[2J.mp4",
    ]
    for name in cruel:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    found = listed(tmp_path)
    assert len(found) == len(cruel)
    for shown in found:
        assert shown.isprintable()
        shown.encode()  # a surrogate would not do
        with inventory.opened(tmp_path, shown) as descriptor:
            assert os.read(descriptor, 300) == names.raw(shown)


def test_paths_and_times_beyond_all_measure_are_bounded(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(b"\xff" * 250, dir_fd=folder)
        below = os.open(b"\xff" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    (tmp_path / "far.mp4").write_bytes(b"x")
    os.utime(tmp_path / "far.mp4", ns=(0, (1 << 63) - 1))
    found = survey(tmp_path, Limits(max_depth=32, capacity_bytes=1 << 30))
    assert [item.reason for item in found.ignored] == ["a path of 4266 bytes"]
    assert len(found.ignored[0].name) < 4096
    assert found.files[0].mtime_ns <= 1 << 62


@given(st.binary(min_size=1, max_size=60))
def test_every_name_comes_back_from_how_it_is_shown(name):
    shown = names.shown(name)
    assert names.raw(shown) == name
    assert shown.isprintable()


@given(st.text(max_size=100))
def test_every_serial_gives_a_name_that_topics_take(serial):
    name = names.camera_name(serial)
    assert name == "" or names._ALLOWED.fullmatch(name)
    assert (name == "") == (not serial.strip())


def test_a_root_that_is_gone_is_a_source_that_is_lost(tmp_path):
    with pytest.raises(SourceLost):
        survey(tmp_path / "nothing", LIMITS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_hides_no_other(tmp_path):
    (tmp_path / "a").mkdir(mode=0)
    (tmp_path / "b.mp4").write_bytes(b"x")
    assert list(listed(tmp_path)) == ["b.mp4"]
    assert "cannot be read" in reasons(tmp_path)["a"]
