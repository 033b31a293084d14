"""Batches that nobody should send: bombs, torn and forged frames, lines of rubbish among good ones.

What the receiver takes of them is what it would have taken of the lines alone; the other device's
state stays as it is, and memory and time stay bounded.
"""

import time
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import MalformedMessage
from agent.delivery.batch import TAKEN_FRAME_BYTES, TAKEN_PLAIN_BYTES, TAKEN_ROWS
from agent.receiver.unpack import Unpacker
from tests.evidence.handover import DEVICE
from tests.fuzz.hostile import PLACES, RUBBISH, TEXTS, TIMES, examples, spoiled
from tests.fuzz.test_receiver_topics import MOST_GROWTH_MIB, Stage, peak_mib, rejected

MOST_S = 10.0  # for the worst batch there is, on a slow machine
SIZES = st.sampled_from(
    (0, 1, 255, 256, 65_791, TAKEN_PLAIN_BYTES, TAKEN_PLAIN_BYTES + 1, 1 << 31, (1 << 64) - 1)
)


def frame(content, level=3):
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(content)


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "other").mkdir()
    staged = Stage(tmp_path)
    yield staged
    staged.site.close()


def lines_of(content):
    """Take a frame apart, within the bounds; None if it is refused."""
    begun_s = time.monotonic()
    try:
        lines = Unpacker(Path("no-dictionaries")).lines(content)
    except MalformedMessage:
        lines = None
    assert time.monotonic() - begun_s < MOST_S
    if lines is not None:
        assert len(content) <= TAKEN_FRAME_BYTES
        assert len(lines) <= TAKEN_ROWS
        assert sum(map(len, lines)) <= TAKEN_PLAIN_BYTES
    return lines


@st.composite
def torn(draw):
    """Give a frame, whole or with one thing wrong with it."""
    content = draw(
        st.binary(max_size=300)
        | st.sampled_from(TEXTS)
        | st.integers(1, 3 << 20).map(bytes)
        | st.integers(1, 2 * TAKEN_ROWS).map(lambda count: b"{}\n" * count)
    )
    packed = frame(content, draw(st.sampled_from((-5, 1, 3, 10))))
    harm = draw(st.sampled_from(("none", "cut", "bits", "size", "more", "twice", "nested")))
    at = draw(PLACES) % len(packed)
    if harm == "cut":
        return packed[:at]
    if harm == "bits":
        return packed[:at] + bytes([packed[at] ^ (1 << draw(st.integers(0, 7)))]) + packed[at + 1 :]
    if harm == "size":
        length = draw(st.sampled_from((1, 2, 4, 8)))
        told = (draw(SIZES) & ((1 << 8 * length) - 1)).to_bytes(length, "little")
        return packed[:5] + told + packed[5 + length :]
    if harm == "more":
        return packed + draw(st.binary(min_size=1, max_size=20))
    if harm == "twice":
        return packed + packed
    return frame(packed) if harm == "nested" else packed


@given(content=torn() | st.binary(max_size=64).map(lambda tail: b"\x28\xb5\x2f\xfd" + tail))
@examples(300)
def test_any_frame_is_taken_apart_within_the_bounds_or_refused(content):
    lines_of(content)


@given(content=torn())
@examples(40)
def test_any_frame_at_the_receiver(stage, content):
    before = rejected(stage)
    said = stage.said("backfill/beat", content)
    if lines_of(content) is None and content:
        assert rejected(stage) == before + 1
        assert [topic for topic, _ in said if topic.endswith("receipt")] == []
    stage.check()
    assert stage.serves()


@given(data=st.data())
@examples(60)
def test_one_bad_line_among_good_ones(stage, data):
    beats = [wire.encode(stage.good()["beat"]) for _ in range(3)]
    good = stage.good()
    kind = data.draw(st.sampled_from(("beat", "beat", "event/zone_enter", "time", "birth")))
    bad = data.draw(spoiled(good[kind]) | RUBBISH).replace(b"\n", b" ")[:100_000]
    lines = [*beats[:2], bad, beats[2]]
    stage.said("backfill/beat", frame(b"\n".join(lines)))
    stored = {bytes(row[-1]) for row in _messages(stage)}
    assert stored >= set(beats), "the good ones are there"
    stage.check()
    assert stage.serves()


def test_lines_of_another_device_are_its_own_affair(stage):
    theirs = wire.encode(stage.other.envelope(77, "beat", stage.good()["beat"]["body"]))
    before = rejected(stage)
    stage.said("backfill/beat", frame(theirs))
    assert rejected(stage) == before + 1
    stage.check()
    assert stage.serves()


def test_bombs_one_after_another_take_no_memory(stage):
    bombs = [
        frame(bytes(256 << 20)),
        frame(bytes(TAKEN_PLAIN_BYTES)),
        frame(b"\n" * TAKEN_PLAIN_BYTES),
        frame(b"\n" * (TAKEN_ROWS - 1)),
        frame(b"[" * TAKEN_PLAIN_BYTES),
        frame(b"\n".join([b'{"a":' * 200] * (TAKEN_ROWS - 1))),
        frame(frame(bytes(1 << 20))),
    ]
    stage.said("backfill/beat", bombs[2])
    before_mib, begun_s = peak_mib(), time.monotonic()
    for _ in range(3 * TIMES):
        for bomb in bombs:
            stage.said("backfill/beat", bomb)
    assert peak_mib() - before_mib < MOST_GROWTH_MIB
    assert time.monotonic() - begun_s < MOST_S * len(bombs) * TIMES
    stage.check()
    assert stage.serves()


def _messages(stage):
    with stage.centre.store.reading() as connection:
        return [
            tuple(row)
            for row in connection.execute(
                "SELECT id, payload FROM message WHERE device = ?", (DEVICE,)
            )
        ]
