"""The recording loop: what it chooses, and that each deletion leaves a record."""

import hashlib
import json
import subprocess
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import NS_PER_S, SimClock
from agent.core.store import Store
from agent.evidence import custody
from agent.vision import room
from agent.vision.config import RecordConfig
from agent.vision.disks import Disks
from agent.vision.footage import Span
from agent.vision.hold import Keepsakes, Word
from agent.vision.loop import NS_PER_DAY, Bounds, Piece, Protection, RecordingLoop, choose
from agent.vision.recovery import recover
from tests.vision.recording import mount_tmpfs, rows, tmpfs

small_disk = pytest.fixture(tmpfs)

START_NS = 1_700_000_000 * NS_PER_S
EPOCH = START_NS


def piece(number: int, camera: str = "gate", size: int = 100) -> Piece:
    return Piece(number, camera, EPOCH + number * 10, EPOCH + number * 10 + 10, size)


def test_nothing_is_chosen_while_there_is_room() -> None:
    assert choose([piece(number) for number in range(5)], [], Bounds(500)) == ()


def test_oldest_go_first_until_there_is_room() -> None:
    pieces = [piece(number) for number in (3, 1, 4, 0, 2)]
    assert [gone.segment_id for gone in choose(pieces, [], Bounds(250))] == [0, 1, 2]


def test_old_ones_go_whatever_the_room() -> None:
    pieces = [piece(number) for number in range(5)]
    assert [gone.segment_id for gone in choose(pieces, [], Bounds(10_000, EPOCH + 25))] == [0, 1]


def test_more_goes_when_something_must() -> None:
    pieces = [piece(number) for number in range(5)]
    spare = Bounds(350, spare_bytes=100)
    assert [gone.segment_id for gone in choose(pieces, [], spare)] == [0, 1, 2]
    assert choose(pieces[:3], [], spare) == ()


def test_files_are_bounded_as_bytes_are() -> None:
    pieces = [piece(number) for number in range(5)]
    few = Bounds(10_000, max_files=3)
    assert [gone.segment_id for gone in choose(pieces, [], few)] == [0, 1]


def test_protected_ones_stay_and_younger_ones_go_instead() -> None:
    pieces = [piece(number) for number in range(5)]
    held = [Protection("gate", EPOCH + 5, EPOCH + 15)]
    assert [gone.segment_id for gone in choose(pieces, held, Bounds(300))] == [2, 3]
    other = [Protection("yard", EPOCH + 5, EPOCH + 15)]
    assert [gone.segment_id for gone in choose(pieces, other, Bounds(300))] == [0, 1]


