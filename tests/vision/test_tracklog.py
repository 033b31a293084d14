"""Track logs: what was written comes back whole, damage costs little, the disk stays bounded."""

import dataclasses
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import NS_PER_S
from agent.core.model import Box, Patch, Picture, Sight, Track, TrackPoint, View
from agent.vision import tracklog
from agent.vision.tracklog import Break, Damage, Keeper, Seen, Session, Writer

NOON_NS = 1_700_049_600 * NS_PER_S  # 2023-11-15 12:00 UTC
DAY_NS = 86_400 * NS_PER_S
SESSION = Session("west", "eye@1")


def writer(folder: Path, *, days: int = 7, max_mb: int = 100, session=SESSION) -> Writer:
    return Writer(Keeper(folder, days, max_mb), session)


def point(t_us: int, x: float = 0.1, sight: Sight = Sight.DETECTED) -> TrackPoint:
    return TrackPoint(t_us, Box(x, 0.2, 0.1, 0.3), sight)


def track(history, track_id: int = 1, **parts) -> Track:
    values = {"age_s": 0.4, "missing_s": 0.0, "box": history[-1].box} | parts
    return Track(track_id, "person", 0.625, history=tuple(history), **values)


def view(t_us: int, *tracks: Track, **parts) -> View:
    return View(t_us, 0, tracks, **parts)


def written(folder: Path, items) -> list:
    """Write items, read the log back."""
    keeper = writer(folder)
    for item in items:
        if isinstance(item, Break):
            keeper.broke(item.reason)
        else:
            keeper.saw(item.view, item.utc_ns)
    keeper.flush()
    return list(tracklog.read(tracklog.paths(folder, "west")))


def seen(t_us: int, *tracks: Track, **parts) -> Seen:
    return Seen(view(t_us, *tracks, **parts), NOON_NS + t_us * 1000)


def test_a_walk_comes_back_as_it_was(tmp_path):
    items, history = [], []
    for step in range(20):
        t_us = step * 200_000
        history.append(point(t_us, 0.1 + 0.01 * step))
        items.append(seen(t_us, track(history, age_s=t_us / 1e6)))
    found = written(tmp_path, [*items, Break("source lost"), seen(9_000_000)])
    assert found == [SESSION, *items, Break("source lost"), seen(9_000_000)]


def test_every_part_of_a_view_is_kept(tmp_path):
    """A part that is added to the records must not be lost: each is given another value here."""
    picture = Picture(
        luma_mean=90.5,
        luma_sd=20.25,
        sharpness=3.5,
        change=0.5,
        shift_frac=0.01,
        moving=(Box(0.1, 0.2, 0.3, 0.4),),
        patches=(Patch(Box(0.5, 0.5, 0.1, 0.1), 12),),
        similarity={"door": 0.75},
        clock_offset_s=-1.5,
        corrupt_share=0.25,
        change_max=40.0,
    )
    one = track(
        [point(1), point(2, sight=Sight.PREDICTED)],
        box=Box(0.9, 0.8, 0.05, 0.1),
        missing_s=1.5,
        predecessor=7,
    )
    full = View(5, gap_us=6_000_000, tracks=(one,), picture=picture, is_lost=True)
    empty = {"t_us", "tracks", "armed_since_us"}
    for record, plain, always in (
        (full, View(0, 0, ()), empty),
        (picture, Picture(0, 0, 0, 0), set()),
        (one, track([point(1)]), {"track_id", "label", "score", "age_s"}),
    ):
        for part in dataclasses.fields(record):
            if part.name not in always:
                assert getattr(record, part.name) != getattr(plain, part.name), part.name
    assert written(tmp_path, [Seen(full, NOON_NS)])[1] == Seen(full, NOON_NS)


places = st.floats(0, 1, allow_nan=False)
changes = st.lists(
    st.tuples(st.sampled_from(["add", "swap", "thin", "prune", "rewrite", "gone"]), places),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(changes, min_size=1, max_size=3))
