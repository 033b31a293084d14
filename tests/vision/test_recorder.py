"""The recorder: rows agree with files, nothing is lost in silence, the disk may fail."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from agent.core.clock import NS_PER_S, RealClock, SimClock
from agent.core.errors import AuthRefused, OutboxFull, SourceLost, Unsupported
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.vision.remux import demux
from drivers import file as file_driver
from drivers import rtsp as rtsp_driver
from tests import footage
from tests.simcamera import PASSWORD, USER, SimCamera
from tests.vision.recording import CAMERA, Desk, gaps, looped, rows, segments, sha256

pytestmark = pytest.mark.video


@pytest.fixture
def sim() -> SimClock:
    return SimClock()


@pytest.fixture
def desk(store: Store, tmp_path: Path, sim: SimClock) -> Desk:
    return Desk(store, tmp_path, looped(footage.numbered(60), sim), sim)


def assert_rows_agree_with_files(store: Store, folder: Path) -> None:
    found = segments(store)
    for row in found:
        path = folder / row["path"]
        assert row["state"] == "closed"
        assert (row["size_bytes"], row["sha256"]) == (path.stat().st_size, sha256(path))
        packets = list(demux(path))
        assert len(packets) == row["packets"]
        assert packets[0].is_keyframe
        assert packets[0].dts == 0
    files = {str(path.relative_to(folder)) for path in (folder / "segments").rglob("*.mp4")}
    assert files == {row["path"] for row in found}


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert what()


class Script:
    """A source that gives what a test wants: packets, or an error."""

    def __init__(self, *sessions) -> None:
        self.sessions = list(sessions)
        self.info = footage.take(footage.numbered(60)).info
        self.is_closed = False

    def open(self):
        self.is_closed = False
        self.now = self.sessions.pop(0)
        if isinstance(self.now, Exception):
            raise self.now
        return self.info

    def packets(self):
        yield from self.now

    def close(self) -> None:
        self.is_closed = True


def test_every_packet_is_in_one_file_and_files_are_cut_at_key_frames(
    desk: Desk, store: Store, tmp_path: Path
) -> None:
    desk.record(200)
    assert_rows_agree_with_files(store, tmp_path)
    found = segments(store)
    assert [row["packets"] for row in found] == [20] * 10
    assert len({row["run"] for row in found}) == 1
    assert found[0]["run"].startswith("7-1-")
    seen = [number for row in found for number in footage.numbers(tmp_path / row["path"])]
    assert seen == [place % 60 for place in range(200)]
    for left, right in pairwise(found):
        assert left["last_dts"] < right["first_dts"]
        assert abs(right["start_utc_ns"] - left["end_utc_ns"] - NS_PER_S // 10) < 1000
    assert gaps(store) == []


def test_ring_holds_the_same_packets_as_the_files(desk: Desk, store: Store) -> None:
    desk.record(100)
    run = segments(store)[0]["run"]
    kept = desk.ring.after(run, None)
    assert len(kept) == 100
    assert kept[-1].dts == segments(store)[-1]["last_dts"]
    assert desk.recorder.health().ring_bytes == sum(len(packet.payload) for packet in kept)


def test_health_tells_the_state(desk: Desk) -> None:
    assert desk.recorder.health().state == "connecting"
    states = []
    desk.record(30, lambda count: states.append(desk.recorder.health().state))
    assert set(states) == {"streaming"}
    health = desk.recorder.health()
    assert (health.state, health.packets, health.dropped) == ("stopped", 30, 0)


def test_nothing_is_decoded(desk: Desk, store: Store, tmp_path: Path, sim: SimClock) -> None:
    """Pictures that no decoder would take are kept as they came."""
    packets = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    broken = [
        packet if packet.is_key else replace(packet, payload=packet.payload[:5] + b"\xff" * 60)
        for packet in packets
    ]
    desk = Desk(store, tmp_path, Script(broken), sim)
    with pytest.raises(SourceLost, match="ended"):
        desk.record(1000)
    assert sum(row["packets"] for row in segments(store)) == 60


def test_nothing_is_kept_before_a_key_frame(store: Store, tmp_path: Path, sim: SimClock) -> None:
    packets = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    desk = Desk(store, tmp_path, Script(packets[3:]), sim)
    with pytest.raises(SourceLost):
        desk.record(1000)
    assert footage.numbers(tmp_path / segments(store)[0]["path"])[0] == 10


def test_overflow_leaves_out_whole_groups_and_says_how_many(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    desk = Desk(store, tmp_path, looped(footage.numbered(60), sim), sim, queue_packets=30)
    slow = threading.Event()
    store.submit(lambda connection: slow.wait(20))  # the disk hangs

    def each(count: int) -> None:
        if count == 150:
            slow.set()
            time.sleep(0.5)
        elif count > 150:
            time.sleep(0.005)  # the disk keeps up from here on

    desk.record(300, each)
    left_out = gaps(store)
    found = segments(store)
    assert {gap["reason"] for gap in left_out} == {"the disk is too slow"}
    count = sum(gap["packets"] for gap in left_out)
    assert count >= 80
    assert sum(row["packets"] for row in found) + count == 300
    assert desk.recorder.health().dropped == count
    assert_rows_agree_with_files(store, tmp_path)
    for left, right in pairwise(left_out):
        assert left["to_utc_ns"] <= right["from_utc_ns"]
    span_ns = sum(gap["to_utc_ns"] - gap["from_utc_ns"] for gap in left_out)
    assert span_ns == pytest.approx(count * NS_PER_S / 10, abs=1000)
    assert any(abs(row["start_utc_ns"] - left_out[-1]["to_utc_ns"]) < 1000 for row in found)


def test_overflow_until_the_end_is_told_too(store: Store, tmp_path: Path, sim: SimClock) -> None:
    desk = Desk(store, tmp_path, looped(footage.numbered(60), sim), sim, queue_packets=30)
    slow = threading.Event()
    store.submit(lambda connection: slow.wait(20))
    timer = threading.Timer(0.5, slow.set)
    timer.start()
    desk.record(150)
    timer.join()
    left_out = sum(gap["packets"] for gap in gaps(store))
    assert left_out >= 80
    assert sum(row["packets"] for row in segments(store)) + left_out == 150


def test_restart_leaves_a_gap_row_with_the_reason(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    def session(start_ns: int):
        return list(footage.stamped(footage.numbered(60), "", start_ns))

    begun = sim.utc_ns()
    source = Script(
        session(begun), SourceLost("camera gate: no route"), session(begun + 30 * NS_PER_S)
    )
    desk = Desk(store, tmp_path, source, sim)
    for told in ("ended", "no route", "ended"):
        with pytest.raises(SourceLost, match=told):
            desk.record(1000)
    (gap,) = gaps(store)
    assert gap["reason"] == "camera gate: no route"
    assert gap["from_utc_ns"] == begun + 59 * NS_PER_S // 10
    assert gap["to_utc_ns"] == begun + 30 * NS_PER_S
    assert len({row["run"] for row in segments(store)}) == 2


def test_break_within_a_session_begins_a_new_run(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    packets = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    back = [replace(packet, dts=packet.dts - 40_000, pts=packet.pts - 40_000) for packet in packets]
    desk = Desk(store, tmp_path, Script([*packets[:30], *back[30:]]), sim)
    with pytest.raises(SourceLost):
        desk.record(1000)
    found = segments(store)
    runs = list(dict.fromkeys(row["run"] for row in found))
    assert [run.split("-")[1] for run in runs] == ["1", "2"]
    assert sum(row["packets"] for row in found) == 60
    assert_rows_agree_with_files(store, tmp_path)


def test_change_of_shape_begins_a_new_file(store: Store, tmp_path: Path, sim: SimClock) -> None:
    small = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    step = small[1].dts - small[0].dts
    large = [
        replace(packet, dts=packet.dts + 15 * step, pts=packet.pts + 15 * step)
        for packet in footage.stamped(
            footage.numbered(30, 480), "", sim.utc_ns() + 15 * NS_PER_S // 10
        )
    ]
    desk = Desk(store, tmp_path, Script([*small[:15], *large]), sim, segment_s=60)
    with pytest.raises(SourceLost):
        desk.record(1000)
    assert [(row["packets"], row["width_px"]) for row in segments(store)] == [(15, 320), (30, 480)]


def test_recording_goes_on_after_the_folder_was_in_the_way(
    desk: Desk, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "segments" / CAMERA
    aside = tmp_path / "aside"

    def each(count: int) -> None:
        if count == 50:
            wait_for(lambda: len(segments(store)) >= 2)
            folder.rename(aside)
            folder.write_text("in the way")
        elif count == 120:
            wait_for(lambda: "recording interrupted" in caplog.text)
            time.sleep(0.2)  # the writer takes what is queued
            folder.unlink()
            aside.rename(folder)

    desk.record(400, each)
    found = segments(store)
    states = [row["state"] for row in found]
    assert "open" not in states  # what the refusal interrupted is settled when writing goes on
    assert states[-1] == "closed"
    closed = [row for row in found if row["state"] == "closed"]
    assert closed[-1]["start_utc_ns"] > closed[0]["start_utc_ns"] + 10 * NS_PER_S
    (gap,) = gaps(store)
    assert "the disk refused" in gap["reason"]


def test_full_database_does_not_end_the_recorder(
    tmp_path: Path, sim: SimClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "outpost.db", DEVICE_MIGRATIONS, sim, max_bytes=64 * 4096)
    store.open()
    for size in (2000, 1):  # whole pages first, then the room that is left in them
        with contextlib.suppress(OutboxFull):
            while True:
                store.write(partial(_fill, size))
    desk = Desk(store, tmp_path, looped(footage.numbered(60), sim), sim, segment_s=0.5)

    def each(count: int) -> None:
        if count == 500:
            wait_for(lambda: "recording interrupted" in caplog.text)
            time.sleep(0.2)
            store.write(lambda connection: connection.execute("DELETE FROM meta").rowcount)

    desk.record(900, each)
    assert [row["state"] for row in segments(store)][-1] == "closed"
    assert desk.recorder.health().state == "stopped"
    store.close()


def _fill(size: int, connection: sqlite3.Connection) -> int:
    return connection.execute(
        "INSERT INTO meta VALUES (hex(randomblob(16)), hex(zeroblob(?)))", (size,)
    ).rowcount


def test_refused_login_is_tried_twice_and_then_once_in_a_quarter_of_an_hour(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    desk = Desk(store, tmp_path, Script(*(AuthRefused("no") for _ in range(4))), sim)
    begun_ns = sim.mono_ns()
    waits_s = []
    for _ in range(4):
        with pytest.raises(SourceLost, match="no"):
            desk.record(2000)
        assert desk.recorder.health().state == "auth_failed"
        waits_s.append((sim.mono_ns() - begun_ns) // NS_PER_S)
    assert waits_s[0] < 10
    assert all(900 <= later - sooner < 910 for sooner, later in pairwise(waits_s))


def test_a_session_between_two_refusals_starts_the_count_again(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    packets = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    source = Script(AuthRefused("no"), packets, AuthRefused("no"))
    desk = Desk(store, tmp_path, source, sim)
    for _ in range(3):
        with pytest.raises(SourceLost):
            desk.record(1000)


def test_a_refused_camera_holds_nobody_up_who_stops(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    desk = Desk(store, tmp_path, Script(AuthRefused("no"), AuthRefused("no")), sim)
    with pytest.raises(SourceLost):
        desk.record(10)
    begun_ns = sim.mono_ns()
    desk.record(5)  # tells it to stop at the fifth sign of life
    assert sim.mono_ns() - begun_ns <= 6 * NS_PER_S


def test_unsupported_is_told_and_asked_again_later(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    packets = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    desk = Desk(store, tmp_path, Script(Unsupported("mjpeg"), packets), sim)
    begun_ns = sim.mono_ns()
    with pytest.raises(SourceLost, match="mjpeg"):
        desk.record(2000)
    assert desk.recorder.health().state == "unsupported"
    assert sim.mono_ns() - begun_ns >= 900 * NS_PER_S
    with pytest.raises(SourceLost, match="ended"):
        desk.record(1000)
    assert sum(row["packets"] for row in segments(store)) == 60


def test_rubbish_key_frames_are_left_out_and_the_rest_is_kept(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    packets = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    packets[0] = replace(packets[0], payload=b"\0\0\1\0\0\1")
    desk = Desk(store, tmp_path, Script(packets), sim)
    with pytest.raises(SourceLost):
        desk.record(1000)
    assert sum(row["packets"] for row in segments(store)) == 50
    assert_rows_agree_with_files(store, tmp_path)


def test_file_that_ends_is_a_lost_source_and_leaves_no_thread(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    before = threading.active_count()
    source = Script(list(footage.stamped(footage.numbered(60), "", sim.utc_ns())))
    with pytest.raises(SourceLost, match="the stream ended"):
        Desk(store, tmp_path, source, sim).record(1000)
    assert source.is_closed
    assert threading.active_count() == before


def test_simulated_camera_is_recorded_over_a_drop(
    store: Store, tmp_path: Path, clock: RealClock
) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    with SimCamera(footage.numbered(60)) as camera:
        config = rtsp_driver.Config(camera.url, USER, password, stall_s=1.0)
        desk = Desk(store, tmp_path, rtsp_driver.build(config, clock), clock, segment_s=1.0)
        with pytest.raises(SourceLost):
            desk.record(1000, lambda count: count == 25 and camera.do("drop"))
        time.sleep(1.2)
        desk.record(25)
    assert_rows_agree_with_files(store, tmp_path)
    found = segments(store)
    assert found[0]["run"].startswith("7-1-")
    assert found[-1]["run"].startswith("7-2-")
    for run in {row["run"] for row in found}:
        seen = [
            number
            for row in found
            if row["run"] == run
            for number in footage.numbers(tmp_path / row["path"])
        ]
        assert all((right - left) % 60 == 1 for left, right in pairwise(seen))
        assert len(seen) >= 20
    (gap,) = gaps(store)
    assert camera.url in gap["reason"]
    assert abs(found[0]["camera_offset_ns"]) < NS_PER_S


def test_stop_ends_a_silent_camera_in_time(store: Store, tmp_path: Path, clock: RealClock) -> None:
    with SimCamera(footage.numbered(60), user="", password="") as camera:
        config = rtsp_driver.Config(camera.url, stall_s=30)
        desk = Desk(store, tmp_path, rtsp_driver.build(config, clock), clock)
        stop = threading.Event()
        has_begun = threading.Event()
        thread = threading.Thread(target=desk.recorder.run, args=(stop, has_begun.set))
        thread.start()
        assert has_begun.wait(5)
        camera.do("stall")
        time.sleep(0.2)
        begun = time.monotonic()
        stop.set()
        thread.join(5)
        assert time.monotonic() - begun < 2.5
    assert not thread.is_alive()


def test_two_cameras_share_a_store(store: Store, tmp_path: Path, sim: SimClock) -> None:
    desk = Desk(store, tmp_path, looped(footage.numbered(60), sim), sim)
    other_clock = SimClock(seed=1)
    other = Desk(store, tmp_path, looped(footage.numbered(60), other_clock), other_clock, "yard")
    thread = threading.Thread(target=other.record, args=(100,))
    thread.start()
    desk.record(100)
    thread.join()
    assert_rows_agree_with_files(store, tmp_path)
    assert rows(store, "SELECT sum(packets) AS n FROM segment")[0]["n"] == 200


def with_sound(target: Path) -> Path:
    """Give a film with G.711 sound, which no MP4 holds."""
    with av.open(str(footage.numbered(60))) as inside, av.open(str(target), "w") as outside:
        video = inside.streams.video[0]
        picture = outside.add_stream_from_template(video)
        sound = outside.add_stream("pcm_alaw", rate=8000, layout="mono")
        for packet in inside.demux(video):
            if packet.dts is not None:
                packet.stream = picture
                outside.mux(packet)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 48_000), dtype=np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        outside.mux(sound.encode(frame))
        outside.mux(sound.encode(None))
    return target


def test_sound_is_left_out(store: Store, tmp_path: Path, sim: SimClock) -> None:
    source = file_driver.build(file_driver.Config(with_sound(tmp_path / "sound.mov")), sim)
    with pytest.raises(SourceLost):
        Desk(store, tmp_path, source, sim).record(1000)
    for row in segments(store):
        with av.open(str(tmp_path / row["path"])) as container:
            assert [stream.type for stream in container.streams] == ["video"]
    assert sum(row["packets"] for row in segments(store)) == 60


def test_h265_is_recorded_as_players_expect_it(store: Store, tmp_path: Path, sim: SimClock) -> None:
    source = looped(footage.numbered(60, codec="libx265"), sim)
    Desk(store, tmp_path, source, sim).record(60)
    for row in segments(store):
        content = (tmp_path / row["path"]).read_bytes()
        assert row["codec"] == "hevc"
        assert b"hvc1" in content
        assert b"hev1" not in content
        assert len(footage.numbers(tmp_path / row["path"])) == 20
