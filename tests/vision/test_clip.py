"""The clip maker: exact footage, sealed once, made again after a crash, honest about holes."""

import itertools
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core import wire
from agent.core.clock import NS_PER_S, SimClock
from agent.core.errors import SourceLost
from agent.core.model import Event, EventState, Message
from agent.core.store import Store
from agent.evidence import custody, manifest, verify
from agent.evidence.keys import DeviceKey
from agent.vision import lines
from agent.vision.clip import SILENT_NS, ClipMaker, Custodian
from agent.vision.disks import Disks
from agent.vision.recovery import recover
from agent.vision.ring import Ring
from tests import footage
from tests.vision.recording import CAMERA, Desk, looped, rows, segments
from tests.vision.test_recorder import Script, wait_for
from tests.vision.test_recovery import note

pytestmark = pytest.mark.video

TENTH_NS = NS_PER_S // 10


class Box:
    """A recorder, a key and a clip maker over one store."""

    def __init__(self, store: Store, folder: Path, source: object | None = None, **config) -> None:
        self.store, self.folder = store, folder
        self.clock = SimClock()
        self.begun_ns = self.clock.utc_ns()
        source = source or looped(footage.numbered(200), self.clock)
        self.desk = Desk(store, folder, source, self.clock, **config)
        self.key = DeviceKey.load_or_create(folder / "keys" / "device.key")
        self.maker = self.make_maker(self.desk.ring)
        self._ids = itertools.count(1)

    def make_maker(self, ring: Ring) -> ClipMaker:
        custodian = Custodian(
            device="cam-1",
            site="yard",
            state_dir=self.folder,
            store=self.store,
            key=self.key,
            clock=self.clock,
            clock_state=lambda: {"source": "none", "error_ms": -1},
        )
        self.told: list[Message] = []
        return ClipMaker(
            custodian, {CAMERA: ring}, lambda _connection, message: self.told.append(message)
        )

    def want(self, start_s: float, end_s: float, camera: str = CAMERA, snapshot: str = "") -> str:
        """Want a clip of a span in seconds since the start; gives its id."""
        number = next(self._ids)
        clip_id, event_id = f"{number:032x}", f"{1000 + number:032x}"
        start_ns = self.begun_ns + round(start_s * NS_PER_S)
        end_ns = self.begun_ns + round(end_s * NS_PER_S)
        event = Event(
            event_id=event_id,
            camera=camera,
            kind="zone_enter",
            rule="in",
            state=EventState.CLOSED,
            start_utc_ns=start_ns,
            end_utc_ns=end_ns,
            label="person",
            score=0.7,
            track_ids=(1,),
            measured={},
            model="ssd@0",
        )

        def change(connection) -> None:
            connection.execute(
                "INSERT INTO event VALUES (?, ?, 'zone_enter', 'in', 'closed', ?, ?, ?)",
                (event_id, camera, start_ns, end_ns, lines.to_line(event)),
            )
            connection.execute(
                "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state, snapshot,"
                " track_path) VALUES (?, ?, ?, ?, ?, 'wanted', ?, ?)",
                (clip_id, event_id, camera, start_ns, end_ns, snapshot, "[[1,0.5,0.5]]"),
            )

        self.store.write(change)
        return clip_id

    def step(self, maker: ClipMaker | None = None) -> None:
        """Let the maker look once at all that is wanted."""
        stop = threading.Event()
        waiting = len(rows(self.store, "SELECT id FROM clip WHERE state = 'wanted'"))
        count = itertools.count()

        def progress() -> None:
            if next(count) >= waiting:
                stop.set()

        (maker or self.maker).run(stop, progress)

    def clip(self, clip_id: str) -> dict:
        return rows(self.store, "SELECT * FROM clip WHERE id = ?", clip_id)[0]

    def numbers(self, clip_id: str, number: int = 1) -> list[int]:
        return footage.numbers(self.folder / "clips" / clip_id / f"clip-{number}.mp4")

    def manifest(self, clip_id: str) -> dict:
        text = (self.folder / "clips" / clip_id / "manifest.json").read_text()
        return manifest.read(json.loads(text), self.key.public)

    def check(self, clip_id: str) -> None:
        """The folder verifies with the public key alone."""
        report = verify.verify(self.folder / "clips" / clip_id, self.key.public)
        assert report.ok, report.text()


