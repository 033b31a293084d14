"""Cutting: which packets a span takes, and how recordings and the ring become parts."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import NS_PER_S
from agent.core.errors import StorageError, Unsupported
from agent.evidence.hashing import hash_file
from agent.vision import cut
from agent.vision.remux import Muxer, Template, parameter_sets
from tests import footage
from tests.vision.test_ring import packet

pytestmark = pytest.mark.video

START_NS = 1_790_000_000 * NS_PER_S


def tenths(packets) -> list[int]:
    return [found.dts for found in packets]


STREAM = [packet(dts, is_key=dts % 10 == 0) for dts in range(100)]


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        (35, 60, 30, 59),
        (30, 60, 30, 59),
        (39.5, 60, 30, 59),  # between two groups: the picture shown then is the older one's
        (0, 1000, 0, 99),
        (-50, 5, 0, 4),
        (99, 200, 90, 99),
        (31, 32, 30, 31),
    ],
)
def test_span_goes_from_the_key_frame_before_to_the_end(start, end, first, last) -> None:
    found = list(cut.between(STREAM, int(start * NS_PER_S / 10), int(end * NS_PER_S / 10)))
    assert tenths(found) == list(range(first, last + 1))
    assert found[0].is_key


def test_span_beside_the_stream_is_empty() -> None:
    assert list(cut.between(STREAM, 100 * NS_PER_S, 200 * NS_PER_S)) == []
    assert list(cut.between(STREAM, -9 * NS_PER_S, -NS_PER_S)) == []
    assert list(cut.between([], 0, NS_PER_S)) == []


def test_single_key_frame_after_the_start_is_taken() -> None:
    assert tenths(cut.between(STREAM[50:51], 0, 100 * NS_PER_S)) == [50]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 25), st.integers(0, 99), st.integers(-200, 1200), st.integers(1, 1300))
def test_span_is_unbroken_and_covers_what_it_can(gop, begin, start, length) -> None:
    stream = [packet(dts, is_key=dts % gop == 0) for dts in range(begin, 100)]
    start_ns, end_ns = start * NS_PER_S // 100, (start + length) * NS_PER_S // 100
    found = tenths(cut.between(stream, start_ns, end_ns))
    if not found:
        wanted = [item for item in stream if start_ns <= item.utc_ns < end_ns]
        assert not any(item.dts >= -(-begin // gop) * gop for item in wanted)
        return
    assert found == list(range(found[0], found[-1] + 1))
    assert found[0] % gop == 0
    first_key = -(-begin // gop) * gop
    if start_ns >= first_key * NS_PER_S // 10:
        assert found[0] * NS_PER_S // 10 <= start_ns
    assert start_ns - found[0] * NS_PER_S // 10 < gop * NS_PER_S // 10
    assert found[-1] == min(99, -(-end_ns * 10 // NS_PER_S) - 1)


def recording(folder: Path, begin: int, end: int, **values) -> cut.Recording:
    """Write pictures `begin` to `end` of the numbered footage as a closed segment."""
    packets = list(footage.stamped(footage.numbered(60), "r1", START_NS))[begin:end]
    path = folder / f"{begin}-{end}.mp4"
    template = Template("h264", packets[0].payload)
    muxer = Muxer(str(path), template, packets[0], "hybrid_fragmented+frag_keyframe")
    for item in packets:
        muxer.add(item)
    muxer.close()
    template.close()
    made = cut.Recording(
        path=path,
        run="r1",
        codec="h264",
        shape=template.parameter_sets,
        start_utc_ns=packets[0].utc_ns,
        end_utc_ns=packets[-1].utc_ns,
        first_dts=packets[0].dts,
        last_dts=packets[-1].dts,
        time_base=packets[0].time_base,
        sha256="",
    )
    return replace(made, **values)


def ring_tail(begin: int, end: int, run: str = "r1"):
    return tuple(footage.stamped(footage.numbered(60), run, START_NS))[begin:end]


def test_recording_gives_back_the_packets_it_was_made_of(tmp_path: Path) -> None:
    found = list(cut.packets_of(recording(tmp_path, 20, 40)))
    source = ring_tail(20, 40)
    for got, was in zip(found, source, strict=True):
        assert (got.run, got.dts, got.pts, got.is_key) == (was.run, was.dts, was.pts, was.is_key)
        assert abs(got.utc_ns - was.utc_ns) < 1000
    assert parameter_sets("h264", found[0].payload) == parameter_sets("h264", source[0].payload)


def test_deleted_recording_gives_none_and_an_unreadable_one_is_told(tmp_path: Path) -> None:
    gone = recording(tmp_path, 0, 20)
    gone.path.unlink()
    assert list(cut.packets_of(gone)) == []
    gone.path.write_bytes(b"rubbish")
    with pytest.raises(StorageError, match=str(gone.path)):
        list(cut.packets_of(gone))


def test_recordings_and_tail_are_one_part_without_seam(tmp_path: Path) -> None:
    (part,) = cut.parts(
        [recording(tmp_path, 0, 20), recording(tmp_path, 20, 40)], ring_tail(40, 60), "h264"
    )
    done = cut.write(part, tmp_path / "clip.mp4", tmp_path / "work.mp4", {})
    assert done is not None
    assert done.packets == 60
    assert footage.numbers(tmp_path / "clip.mp4") == list(range(60))
    assert (done.start_utc_ns, done.end_utc_ns) == (START_NS, START_NS + 6 * NS_PER_S)


def test_other_run_shape_or_a_gap_begin_another_part(tmp_path: Path) -> None:
    first, second = recording(tmp_path, 0, 20), recording(tmp_path, 20, 40)
    assert len(cut.parts([first, second], (), "h264")) == 1
    assert len(cut.parts([first, replace(second, run="r2")], (), "h264")) == 2
    assert len(cut.parts([first, replace(second, shape=b"other")], (), "h264")) == 2
    assert len(cut.parts([first, second], ring_tail(40, 60, "r2"), "h264")) == 2
    assert len(cut.parts([replace(first, shape=b"other")], ring_tail(20, 40), "h264")) == 2
    gap = (START_NS + 2 * NS_PER_S, START_NS + 4 * NS_PER_S)
    third = recording(tmp_path, 40, 60)
    assert len(cut.parts([first, third], (), "h264", [gap])) == 2
    assert len(cut.parts([first, second, third], (), "h264", [gap])) == 1
    assert cut.parts([], (), "h264") == []


def test_tail_that_changes_its_shape_is_two_parts() -> None:
    large = [
        replace(item, dts=item.dts + 10**6, pts=item.pts + 10**6)
        for item in footage.stamped(footage.numbered(30, 480), "r1", START_NS + 6 * NS_PER_S)
    ]
    found = cut.parts([], (*ring_tail(0, 60), *large), "h264")
    assert [len(list(part.packets)) for part in found] == [60, 30]


def test_written_part_is_hashed_faststart_and_tells_of_itself(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    (part,) = cut.parts([], ring_tail(10, 30), "h264")
    done = cut.write(part, target, tmp_path / "work.mp4", {"outpost_clip": "c1"})
    assert done is not None
    assert done.hash == hash_file(target)
    assert footage.is_faststart(target)
    assert footage.numbers(target) == list(range(10, 30))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    with av.open(str(target)) as container:
        assert container.metadata["outpost_clip"] == "c1"
        assert container.streams.video[0].average_rate == Fraction(10)


def test_part_without_packets_writes_nothing(tmp_path: Path) -> None:
    part = cut.Part("h264", iter(()))
    assert cut.write(part, tmp_path / "clip.mp4", tmp_path / "work.mp4", {}) is None
    assert list(tmp_path.iterdir()) == []


def test_part_of_rubbish_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    part = cut.Part("h264", iter([packet(0, is_key=True)]))
    with pytest.raises(Unsupported):
        cut.write(part, tmp_path / "clip.mp4", tmp_path / "work.mp4", {})
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_told(tmp_path: Path) -> None:
    (part,) = cut.parts([], ring_tail(0, 20), "h264")
    with pytest.raises((StorageError, OSError)):
        cut.write(part, tmp_path / "none" / "clip.mp4", tmp_path / "none" / "work.mp4", {})
