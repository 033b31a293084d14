"""One segment: its row before its file, synced by groups, closed with the hash of its file."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.errors import StorageError
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.vision.disks import STATE_DIR, Disks, Folder
from agent.vision.recovery import recover
from agent.vision.remux import Template, demux
from agent.vision.segment import Gap, Place, SegmentWriter, turn_of
from tests import footage
from tests.vision.recording import CAMERA, gaps, segments, sha256
from tests.vision.test_recovery import note

pytestmark = pytest.mark.video

START_NS = 1_790_000_000 * NS_PER_S


@pytest.fixture
def packets():
    return tuple(footage.stamped(footage.numbered(60), "7-1-abcdef01", START_NS))


@pytest.fixture
def template(packets):
    made = Template("h264", packets[0].payload)
    yield made
    made.close()


def writer(store: Store, folder: Path, template: Template, first) -> SegmentWriter:
    return SegmentWriter(
        Place(CAMERA, store, Disks(folder, store, SimClock())),
        Folder(STATE_DIR, folder),
        template,
        first,
    )


def test_closed_row_tells_what_the_file_is(store, tmp_path, template, packets) -> None:
    segment = writer(store, tmp_path, template, packets[10])
    segment.open()
    for packet in packets[10:40]:
        segment.add(packet)
    segment.close()
    (row,) = segments(store)
    path = tmp_path / row["path"]
    assert path.parent == tmp_path / "segments" / CAMERA
    assert (row["state"], row["run"], row["packets"]) == ("closed", "7-1-abcdef01", 30)
    assert (row["size_bytes"], row["sha256"]) == (path.stat().st_size, sha256(path))
    assert (row["first_dts"], row["last_dts"]) == (packets[10].dts, packets[39].dts)
    assert (row["start_utc_ns"], row["end_utc_ns"]) == (packets[10].utc_ns, packets[39].utc_ns)
    assert (row["codec"], row["width_px"], row["height_px"]) == ("h264", 320, 180)
    assert footage.numbers(path) == list(range(10, 40))


def test_open_row_stands_before_the_first_byte(store, tmp_path, template, packets) -> None:
    segment = writer(store, tmp_path, template, packets[0])
    segment.open()
    (row,) = segments(store)
    assert (row["state"], row["sha256"], row["packets"]) == ("open", "", 0)
    assert (tmp_path / row["path"]).read_bytes() == b""
    segment.abandon()


def test_refused_file_leaves_no_row_and_no_gap(store, tmp_path, template, packets) -> None:
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments" / CAMERA).write_text("in the way")
    gap = Gap(START_NS - NS_PER_S, START_NS, 0, "the agent was not running")
    with pytest.raises(OSError, match=CAMERA):
        writer(store, tmp_path, template, packets[0]).open(gap)
    assert (segments(store), gaps(store)) == ([], [])


def test_gap_before_it_is_noted_with_its_row(store, tmp_path, template, packets) -> None:
    gap = Gap(START_NS - NS_PER_S, START_NS, 3, "the agent was not running")
    segment = writer(store, tmp_path, template, packets[0])
    segment.open(gap)
    (row,) = gaps(store)
    assert (row["from_utc_ns"], row["to_utc_ns"]) == (START_NS - NS_PER_S, START_NS)
    assert (row["camera"], row["packets"], row["reason"]) == (CAMERA, 3, gap.reason)
    segment.abandon()


def test_stream_without_key_frames_is_on_the_disk_all_the_same(
    store, tmp_path, template, packets
) -> None:
    step = packets[1].dts - packets[0].dts
    segment = writer(store, tmp_path, template, packets[0])
    segment.open()
    segment.add(packets[0])
    for number in range(1, 200):
        time = packets[0].dts + number * step
        segment.add(replace(packets[1], dts=time, pts=time))
    (row,) = segments(store)
    path = tmp_path / row["path"]
    assert len(list(demux(path))) >= 150
    segment.close()
    assert len(list(demux(path))) == 200


def test_finished_groups_are_on_the_disk_before_the_end(store, tmp_path, template, packets) -> None:
    segment = writer(store, tmp_path, template, packets[0])
    segment.open()
    for packet in packets[:35]:
        segment.add(packet)
    (row,) = segments(store)
    assert len(list(demux(tmp_path / row["path"]))) == 30
    segment.abandon()
    assert segments(store)[0]["state"] == "open"
    assert len(list(demux(tmp_path / row["path"]))) == 30


def test_burst_at_the_start_does_not_make_the_times_late(
    store, tmp_path, template, packets
) -> None:
    """The first pictures come at once, stamped with their arrival; the last ones are right."""
    late_ns = packets[20].utc_ns
    burst = [
        replace(packet, utc_ns=max(packet.utc_ns, late_ns + place))
        for place, packet in enumerate(packets)
    ]
    segment = writer(store, tmp_path, template, burst[0])
    segment.open()
    for packet in burst:
        segment.add(packet)
    segment.close()
    (row,) = segments(store)
    assert abs(row["start_utc_ns"] - packets[0].utc_ns) < 1000
    assert abs(row["end_utc_ns"] - packets[59].utc_ns) < 1000


def test_burst_is_corrected_before_the_file_is_closed(store, tmp_path, template, packets) -> None:
    """A recorder killed in its first file must not leave it with the time of its burst."""
    late_ns = packets[20].utc_ns
    segment = writer(store, tmp_path, template, packets[0])
    segment.open()
    for place, packet in enumerate(packets[:45]):
        segment.add(replace(packet, utc_ns=max(packet.utc_ns, late_ns + place)))
    segment.abandon()
    assert segments(store)[0]["state"] == "open"
    assert recover(store, Disks(tmp_path, store, SimClock()), note).segments == 1
    (row,) = segments(store)
    assert abs(row["start_utc_ns"] - packets[0].utc_ns) < 1000
    assert abs(row["end_utc_ns"] - packets[39].utc_ns) < 1000


def test_turns_of_cameras_lie_apart() -> None:
    for count in (2, 4, 8, 16, 64):
        turns = sorted(turn_of(number) for number in range(count))
        steps = [right - left for left, right in pairwise([*turns, turns[0] + 1])]
        assert min(steps) > 0.35 / count


def test_camera_offset_is_kept(store, tmp_path, template, packets) -> None:
    hour_ns = 3600 * NS_PER_S
    segment = writer(store, tmp_path, template, packets[0])
    segment.open()
    for packet in packets[:10]:
        segment.add(replace(packet, camera_utc_ns=packet.utc_ns - hour_ns))
    segment.close()
    assert segments(store)[0]["camera_offset_ns"] == -hour_ns


def test_refused_row_leaves_no_file(tmp_path, clock, template, packets) -> None:
    store = Store(tmp_path / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    store.close()
    with pytest.raises(StorageError):
        writer(store, tmp_path, template, packets[0]).open()
    assert [path for path in (tmp_path / "segments").rglob("*") if path.is_file()] == []


def test_disk_that_refuses_at_the_end_leaves_the_row_open(
    store, tmp_path, template, packets
) -> None:
    segment = writer(store, tmp_path, template, packets[0])
    segment.open()
    for packet in packets[:25]:
        segment.add(packet)
    store.close()
    with pytest.raises(StorageError):
        segment.close()
    segment.abandon()


def test_adding_to_a_segment_that_is_not_open_is_a_mistake(
    store, tmp_path, template, packets
) -> None:
    with pytest.raises(ValueError, match="not open"):
        writer(store, tmp_path, template, packets[0]).add(packets[0])