@pytest.fixture
def box(store: Store, tmp_path: Path) -> Box:
    return Box(store, tmp_path)


def test_clip_of_segments_and_ring_has_exactly_the_packets(box: Box) -> None:
    made = {}

    def each(count: int) -> None:
        if count == 131:  # the newest segment is still open: its part comes from the ring
            wait_for(lambda: len(segments(box.store)) == 7)
            made["id"] = box.want(5.05, 12.95)
            made["open"] = segments(box.store)[-1]["state"]
            box.step()

    box.desk.record(140, each)
    clip = box.clip(made["id"])
    assert made["open"] == "open"
    assert (clip["state"], clip["missing_ms"]) == ("sealed", 0)
    assert box.numbers(made["id"]) == list(range(50, 130))
    assert footage.is_faststart(box.folder / clip["path"] / "clip-1.mp4")
    (told,) = box.told
    wire.check("event", told.body)
    assert (told.body["state"], told.body["clip"]["clip_id"]) == ("sealed", made["id"])


@pytest.mark.parametrize(
    ("start_s", "end_s", "first", "last"),
    [
        (2.0, 4.0, 20, 39),
        (1.95, 4.0, 10, 39),
        (2.0, 4.01, 20, 40),
        (0.0, 0.5, 0, 4),
        (9, 10, 90, 99),
    ],
)
def test_no_picture_is_missing_or_twice_at_a_boundary(
    box: Box, start_s: float, end_s: float, first: int, last: int
) -> None:
    box.desk.record(120)
    clip_id = box.want(start_s, end_s)
    box.step()
    assert box.numbers(clip_id) == list(range(first, last + 1))
    assert box.clip(clip_id)["missing_ms"] == 0


def test_clip_waits_for_its_end(box: Box) -> None:
    clip_id = box.want(2, 9)
    box.desk.record(80)
    box.step()
    assert box.clip(clip_id)["state"] == "wanted"
    box.desk.record(100)
    box.step()
    assert box.clip(clip_id)["state"] == "sealed"


def test_silent_source_gets_what_there_is_and_the_rest_is_said_to_be_missing(box: Box) -> None:
    box.desk.record(60)
    clip_id = box.want(4, 9)
    box.step()
    assert box.clip(clip_id)["state"] == "wanted"
    box.clock.step_wall(-3600)  # holds up no clip
    box.maker = box.make_maker(box.desk.ring)  # nor does a start after that
    box.step()
    box.clock.advance(60 + 3.2 + SILENT_NS / NS_PER_S)
    box.step()
    clip = box.clip(clip_id)
    assert clip["state"] == "sealed"
    assert clip["missing_ms"] == pytest.approx(3000, abs=150)
    assert box.manifest(clip_id)["missing_ms"] == clip["missing_ms"]
    assert box.numbers(clip_id) == list(range(40, 60))


def test_nothing_recorded_is_empty_with_the_reason(box: Box) -> None:
    box.desk.record(30)
    clip_id = box.want(60, 70)
    strange = box.want(60, 65, camera="yard")
    box.clock.advance(100)
    box.step()
    for wanted, span_ms in ((clip_id, 10_000), (strange, 5_000)):
        clip = box.clip(wanted)
        assert (clip["state"], clip["missing_ms"]) == ("empty", span_ms)
        assert clip["reason"] == "nothing was recorded in its span"
        assert not (box.folder / "clips" / wanted).exists()
        assert not (box.folder / "work" / wanted).exists()
    assert rows(box.store, "SELECT * FROM transfer") == []
    kinds = [row["kind"] for row in rows(box.store, "SELECT kind FROM custody")]
    assert kinds.count("clip.empty") == 2


