"""What is found of a span: over breaks, behind a slow writer, around files that are bad or gone."""

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.errors import SourceLost, StorageError
from agent.core.model import Packet
from agent.core.store import Store
from agent.vision.clip import LENIENT_NS, UNSETTLED_NS
from agent.vision.footage import Footage, Span, gather
from agent.vision.ring import Ring
from tests import footage
from tests.vision.recording import CAMERA, Desk, gaps, looped, rows, segments
from tests.vision.test_clip import Box
from tests.vision.test_recorder import Script, wait_for

pytestmark = pytest.mark.video


@pytest.fixture
def sim() -> SimClock:
    return SimClock()


def span(sim_begun_ns: int, start_s: float, end_s: float, camera: str = CAMERA) -> Span:
    return Span(
        camera,
        sim_begun_ns + round(start_s * NS_PER_S),
        sim_begun_ns + round(end_s * NS_PER_S),
    )


def dts_of(found: Footage) -> list[list[int]]:
    return [[packet.dts for packet in part.packets] for part in found.parts]


def test_two_runs_behind_a_hanging_disk_are_waited_for(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    """The clock was set while nothing could be written: no row speaks of the second run."""
    begun_ns = sim.utc_ns()
    packets = list(footage.stamped(footage.numbered(200), "", begun_ns))
    late = [replace(packet, utc_ns=packet.utc_ns + 2 * NS_PER_S) for packet in packets]
    desk = Desk(store, tmp_path, Script([*packets[:95], *late[95:150]]), sim)
    wanted = span(begun_ns, 3.0, 16.0)
    hanging = threading.Event()
    settled = []

    def each(count: int) -> None:
        if count == 45:
            wait_for(lambda: len(segments(store)) == 3)
            store.submit(lambda connection: hanging.wait(20))
        elif count == 150:
            settled.append(gather(store, tmp_path, desk.ring, wanted).is_settled)
            hanging.set()
            wait_for(lambda: gather(store, tmp_path, desk.ring, wanted).is_settled)
            settled.append(dts_of(gather(store, tmp_path, desk.ring, wanted)))

    with pytest.raises(SourceLost):
        desk.record(1000, each)
    whole = [
        [packet.dts for packet in packets[30:100]],
        [packet.dts for packet in packets[100:140]],
    ]
    assert settled == [False, whole]
    assert dts_of(gather(store, tmp_path, Ring(1, 1), wanted)) == whole


def test_run_that_no_row_speaks_of_yet_is_waited_for(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    begun_ns = sim.utc_ns()
    ring = Ring(20, 1 << 24)
    for packet in footage.stamped(footage.numbered(60), "9-1-a", begun_ns):
        ring.put(packet)
    found = gather(store, tmp_path, ring, span(begun_ns, 1, 4))
    assert (found.parts, found.is_settled) == ((), False)
    later = gather(store, tmp_path, ring, span(begun_ns, 60, 64))
    assert (later.parts, later.is_settled) == ((), True)


def test_tail_has_the_codec_of_its_run(store: Store, tmp_path: Path, sim: SimClock) -> None:
    begun_ns = sim.utc_ns()
    path = footage.numbered(30, codec="libx265")
    source = Script(list(footage.stamped(path, "", begun_ns)))
    source.info = footage.take(path).info
    desk = Desk(store, tmp_path, source, sim, segment_s=60)
    made = {}

    def each(count: int) -> None:
        if count == 30:
            wait_for(lambda: segments(store) != [])
            made["found"] = gather(store, tmp_path, desk.ring, span(begun_ns, 0.5, 2.5))

    with pytest.raises(SourceLost):
        desk.record(1000, each)
    assert [part.codec for part in made["found"].parts] == ["hevc"]
    assert made["found"].is_settled


def test_ring_that_lost_what_is_not_closed_is_not_settled(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    begun_ns = sim.utc_ns()
    desk = Desk(store, tmp_path, looped(footage.numbered(200), sim), sim, segment_s=9, ring_s=2)
    made: dict[str, bool] = {}

    def each(count: int) -> None:
        if count == 80:
            wait_for(lambda: segments(store) != [])
            for name, wanted in (("early", (1, 6)), ("late", (7, 7.9)), ("far", (90, 95))):
                found = gather(store, tmp_path, desk.ring, span(begun_ns, *wanted))
                made[name] = found.is_settled

    desk.record(120, each)
    assert made == {"early": False, "late": True, "far": True}
    assert gather(store, tmp_path, desk.ring, span(begun_ns, 1, 6)).is_settled


def test_every_span_is_whole_at_every_moment(store: Store, tmp_path: Path, sim: SimClock) -> None:
    begun_ns = sim.utc_ns()
    packets = list(footage.stamped(footage.numbered(200), "", begun_ns))
    desk = Desk(store, tmp_path, Script(packets), sim, segment_s=1)
    wrong: list[object] = []
    taken: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            newest = desk.ring.newest_utc_ns
            if newest is None or newest < begun_ns + 4 * NS_PER_S:
                continue
            wanted = Span(CAMERA, newest - 3 * NS_PER_S, newest)
            found = gather(store, tmp_path, desk.ring, wanted)
            if not found.is_settled:
                continue
            seen = dts_of(found)
            steps = {right - left for part in seen for left, right in pairwise(part)}
            taken.append(len(seen[0]))
            if len(seen) != 1 or len(steps) != 1 or not 30 <= len(seen[0]) <= 40:
                wrong.append(seen)

    looker = threading.Thread(target=look)
    looker.start()
    with pytest.raises(SourceLost):
        desk.record(1000, lambda count: threading.Event().wait(0.008))
    done.set()
    looker.join()
    assert wrong == []
    assert len(taken) > 20


def test_deleted_file_in_the_middle_is_a_break_and_missing(store: Store, tmp_path: Path) -> None:
    box = Box(store, tmp_path)
    box.desk.record(150)
    (tmp_path / segments(store)[2]["path"]).unlink()
    clip_id = box.want(2, 9)
    box.step()
    assert box.numbers(clip_id, 1) == list(range(20, 40))
    assert box.numbers(clip_id, 2) == list(range(60, 90))
    clip = box.clip(clip_id)
    assert clip["missing_ms"] == pytest.approx(2000, abs=150)
    assert clip["reason"] == "the camera sent nothing"
    box.check(clip_id)


def test_file_that_lost_its_end_is_missing_there(store: Store, tmp_path: Path) -> None:
    box = Box(store, tmp_path, segment_s=5.0)
    box.desk.record(150)
    path = tmp_path / segments(store)[0]["path"]
    content = path.read_bytes()
    hole = content.index(b"mdat") + len(content) // 3
    path.write_bytes(
        content[:hole] + bytes(len(content) // 4) + content[hole + len(content) // 4 :]
    )
    clip_id = box.want(1, 9)
    box.step()
    clip = box.clip(clip_id)
    assert clip["state"] == "sealed"
    assert 2500 < clip["missing_ms"] < 4000
    assert box.numbers(clip_id)[-40:] == list(range(50, 90))


def test_unreadable_file_is_left_out_after_ten_minutes_and_told(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(store, tmp_path)
    box.desk.record(150)
    (tmp_path / segments(store)[2]["path"]).write_bytes(b"rubbish")
    clip_id = box.want(2, 9)
    for _ in range(5):
        box.step()
        box.clock.advance(30)
    assert box.clip(clip_id)["state"] == "wanted"
    box.clock.advance(LENIENT_NS / NS_PER_S)
    box.step()
    clip = box.clip(clip_id)
    assert (clip["state"], caplog.text.count("clip not made")) == ("sealed", 1)
    assert "left out of a clip" in caplog.text
    assert clip["missing_ms"] == pytest.approx(2000, abs=150)
    assert box.numbers(clip_id, 2) == list(range(60, 90))
    box.check(clip_id)


def test_clip_that_never_settles_is_made_of_what_there_is(store: Store, tmp_path: Path) -> None:
    """A segment that the disk gave up stays open until writing goes on: nobody waits for ever."""
    box = Box(store, tmp_path)
    box.desk.record(100)
    store.write(
        lambda connection: (
            connection.execute(
                "UPDATE segment SET state = 'open', run = 'old' WHERE id = 3"
            ).rowcount
        )
    )
    clip_id = box.want(2, 9)
    box.step(box.make_maker(Ring(20, 1 << 24)))
    box.clock.advance(60)
    box.step(box.make_maker(Ring(20, 1 << 24)))
    assert box.clip(clip_id)["state"] == "wanted"
    box.clock.advance(UNSETTLED_NS / NS_PER_S)
    box.step(box.make_maker(Ring(20, 1 << 24)))
    assert box.clip(clip_id)["state"] == "sealed"
    assert box.clip(clip_id)["missing_ms"] == pytest.approx(2000, abs=150)


def test_reason_of_a_gap_is_the_reason_of_the_clip(store: Store, tmp_path: Path) -> None:
    begun_ns = SimClock().utc_ns()
    sessions: list[list[Packet] | SourceLost] = [
        list(footage.stamped(footage.numbered(60), "", begun_ns)),
        SourceLost("camera gate: no route"),
        list(footage.stamped(footage.numbered(60), "", begun_ns + 8 * NS_PER_S)),
    ]
    box = Box(store, tmp_path, Script(*sessions))
    for _ in range(3):
        with pytest.raises(SourceLost):
            box.desk.record(1000)
    assert [row["reason"] for row in gaps(store)] == ["camera gate: no route"]
    clip_id, whole_id = box.want(4, 11), box.want(1, 5)
    box.clock.advance(60)
    box.step()
    assert box.clip(clip_id)["reason"] == "camera gate: no route"
    assert (box.clip(whole_id)["missing_ms"], box.clip(whole_id)["reason"]) == (0, "")


def test_refused_database_is_told(store: Store, tmp_path: Path) -> None:
    store.close()
    (tmp_path / "outpost.db").unlink()
    with pytest.raises(StorageError):
        gather(store, tmp_path, Ring(1, 1), Span(CAMERA, 0, 1))


def test_two_clips_share_their_packets(store: Store, tmp_path: Path) -> None:
    box = Box(store, tmp_path)
    box.desk.record(150)
    one, two = box.want(2, 8), box.want(5, 11)
    box.step()
    assert box.numbers(one) == list(range(20, 80))
    assert box.numbers(two) == list(range(50, 110))
    sources = [{item["sha256"] for item in box.manifest(clip)["sources"]} for clip in (one, two)]
    assert len(sources[0] & sources[1]) >= 1
    assert len(rows(store, "SELECT * FROM transfer")) == 4


def test_a_box_that_begins_in_1970_seals_its_first_clip_too(store: Store, tmp_path: Path) -> None:
    packets = footage.stamped(footage.numbered(60), "", -NS_PER_S // 2)
    box = Box(store, tmp_path, Script(packets))
    box.begun_ns = 0
    with pytest.raises(SourceLost):
        box.desk.record(1000)
    clip_id = box.want(0.5, 3)
    box.clock.advance(60)
    box.step()
    assert box.clip(clip_id)["state"] == "sealed"
    assert box.manifest(clip_id)["sources"][0]["start_utc_ms"] == 0
    box.check(clip_id)
