"""What a session meets on its way to the disk: odd times, set clocks, refusals, a full disk."""

import contextlib
import ctypes
import subprocess
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from agent.core.clock import NS_PER_S, RealClock, SimClock
from agent.core.errors import SourceLost, StorageError
from agent.core.model import Packet
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.vision.remux import demux
from agent.vision.segment import turn_of
from tests import footage
from tests.vision.recording import CAMERA, Desk, ext4, gaps, looped, segments, sha256, tmpfs
from tests.vision.test_recorder import Script, assert_rows_agree_with_files, wait_for

pytestmark = pytest.mark.video

small_disk = pytest.fixture(tmpfs)


@pytest.fixture
def sim() -> SimClock:
    """Give a clock that stands at a full minute, where a file of 60 s begins."""
    return SimClock(1_700_000_040 * NS_PER_S)


@pytest.fixture
def packets(sim: SimClock) -> list[Packet]:
    """Give 60 packets that come when they are due."""
    begun_ns = sim.mono_ns()
    first_ns = sim.utc_ns()
    return [
        replace(packet, arrival_mono_ns=begun_ns + packet.utc_ns - first_ns)
        for packet in footage.stamped(footage.numbered(60), "", first_ns)
    ]


def seen(store: Store, folder: Path) -> list[int]:
    return [number for row in segments(store) for number in footage.numbers(folder / row["path"])]


def record_all(desk: Desk) -> None:
    with pytest.raises(SourceLost, match="ended"):
        desk.record(10_000)


@pytest.mark.parametrize("step_s", [3600, -3600, 1.5, -1.5, -1_700_000_000])
def test_clock_set_within_a_group_costs_no_picture(
    store: Store, tmp_path: Path, sim: SimClock, packets, step_s: float
) -> None:
    step_ns = int(step_s * NS_PER_S)
    late = [replace(packet, utc_ns=packet.utc_ns + step_ns) for packet in packets]
    desk = Desk(store, tmp_path, Script([*packets[:33], *late[33:]]), sim, segment_s=60)
    record_all(desk)
    assert seen(store, tmp_path) == list(range(60))
    before, after = segments(store)
    assert (before["packets"], after["packets"]) == (40, 20)
    assert before["run"] != after["run"]
    assert before["start_utc_ns"] == packets[0].utc_ns
    assert after["start_utc_ns"] == late[40].utc_ns
    reasons = [row["reason"] for row in gaps(store)]
    assert reasons == (["the stream or the clock jumped"] if step_s > 0 else [])