def test_a_picture_without_footage_is_handed_over_all_the_same(box: Box) -> None:
    box.desk.record(30)
    (box.folder / "spool").mkdir(exist_ok=True)
    (box.folder / "spool" / "one.jpg").write_bytes(b"the only picture")
    clip_id = box.want(60, 70, snapshot="spool/one.jpg")
    box.clock.advance(100)
    box.step()
    clip = box.clip(clip_id)
    assert (clip["state"], clip["missing_ms"]) == ("sealed", 10_000)
    assert [item["name"] for item in box.manifest(clip_id)["files"]] == [
        "snapshot.jpg",
        "path.json",
    ]
    assert (box.folder / clip["path"] / "snapshot.jpg").read_bytes() == b"the only picture"
    assert len(rows(box.store, "SELECT * FROM transfer")) == 2


def test_break_makes_two_files_and_the_hole_is_missing(store: Store, tmp_path: Path) -> None:
    begun = SimClock().utc_ns()
    sessions = [
        list(footage.stamped(footage.numbered(60), "", begun)),
        list(footage.stamped(footage.numbered(60), "", begun + 8 * NS_PER_S)),
    ]
    box = Box(store, tmp_path, Script(*sessions))
    for _ in range(2):
        with pytest.raises(SourceLost):
            box.desk.record(1000)
    clip_id = box.want(4, 11)
    box.clock.advance(60)
    box.step()
    assert box.numbers(clip_id, 1) == list(range(40, 60))
    assert box.numbers(clip_id, 2) == list(range(30))
    assert box.clip(clip_id)["missing_ms"] == pytest.approx(2000, abs=10)
    box.check(clip_id)


def test_left_out_groups_are_a_hole_too(store: Store, tmp_path: Path) -> None:
    """The disk was too slow in the middle of a run: two files, and the time between is missing."""
    packets = list(footage.stamped(footage.numbered(60), "", SimClock().utc_ns()))
    box = Box(store, tmp_path, Script([*packets[:20], *packets[40:]]))
    with pytest.raises(SourceLost):
        box.desk.record(1000)
    values = (packets[20].utc_ns, packets[40].utc_ns)
    store.write(
        lambda connection: (
            connection.execute(
                "INSERT INTO gap (camera, from_utc_ns, to_utc_ns, packets, reason)"
                " VALUES ('gate', ?, ?, 20, 'the disk is too slow')",
                values,
            ).rowcount
        )
    )
    clip_id = box.want(0, 5.5)
    box.step(box.make_maker(Ring(1, 1)))
    assert box.clip(clip_id)["state"] == "wanted"  # an empty ring: silent only after a while
    box.clock.advance(60)
    box.step(box.make_maker(Ring(1, 1)))
    assert box.numbers(clip_id, 1) == list(range(20))
    assert box.numbers(clip_id, 2) == list(range(40, 55))
    assert box.clip(clip_id)["missing_ms"] == pytest.approx(2000, abs=10)


def test_restart_makes_the_clip_from_recovered_segments(store: Store, tmp_path: Path) -> None:
    box = Box(store, tmp_path)

    clip_id = box.want(3, 7)
    box.desk.record(100)
    closed = segments(store)
    last = closed[-1]
    store.write(  # as if the recorder had been killed in its last segment
        lambda connection: (
            connection.execute(
                "UPDATE segment SET state = 'open', end_utc_ns = start_utc_ns, packets = 0,"
                " sha256 = '', last_dts = first_dts WHERE id >= ?",
                (closed[3]["id"],),
            ).rowcount
        )
    )
    assert recover(store, Disks(tmp_path, store, SimClock()), note).segments == len(closed) - 3
    assert segments(store)[-1]["last_dts"] == last["last_dts"]
    box.clock.advance(60)
    box.step(box.make_maker(Ring(20, 1 << 20)))
    assert box.clip(clip_id)["missing_ms"] == 0
    assert box.numbers(clip_id) == list(range(30, 70))
    box.check(clip_id)