_PIECES = st.lists(
    st.builds(
        lambda start, length, camera, size: (EPOCH + start, EPOCH + start + length, camera, size),
        st.integers(0, 1000),
        st.integers(1, 100),
        st.sampled_from(["gate", "yard"]),
        st.integers(0, 1000),
    ),
    max_size=30,
)
_HELD = st.lists(
    st.builds(
        lambda camera, start, length: Protection(camera, EPOCH + start, EPOCH + start + length),
        st.sampled_from(["gate", "yard"]),
        st.integers(0, 1000),
        st.integers(0, 100),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(_PIECES, _HELD, st.integers(0, 8000), st.integers(0, 1000))
def test_choice_keeps_its_promises(found, held, max_bytes: int, oldest: int) -> None:
    pieces = [
        Piece(number, camera, start, end, size)
        for number, (start, end, camera, size) in enumerate(found)
    ]
    gone = choose(pieces, held, Bounds(max_bytes, EPOCH + oldest))
    stay = [piece for piece in pieces if piece not in gone]

    def is_held(piece: Piece) -> bool:
        return any(
            piece.camera == span.camera
            and piece.start_utc_ns <= span.end_utc_ns
            and piece.end_utc_ns >= span.start_utc_ns
            for span in held
        )

    assert not any(is_held(piece) for piece in gone)
    assert list(gone) == sorted(gone, key=lambda piece: piece.segment_id)
    free = [piece for piece in stay if not is_held(piece)]
    assert all(piece.end_utc_ns >= EPOCH + oldest for piece in free)
    assert sum(piece.size_bytes for piece in stay) <= max_bytes or free == []
    by_room = [piece for piece in gone if piece.end_utc_ns >= EPOCH + oldest]
    if by_room and free:
        newest_gone = max(piece.segment_id for piece in by_room)
        assert newest_gone < min(piece.segment_id for piece in free)


class Yard:
    """A store with ten closed segments of 100 kB, ten seconds each, and a loop over them."""

    def __init__(self, store: Store, folder: Path, **config) -> None:
        self.store, self.folder = store, folder
        self.clock = SimClock(START_NS + 100 * NS_PER_S)
        for number in range(10):
            self.add(number)
        self.disks = Disks(folder, store, self.clock)
        self.loop = RecordingLoop(store, self.disks, self.clock, RecordConfig(**config), self._note)

    def _note(self, connection, kind, subject, detail) -> object:
        return custody.append(connection, self.clock, kind, subject, detail)

    def add(self, number: int, state: str = "closed") -> None:
        path = Path("segments") / "gate" / f"{number}.mp4"
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(bytes(100_000))
        start = START_NS + number * 10 * NS_PER_S
        values = (str(path), state, start, start + 10 * NS_PER_S - 1, 100_000, f"{number:064x}")
        self.store.write(
            lambda connection: (
                connection.execute(
                    "INSERT INTO segment (camera, run, path, state, start_utc_ns, end_utc_ns,"
                    " size_bytes, sha256, first_dts, last_dts, time_base_num, time_base_den,"
                    " codec, width_px, height_px, extradata)"
                    " VALUES ('gate', 'r', ?, ?, ?, ?, ?, ?, 0, 1, 1, 90000, 'h264', 4, 4, x'')",
                    values,
                ).rowcount
            )
        )

    def left(self) -> list[int]:
        files = sorted(int(path.stem) for path in (self.folder / "segments").rglob("*.mp4"))
        known = rows(self.store, "SELECT path FROM segment ORDER BY id")
        assert files == [int(Path(row["path"]).stem) for row in known]
        return files


def test_file_row_and_record_go_together(store: Store, tmp_path: Path) -> None:
    yard = Yard(store, tmp_path, keep_max_gb=0.00051)
    assert yard.loop.tidy() == 5
    assert yard.left() == [5, 6, 7, 8, 9]
    (entry,) = rows(store, "SELECT * FROM custody")
    assert entry["kind"] == "segments.deleted"
    detail = json.loads(entry["detail"])
    listing = "".join(f"{number:064x}  segments/gate/{number}.mp4\n" for number in range(5))
    assert detail == {
        "reason": "recording loop",
        "segments": 5,
        "size_bytes": 500_000,
        "listing_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "cameras": {
            "gate": {
                "from_utc_ms": START_NS // 1_000_000,
                "to_utc_ms": (START_NS + 50 * NS_PER_S - 1) // 1_000_000,
                "segments": 5,
            }
        },
    }
    assert yard.loop.tidy() == 0


def test_days_run_out(store: Store, tmp_path: Path) -> None:
    yard = Yard(store, tmp_path, keep_days=1)
    yard.clock.advance(NS_PER_DAY / NS_PER_S - 50)
    assert yard.loop.tidy() == 0  # five are too old, and wait for others to go with
    yard.clock.advance(610 - 45)
    assert yard.loop.tidy() == 10
    assert len(rows(store, "SELECT * FROM custody")) == 1


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ('{"event":{"pre_s":4.0}}', [1, 2, 4, 8, 9]),
        ('{"event":{"pre_s":5.5}}', [1, 2, 4, 7, 8, 9]),
        ("{}", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("rubbish", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_wanted_clips_and_open_events_are_protected(
    store: Store, tmp_path: Path, body: str, left: list[int]
) -> None:
    yard = Yard(store, tmp_path, keep_max_gb=0.0001)
    event = "INSERT INTO event VALUES (?, 'gate', 'k', 'r', ?, ?, ?, ?)"
    clip = (
        "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state)"
        " VALUES (?, ?, 'gate', ?, ?, ?)"
    )
    times = [START_NS + second * NS_PER_S for second in (12, 28, 41, 48, 85)]

    def change(connection) -> None:
        connection.execute(event, ("e1", "closed", times[0], times[1], "{}"))
        connection.execute(event, ("e2", "closed", times[2], times[3], "{}"))
        connection.execute(event, ("e3", "open", times[4], None, body))
        connection.execute(clip, ("c1", "e1", times[0], times[1], "wanted"))
        connection.execute(clip, ("c2", "e2", times[2], times[3], "sealed"))

    store.write(change)
    yard.loop.tidy()
    assert yard.left() == left


@pytest.mark.parametrize("state", ["open", "damaged"])
def test_unsettled_segments_are_left_alone(store: Store, tmp_path: Path, state: str) -> None:
    yard = Yard(store, tmp_path, keep_max_gb=0.00005)
    yard.add(10, state)
    yard.loop.tidy()
    assert yard.left() == [10]


def test_room_is_made_on_a_disk_that_fills_up(store: Store, small_disk: Path) -> None:
    yard = Yard(store, small_disk)
    assert yard.loop.tidy() == 0
    disk = room.of(small_disk)
    wanted_bytes = disk.reserve_bytes - 250_000  # two and a half segments too few
    with (small_disk / "filler").open("wb") as stream:
        stream.write(bytes(disk.free_bytes - wanted_bytes))
    assert yard.loop.tidy() == 10  # three and a quarter of the reserve more, so as not to nibble
    assert yard.left() == []
    assert room.of(small_disk).free_bytes >= disk.reserve_bytes
    assert yard.loop.tidy() == 0


def test_missing_file_does_not_stop_the_loop(store: Store, tmp_path: Path) -> None:
    yard = Yard(store, tmp_path, keep_max_gb=0.00051)
    (tmp_path / "segments" / "gate" / "0.mp4").unlink()
    assert yard.loop.tidy() == 5
    assert yard.left() == [5, 6, 7, 8, 9]


def test_worker_tidies_and_stops(store: Store, tmp_path: Path) -> None:
    yard = Yard(store, tmp_path, keep_max_gb=0.00051)
    stop = threading.Event()
    beats = []

    def progress() -> None:
        beats.append(yard.clock.mono_ns())
        if len(beats) > 100:
            stop.set()

    yard.loop.run(stop, progress)
    assert yard.left() == [5, 6, 7, 8, 9]
    assert max(right - left for left, right in pairwise(beats)) <= NS_PER_S


@pytest.mark.parametrize("step_days", [2000, -19_000, 2])
def test_clock_that_was_set_costs_no_recording(
    store: Store, tmp_path: Path, step_days: int
) -> None:
    """Set by a slip of the hand, or to 1970, and mended within the hour."""
    yard = Yard(store, tmp_path, keep_days=1)
    yard.clock.advance(7200)
    yard.loop.tidy()
    step_s = step_days * NS_PER_DAY / NS_PER_S
    for _ in range(3):
        yard.clock.step_wall(step_s)
        for _ in range(50):
            yard.clock.advance(60)
            assert yard.loop.tidy() == 0
        yard.clock.step_wall(-step_s)
        yard.clock.advance(60)
        assert yard.loop.tidy() == 0
    assert len(yard.left()) == 10
    yard.clock.advance(NS_PER_DAY / NS_PER_S + 700)
    assert yard.loop.tidy() == 10


def test_recordings_of_an_unset_clock_go_in_their_turn(store: Store, tmp_path: Path) -> None:
    """Segments of 1970 that were recorded last are not the oldest, nor too old."""
    yard = Yard(store, tmp_path, keep_max_gb=0.00051, keep_days=1)
    query = "UPDATE segment SET start_utc_ns = ?, end_utc_ns = ? WHERE id > 8"
    store.write(lambda connection: connection.execute(query, (0, 10 * NS_PER_S)).rowcount)
    yard.loop.tidy()
    assert yard.left() == [5, 6, 7, 8, 9]
    yard.clock.advance(2 * NS_PER_DAY / NS_PER_S)
    yard.loop.tidy()
    assert yard.left() == [8, 9]


def test_held_recordings_stay_until_they_are_let_go(store: Store, tmp_path: Path) -> None:
    yard = Yard(store, tmp_path, keep_max_gb=0.0001)
    span = Span("gate", START_NS + 32 * NS_PER_S, START_NS + 48 * NS_PER_S)
    holds = Keepsakes(store, yard.clock, yard._note, ("gate",))
    hold_id = holds.place(span, Word("police request 7", "A. Weber"))
    yard.loop.tidy()
    assert yard.left() == [3, 4]
    holds.release(hold_id, Word("handed over", "A. Weber"))
    yard.loop.tidy()
    assert yard.left() == []
    kinds = [row["kind"] for row in rows(store, "SELECT kind FROM custody ORDER BY seq")]
    assert kinds == ["hold.placed", "segments.deleted", "hold.released", "segments.deleted"]


def test_a_killed_loop_finishes_what_it_began(store: Store, tmp_path: Path) -> None:
    """The rows were gone, the files not yet: they are no strays to be set aside."""
    yard = Yard(store, tmp_path)

    def change(connection) -> None:
        connection.execute("INSERT INTO garbage SELECT folder, path FROM segment WHERE id <= 3")
        connection.execute("DELETE FROM segment WHERE id <= 3")

    store.write(change)
    assert recover(store, yard.disks, yard._note).quarantined == 0
    assert yard.loop.tidy() == 0
    assert yard.left() == [3, 4, 5, 6, 7, 8, 9]
    assert rows(store, "SELECT * FROM garbage") == []


def test_file_that_cannot_be_deleted_is_tried_again(store: Store, tmp_path: Path) -> None:
    yard = Yard(store, tmp_path, keep_max_gb=0.00051)
    path = tmp_path / "segments" / "gate" / "0.mp4"
    path.unlink()
    path.mkdir()  # not even root unlinks a directory
    assert yard.loop.tidy() == 5
    assert [row["path"] for row in rows(store, "SELECT path FROM garbage")] == [
        "segments/gate/0.mp4"
    ]
    path.rmdir()
    yard.loop.tidy()
    assert rows(store, "SELECT * FROM garbage") == []


def test_inodes_run_out_before_bytes(store: Store, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    mount_tmpfs(disk, "size=100m,nr_inodes=1000")
    try:
        yard = Yard(store, disk)
        assert yard.loop.tidy() == 0
        for number in range(room.of(disk).free_files - 35):  # its reserve is 40
            (disk / f"{number}.small").touch()
        assert yard.loop.tidy() == 5
        assert yard.left() == [5, 6, 7, 8, 9]
        assert room.of(disk).free_files >= room.of(disk).reserve_files
    finally:
        subprocess.run(["umount", str(disk)], check=True)