def test_pictures_of_equal_times_are_kept_in_one_run(
    store: Store, tmp_path: Path, sim: SimClock, packets
) -> None:
    """A camera that gives two pictures one time must not be cut to shreds."""
    twins = [
        replace(packet, dts=packets[place // 2 * 2].dts, pts=packets[place // 2 * 2].pts)
        for place, packet in enumerate(packets)
    ]
    desk = Desk(store, tmp_path, Script(twins), sim, segment_s=60)
    record_all(desk)
    (row,) = segments(store)
    assert row["packets"] == 60
    assert seen(store, tmp_path) == list(range(60))
    assert_rows_agree_with_files(store, tmp_path)


def test_what_a_jump_costs_until_the_next_key_frame_is_told(
    store: Store, tmp_path: Path, sim: SimClock, packets
) -> None:
    step = packets[1].dts - packets[0].dts
    back = [
        replace(packet, dts=packet.dts - 20 * step, pts=packet.pts - 20 * step)
        for packet in packets
    ]
    desk = Desk(
        store, tmp_path, Script([*packets[:27], *back[27:30], *back[31:]]), sim, segment_s=60
    )
    record_all(desk)
    assert seen(store, tmp_path) == [*range(27), *range(40, 60)]
    (gap,) = gaps(store)
    assert gap["reason"] == "the stream or the clock jumped"
    assert (gap["from_utc_ns"], gap["to_utc_ns"]) == (packets[26].utc_ns, packets[40].utc_ns)


def test_every_picture_of_rubbish_is_counted_not_fatal(
    store: Store, tmp_path: Path, sim: SimClock, packets
) -> None:
    bad = [
        replace(packet, payload=b"") if place in (5, 6, 25) else packet
        for place, packet in enumerate(packets)
    ]
    record_all(Desk(store, tmp_path, Script(bad), sim))
    assert [row["packets"] for row in segments(store)] == [18, 19, 20]
    assert_rows_agree_with_files(store, tmp_path)


def exchange(one: Path, other: Path) -> None:
    """Let two names change places at once: nobody sees that one of them is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd, rename_exchange = -100, 2
    if libc.renameat2(at_cwd, bytes(one), at_cwd, bytes(other), rename_exchange):
        raise OSError(ctypes.get_errno(), f"{one}, {other}")


def test_long_refusal_is_told_once_and_leaves_one_gap(
    store: Store, tmp_path: Path, sim: SimClock, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(store, tmp_path, looped(footage.numbered(60), sim), sim)
    folder = tmp_path / "segments" / CAMERA
    aside = tmp_path / "aside"
    healths = []

    def has_begun(files: int) -> bool:
        rows = segments(store)
        return len(rows) == files and (tmp_path / rows[-1]["path"]).stat().st_size > 0

    def each(count: int) -> None:
        if count == 55:  # the third file has a group
            wait_for(lambda: has_begun(3))
            folder.rename(aside)
            folder.write_text("in the way")
        elif count == 2000:  # more than three minutes of refusals
            wait_for(lambda: desk.recorder.health().state == "not_recording")
            healths.append(desk.recorder.health())
            exchange(folder, aside)
        elif count > 2000:
            time.sleep(0.001)

    desk.record(2600, each)
    assert "the disk refused" in healths[0].detail
    assert desk.recorder.health().state == "stopped"
    assert caplog.text.count("recording interrupted") == 1
    (gap,) = gaps(store)
    assert "the disk refused" in gap["reason"]
    assert gap["to_utc_ns"] - gap["from_utc_ns"] > 150 * NS_PER_S
    found = segments(store)
    assert {row["state"] for row in found} <= {"closed", "recovered"}
    ends = [row["end_utc_ns"] for row in found if row["end_utc_ns"] <= gap["from_utc_ns"]]
    assert max(ends) == gap["from_utc_ns"]
    assert gap["to_utc_ns"] in [row["start_utc_ns"] for row in found]


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(1 << 20)):
            pass


def test_full_disk_costs_the_groups_that_had_no_room(
    store: Store, small_disk: Path, sim: SimClock
) -> None:
    filler = small_disk / "filler"
    desk = Desk(store, small_disk, looped(footage.noisy(30), sim), sim, segment_s=60)
    healths = []

    def on_disk() -> int:
        with contextlib.suppress(StorageError):  # it is being begun
            return sum(len(list(demux(path))) for path in small_disk.rglob("*.mp4"))
        return 0

    def each(count: int) -> None:
        if count == 25:
            wait_for(lambda: on_disk() == 20)
            fill(filler)
        elif count == 100:
            wait_for(lambda: desk.recorder.health().state == "not_recording")
            healths.append(desk.recorder.health())
            filler.unlink()
        elif count > 100:
            time.sleep(0.002)

    desk.record(600, each)
    assert healths[0].detail.startswith("the disk refused: ")
    found = segments(store)
    assert [row["state"] for row in found] == ["recovered", "closed"]
    assert found[0]["packets"] >= 20
    for row in found:
        path = small_disk / row["path"]
        assert (row["size_bytes"], row["sha256"]) == (path.stat().st_size, sha256(path))
        assert len(list(demux(path))) == row["packets"]
    (gap,) = gaps(store)
    assert gap["from_utc_ns"] == found[0]["end_utc_ns"]
    assert gap["to_utc_ns"] == found[1]["start_utc_ns"]


def test_cuts_of_sixteen_cameras_do_not_coincide(
    store: Store, tmp_path: Path, sim: SimClock, packets
) -> None:
    """They start together and send their key frames together, as behind one switch."""
    step = packets[1].dts - packets[0].dts
    long = [
        replace(
            packet,
            dts=packet.dts + turn * 60 * step,
            pts=packet.pts + turn * 60 * step,
            utc_ns=packet.utc_ns + turn * 6 * NS_PER_S,
            arrival_mono_ns=packet.arrival_mono_ns + turn * 6 * NS_PER_S,
        )
        for turn in range(7)
        for packet in packets
    ]
    for number in range(16):
        camera = f"camera-{number}"
        desk = Desk(
            store, tmp_path, Script(long), sim, camera, turn=turn_of(number), segment_s=16, ring_s=2
        )
        record_all(desk)
    cuts = Counter()
    for number in range(16):
        ours = [row for row in segments(store) if row["camera"] == f"camera-{number}"]
        lengths = [row["packets"] for row in ours]
        assert sum(lengths) == len(long)
        assert lengths[1] == 160
        cuts.update(row["start_utc_ns"] // NS_PER_S for row in ours[1:2])
    assert max(cuts.values()) <= 2  # a second has one key frame of each camera
    assert len(cuts) >= 12


frozen_disk = pytest.fixture(ext4)


def test_hanging_disk_does_not_stop_the_reading(
    tmp_path: Path, clock: RealClock, frozen_disk: Path
) -> None:
    """A frozen file system: every write and sync on it waits in the kernel, the database's too."""
    store = Store(frozen_disk / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    desk = Desk(
        store,
        frozen_disk,
        looped(footage.numbered(60), clock),
        clock,
        segment_s=2,
        queue_packets=30,
    )
    beats: list[int] = []
    in_memory: list[int] = []

    def each(count: int) -> None:
        beats.append(clock.mono_ns())
        if count == 15:
            subprocess.run(["fsfreeze", "-f", str(frozen_disk)], check=True)
        elif count == 65:
            in_memory.append(sum(len(desk.ring.after(run, None)) for run in desk.ring.runs()))
            subprocess.run(["fsfreeze", "-u", str(frozen_disk)], check=True)

    with closing(store):
        desk.record(110, each)
        waits_ns = [right - left for left, right in pairwise(beats)]
        assert max(waits_ns[16:63]) < NS_PER_S  # it went on at the camera's pace
        assert in_memory[0] >= 50
        left_out = sum(gap["packets"] for gap in gaps(store))
        assert left_out >= 5
        assert sum(row["packets"] for row in segments(store)) + left_out == 110
        assert_rows_agree_with_files(store, frozen_disk)