def test_segments_that_close_while_the_clip_is_made_leave_no_hole(box: Box) -> None:
    """Clips are made all the time while segments close: every one of them is whole."""
    wanted: list[str] = []

    def each(count: int) -> None:
        if count > 30 and count % 3 == 0:
            wanted.append(box.want((count - 25) / 10, (count - 2) / 10))
            box.step()

    box.desk.record(190, each)
    box.clock.advance(60)
    box.step()
    assert len(wanted) > 50
    for clip_id in wanted:
        clip = box.clip(clip_id)
        assert (clip["state"], clip["missing_ms"]) == ("sealed", 0)
        seen = box.numbers(clip_id)
        begin = (clip["start_utc_ns"] - box.begun_ns) // TENTH_NS
        end = (clip["end_utc_ns"] - box.begun_ns) // TENTH_NS
        assert seen == list(range(begin // 10 * 10, end))


def test_ring_that_does_not_reach_back_waits_for_the_segment(store: Store, tmp_path: Path) -> None:
    box = Box(store, tmp_path, segment_s=8.0, ring_s=2.0)
    made = {}

    def each(count: int) -> None:
        if count == 70:
            wait_for(lambda: segments(store) != [])
            made["id"] = box.want(1, 6.5)
            box.step()
            made["state"] = box.clip(made["id"])["state"]

    box.desk.record(100, each)
    assert made["state"] == "wanted"
    box.step()
    assert box.numbers(made["id"]) == list(range(10, 65))


def test_everything_is_sealed_together(box: Box) -> None:
    (box.folder / "spool").mkdir()
    (box.folder / "spool" / "e.jpg").write_bytes(b"\xff\xd8 picture")
    box.desk.record(100)
    clip_id = box.want(2, 6, snapshot="spool/e.jpg")
    box.step()
    document = box.manifest(clip_id)
    folder = box.folder / "clips" / clip_id
    assert {item["name"]: item["role"] for item in document["files"]} == {
        "clip-1.mp4": "clip",
        "snapshot.jpg": "snapshot",
        "path.json": "path",
    }
    assert (folder / "snapshot.jpg").read_bytes() == b"\xff\xd8 picture"
    assert not (box.folder / "spool" / "e.jpg").exists()
    path = json.loads((folder / "path.json").read_text())
    assert path["foot"] == [[1, 0.5, 0.5]]
    assert path["event_id"] == document["event_ids"][0]
    transfers = rows(box.store, "SELECT * FROM transfer WHERE clip_id = ?", clip_id)
    assert {row["name"]: row["sha256"] for row in transfers} == {
        item["name"]: item["sha256"] for item in document["files"]
    }
    assert all((box.folder / row["path"]).is_file() for row in transfers)
    sealed = rows(box.store, "SELECT * FROM custody WHERE kind = 'clip.sealed'")
    assert [row["subject"] for row in sealed] == [clip_id]
    assert (document["camera"], document["device"], document["model"]) == (CAMERA, "cam-1", "ssd@0")
    box.check(clip_id)


def test_snapshots_of_sealed_clips_leave_the_spool_and_no_others(box: Box) -> None:
    spool = box.folder / "spool"
    spool.mkdir()
    for name in ("sealed", "wanted", "reported"):
        (spool / f"{name}.jpg").write_bytes(b"picture")
    box.desk.record(100)
    sealed = box.want(2, 6, snapshot="spool/sealed.jpg")
    box.step()
    (spool / "sealed.jpg").write_bytes(b"as if killed before it was taken out")
    waiting = box.want(50, 60, snapshot="spool/wanted.jpg")
    box.step()
    assert (box.clip(sealed)["state"], box.clip(waiting)["state"]) == ("sealed", "wanted")
    assert {path.name for path in spool.iterdir()} == {"wanted.jpg", "reported.jpg"}


def test_missing_snapshot_does_not_stop_the_clip(box: Box) -> None:
    box.desk.record(60)
    clip_id = box.want(2, 4, snapshot="spool/gone.jpg")
    box.step()
    assert [item["name"] for item in box.manifest(clip_id)["files"]] == ["clip-1.mp4", "path.json"]


def test_killed_before_the_transaction_is_made_again(box: Box) -> None:
    box.desk.record(100)
    clip_id = box.want(2, 6)
    box.step()
    folder = box.folder / "clips" / clip_id
    (folder / "stale.txt").write_text("of the killed attempt")
    work = box.folder / "work" / clip_id
    shutil.copytree(folder, work)

    def undo(connection) -> None:
        connection.execute("UPDATE clip SET state = 'wanted', path = '' WHERE id = ?", (clip_id,))
        connection.execute("DELETE FROM transfer")
        connection.execute("DELETE FROM custody")

    box.store.write(undo)
    box.step()
    assert box.clip(clip_id)["state"] == "sealed"
    assert not (folder / "stale.txt").exists()
    assert not work.exists()
    assert box.numbers(clip_id) == list(range(20, 60))
    assert len(rows(box.store, "SELECT * FROM transfer")) == 2
    box.check(clip_id)


def test_sealed_clip_is_not_made_twice(box: Box) -> None:
    box.desk.record(100)
    clip_id = box.want(2, 6)
    box.step()
    before = (box.folder / "clips" / clip_id / "manifest.json").read_bytes()
    box.step()
    assert (box.folder / "clips" / clip_id / "manifest.json").read_bytes() == before
    assert len(rows(box.store, "SELECT * FROM transfer")) == 2


def test_one_bad_clip_does_not_stop_the_others_and_is_tried_again(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.desk.record(150)
    damaged = box.folder / segments(box.store)[1]["path"]
    whole = damaged.read_bytes()
    damaged.write_bytes(b"rubbish")
    bad, good = box.want(2, 4), box.want(6, 8)
    box.step()
    assert (box.clip(bad)["state"], box.clip(good)["state"]) == ("wanted", "sealed")
    for _ in range(3):
        box.clock.advance(30)
        box.step()
    assert caplog.text.count("clip not made") == 1
    damaged.write_bytes(whole)
    box.clock.advance(30)
    box.step()
    assert box.numbers(bad) == list(range(20, 40))


def test_blocked_folder_is_tried_again(box: Box) -> None:
    box.desk.record(100)
    clip_id = box.want(2, 6)
    (box.folder / "clips").write_text("in the way")
    box.step()
    assert box.clip(clip_id)["state"] == "wanted"
    (box.folder / "clips").unlink()
    box.clock.advance(30)
    box.step()
    assert box.clip(clip_id)["state"] == "sealed"


def test_camera_offset_is_in_the_manifest(store: Store, tmp_path: Path) -> None:
    packets = [
        replace(packet, camera_utc_ns=packet.utc_ns - 3600 * NS_PER_S)
        for packet in footage.stamped(footage.numbered(60), "", SimClock().utc_ns())
    ]
    box = Box(store, tmp_path, Script(packets))
    with pytest.raises(SourceLost):
        box.desk.record(1000)
    clip_id = box.want(2, 4)
    box.clock.advance(60)
    box.step()
    assert box.manifest(clip_id)["camera_offset_ms"] == -3_600_000


def test_custody_chain_holds_over_all_of_it(box: Box) -> None:
    box.desk.record(150)
    for second in range(2, 10, 2):
        box.want(second, second + 2)
    box.want(500, 510)
    box.clock.advance(600)
    box.step()
    entries = rows(box.store, "SELECT * FROM custody ORDER BY seq")
    assert len(entries) == 5
    assert entries[0]["previous"] == custody.NO_HASH
    for left, right in itertools.pairwise(entries):
        assert right["previous"] == left["hash"]