def test_whatever_the_tracker_does_to_its_history_comes_back(tmp_path_factory, scripts):
    folder = tmp_path_factory.mktemp("log")
    histories: list[list[TrackPoint]] = [[point(0)] for _ in scripts]
    items = []
    for step in range(max(map(len, scripts))):
        t_us, tracks = (step + 1) * 100_000, []
        for number, script in enumerate(scripts):
            word, x = script[step % len(script)]
            past = histories[number]
            if word == "swap":
                past[-1] = point(t_us, x)
            elif word == "thin" and len(past) > 2:
                del past[-2]
            elif word == "prune":
                past[:] = [*past[len(past) // 2 :], point(t_us, x)]
            elif word == "rewrite":
                past[:] = [point(item.t_us, x) for item in past]
            else:
                past.append(point(t_us, x, Sight.PROPAGATED))
            if word != "gone":
                tracks.append(track(past, number, missing_s=x))
        items.append(seen(t_us, *tracks))
    assert written(folder, items) == [SESSION, *items]


def test_a_day_has_a_file_and_a_history_goes_on_over_midnight(tmp_path):
    keeper = writer(tmp_path)
    past = [point(0)]
    items = [Seen(view(0, track(past)), NOON_NS + DAY_NS // 2 - NS_PER_S)]
    past.append(point(2_000_000))
    items.append(Seen(view(2_000_000, track(past)), NOON_NS + DAY_NS // 2 + NS_PER_S))
    past.append(point(60_000_000))
    items.append(Seen(view(60_000_000, track(past)), NOON_NS + DAY_NS // 2 + 60 * NS_PER_S))
    for item in items:
        keeper.saw(item.view, item.utc_ns)
    keeper.flush()
    files = tracklog.paths(tmp_path, "west")
    assert [path.name[:10] for path in files] == ["2023-11-15", "2023-11-16"]
    goes_on = dataclasses.replace(SESSION, goes_on=True)
    assert list(tracklog.read(files)) == [SESSION, *items[:2], goes_on, items[2]]
    assert list(tracklog.read(files[1:])) == [goes_on, items[2]]


def test_a_clock_that_jumps_makes_files_that_stand_alone(tmp_path):
    keeper, past = writer(tmp_path), []
    for number, utc_ns in enumerate((0, NS_PER_S, NOON_NS, NOON_NS - 1, NS_PER_S)):
        past.append(point(number))
        keeper.saw(view(number, track(past)), utc_ns)
    keeper.flush()
    files = tracklog.paths(tmp_path, "west")
    assert [path.name[:4] for path in files] == ["1970", "2023"]
    for path in files:
        found = list(tracklog.read([path]))
        assert not any(isinstance(item, Damage) for item in found)
        for item in found:
            if isinstance(item, Seen):
                assert item.view.tracks[0].history == tuple(past[: item.view.t_us + 1])


def test_what_is_not_yet_half_a_minute_old_is_in_memory_only(tmp_path):
    keeper = writer(tmp_path)
    keeper.saw(view(0), NOON_NS + 1)
    keeper.saw(view(29_000_000), NOON_NS + 29 * NS_PER_S)
    assert tracklog.paths(tmp_path, "west") == []
    keeper.saw(view(31_000_000), NOON_NS + 31 * NS_PER_S)
    assert len(list(tracklog.read(tracklog.paths(tmp_path, "west")))) == 3


def test_a_crowd_is_written_sooner(tmp_path):
    keeper = writer(tmp_path)
    for step in range(60):
        crowd = [track([point(step * 1000)], number) for number in range(200)]
        keeper.saw(view(step * 1000, *crowd), NOON_NS + step)
    assert tracklog.paths(tmp_path, "west") != []


def test_a_second_start_goes_on_in_the_same_file(tmp_path):
    for number in range(3):
        session = Session("west", f"eye@{number}")
        keeper = writer(tmp_path, session=session)
        keeper.saw(view(number), NOON_NS)
        keeper.flush()
    (path,) = tracklog.paths(tmp_path, "west")
    models = [item.model for item in tracklog.read([path]) if isinstance(item, Session)]
    assert models == ["eye@0", "eye@1", "eye@2"]
    assert tracklog.camera_of(path) == "west"


# Damage.


def three_frames(folder: Path) -> tuple[Path, list[int]]:
    """A log of three frames, and where each ends."""
    keeper, ends, path = writer(folder), [], folder / "west" / "2023-11-15.jsonl.zst"
    for number in range(3):
        past = [point(number * 1000)]
        for step in range(50):
            past.append(point(number * 1000 + step + 1, step / 50))
            keeper.saw(view(number * 1000 + step, track(past, number)), NOON_NS + number)
        keeper.flush()
        ends.append(path.stat().st_size)
    return path, ends


def test_a_log_cut_anywhere_gives_its_whole_frames(tmp_path):
    path, ends = three_frames(tmp_path)
    content = path.read_bytes()
    whole = [item for item in tracklog.read([path]) if isinstance(item, Seen)]
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        found = [item for item in tracklog.read([path]) if isinstance(item, Seen)]
        frames = sum(end <= size for end in ends)
        assert found == whole[: 50 * frames]


@pytest.mark.parametrize("junk", [b"", b"\0" * 300, tracklog._MAGIC * 3, b"\x28\xb5\x2f" * 40_000])
def test_a_frame_overwritten_with_junk_costs_itself_alone(tmp_path, junk):
    path, ends = three_frames(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: ends[0]] + (junk or b"x") + content[ends[1] :])
    found = list(tracklog.read([path]))
    assert any(isinstance(item, Damage) for item in found)
    times = {item.view.t_us // 1000 for item in found if isinstance(item, Seen)}
    assert times == {0, 2}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes_never_stop_the_reading(tmp_path_factory, data):
    path, _ = three_frames(tmp_path_factory.mktemp("log"))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    for item in tracklog.read([path]):
        assert isinstance(item, Session | Seen | Break | Damage)


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"t_us": 1}', '{"t_us": 1, "utc_ns": 2, "tracks": [{}]}',
             '{"session": {"colour": 3}}']
)  # fmt: skip
def test_a_line_that_is_none_is_damage(tmp_path, line):
    path = tmp_path / "x.jsonl.zst"
    good = json.dumps({"t_us": 5, "utc_ns": 6})
    path.write_bytes(zstandard.compress(f"{line}\n{good}\n".encode()))
    found = list(tracklog.read([path]))
    assert isinstance(found[0], Damage)
    assert found[1] == Seen(view(5), 6)


def test_a_log_unpacked_by_hand_is_read_too(tmp_path):
    path, _ = three_frames(tmp_path)
    plain = tmp_path / "cut.jsonl"
    with path.open("rb") as packed, plain.open("wb") as out:
        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        out.write(reader.read())
    assert list(tracklog.read([plain])) == list(tracklog.read([path]))


# The disk.


def test_old_days_go_and_then_the_oldest_until_the_rest_fits(tmp_path):
    for camera in ("west", "east"):
        for day in range(1, 16):
            path = tmp_path / camera / f"2023-11-{day:02}.jsonl.zst"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes(100_000))
    (tmp_path / "west" / "notes.txt").write_text("mine")
    Keeper(tmp_path, 7, 100).sweep(NOON_NS)
    left = sorted(path.name[8:10] for path in tmp_path.glob("west/*.zst"))
    assert left == ["09", "10", "11", "12", "13", "14", "15"]
    Keeper(tmp_path, 7, 1).sweep(NOON_NS)
    names = sorted(path.name[8:10] for path in tmp_path.glob("*/*.zst"))
    assert names == ["11", "11", "12", "12", "13", "13", "14", "14", "15", "15"]
    assert (tmp_path / "west" / "notes.txt").exists()


def test_writing_sweeps(tmp_path):
    old = tmp_path / "west" / "2023-10-01.jsonl.zst"
    old.parent.mkdir()
    old.write_bytes(b"x")
    keeper = writer(tmp_path)
    keeper.saw(view(0), NOON_NS)
    keeper.flush()
    assert not old.exists()


def test_a_disk_that_refuses_is_told_once_and_tried_again(tmp_path, caplog):
    folder = tmp_path / "tracks"
    folder.write_text("in the way")
    keeper = writer(folder)
    for number in range(3):
        keeper.saw(view(number), NOON_NS)
        keeper.flush()
    assert [record.message for record in caplog.records].count("track log not written") <= 1
    folder.unlink()
    keeper.saw(view(9), NOON_NS)
    keeper.flush()
    found = list(tracklog.read(tracklog.paths(folder, "west")))
    assert found[-1] == seen_at(9)


def seen_at(t_us: int) -> Seen:
    return Seen(view(t_us), NOON_NS)


def test_an_empty_street_costs_little(tmp_path):
    keeper = writer(tmp_path)
    count = 3000
    for step in range(count):
        keeper.saw(view(step * 200_000), NOON_NS + step * 200_000_000 + step * 7919 % 1_000_003)
    keeper.flush()
    size = sum(path.stat().st_size for path in tracklog.paths(tmp_path, "west"))
    assert size / count < 12, "bytes a view: 5 MB a day at five a second"
