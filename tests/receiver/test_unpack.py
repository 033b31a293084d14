"""Batches taken apart: what is good comes out as it went in, what is not costs nobody anything."""

import struct
import tracemalloc

import pytest
import zstandard

from agent.core import wire
from agent.core.errors import MalformedMessage
from agent.delivery import batch, dictionary
from agent.delivery.batch import TAKEN_FRAME_BYTES, TAKEN_PLAIN_BYTES, TAKEN_ROWS
from agent.receiver.unpack import Unpacker, is_batch
from tests.fuzz.test_decoder import GOOD
from tests.receiver.rig import Rig

LINES = [b'{"n":%d}' % number for number in range(100)]


def frame(content, **changes):
    made = zstandard.ZstdCompressor(**({"level": 3, "write_checksum": True} | changes))
    return made.compress(content)


def named(size, packed):
    """Give a frame that says that its content has this size; it is one segment of 256 B or more."""
    descriptor = packed[4]
    assert descriptor >> 5 & 1, "one segment"
    length = {1: 2, 2: 4, 3: 8}[descriptor >> 6]
    told = size - 256 if length == 2 else size
    return packed[:5] + told.to_bytes(length, "little") + packed[5 + length :]


@pytest.fixture
def unpacker(tmp_path):
    return Unpacker(tmp_path / "dictionaries")


def test_what_goes_in_comes_out(unpacker):
    packed = frame(b"\n".join(LINES))
    assert is_batch(packed)
    assert unpacker.lines(packed) == LINES
    assert unpacker.lines(frame(LINES[0])) == [LINES[0]]


def test_the_largest_there_may_be_is_taken(unpacker):
    content = b"\n".join([b"x" * (TAKEN_PLAIN_BYTES // TAKEN_ROWS - 1)] * TAKEN_ROWS)
    assert len(unpacker.lines(frame(content))) == TAKEN_ROWS
    assert len(unpacker.lines(frame(b"x" * TAKEN_PLAIN_BYTES, level=19))[0]) == TAKEN_PLAIN_BYTES


BOMB = frame(bytes(64 << 20))
HONEST = frame(b"x" * 100_000)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (BOMB, "size of content 67108864"),
        (frame(b"x" * (TAKEN_PLAIN_BYTES + 1)), "size of content 1048577"),
        (named(1000, frame(bytes(1 << 20))), "too small"),
        (named(1 << 20, HONEST), "corruption"),
        (named((1 << 32) - 1, HONEST), "size of content 4294967295"),
        (frame(b"x" * 1000, write_content_size=False), "size of content not named"),
        (frame(b""), "size of content 0"),
        (frame(b"\n" * TAKEN_ROWS), "1001 lines"),
        (frame(b"\n" * 1_000_000), "1000001 lines"),
        (frame(b"a") + frame(b"b"), "unused data"),
        (frame(b"a") + b"more", "unused data"),
        (HONEST[:-6], "did not decompress full frame"),
        (HONEST[:-1] + b"\0", "checksum"),
        (HONEST[:4], "not enough data"),
        (b"", "not a frame"),
        (b"{}", "not a frame"),
        (struct.pack("<II", 0x184D2A50, 4) + b"skip", "not a frame"),
        (HONEST + bytes(TAKEN_FRAME_BYTES), f"allowed: {TAKEN_FRAME_BYTES}"),
        (frame(frame(b"a")), None),
    ],
)
def test_what_is_wrong_is_said_and_takes_no_room(unpacker, packed, reason):
    tracemalloc.start()
    try:
        if reason is None:
            assert unpacker.lines(packed) == [frame(b"a")], "one layer, and no more"
        else:
            with pytest.raises(MalformedMessage, match=reason):
                unpacker.lines(packed)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 4 * TAKEN_PLAIN_BYTES


def test_a_window_that_needs_much_memory_is_refused(unpacker):
    settings = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=True)
    stream = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    packed = stream.compress(b"x" * 1000) + stream.flush()
    with pytest.raises(MalformedMessage):
        unpacker.lines(packed)
    header = b"\x28\xb5\x2f\xfd" + bytes([0x40, 14 << 3]) + (1000 - 256).to_bytes(2, "little")
    with pytest.raises(MalformedMessage, match="window 16777216"):
        unpacker.lines(header + b"\x01\x00\x00")


def test_dictionaries_are_found_by_their_ids_as_they_come_and_go(unpacker, tmp_path):
    samples = [b'{"kind":"beat","n":%d,"id":"%032x"}' % (n, n * 7919) for n in range(500)]
    (tmp_path / "mine").write_bytes(dictionary.train(samples, 2048))
    packed = batch.compressor(tmp_path / "mine")(b"\n".join(samples[:9]))
    with pytest.raises(MalformedMessage, match=r"dictionary \d+ is not in"):
        unpacker.lines(packed)
    folder = tmp_path / "dictionaries"
    folder.mkdir()
    (folder / "rubbish").write_bytes(b"no dictionary")
    (folder / "huge").write_bytes(bytes(2 << 20))
    (folder / "folder").mkdir()
    (folder / "gone").symlink_to(folder / "nowhere")
    with pytest.raises(MalformedMessage, match="is not in"):
        unpacker.lines(packed)
    (folder / "theirs").write_bytes((tmp_path / "mine").read_bytes())
    assert unpacker.lines(packed) == samples[:9]
    assert unpacker.lines(frame(LINES[0])) == [LINES[0]], "and without one"


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def kept(rig):
    with rig.store.reading() as connection:
        return {row["id"]: row["payload"] for row in connection.execute("SELECT * FROM message")}


def beat(rig, number, **changes):
    fields = {"lane": "telemetry"} | changes
    return wire.encode(rig.device.envelope(number, "beat", GOOD["beat"], **fields))


def test_lines_are_stored_as_if_they_had_come_alone_and_the_batch_is_signed_for(rig):
    lines = [beat(rig, number) for number in range(1, 21)]
    packed = frame(b"\n".join(lines))
    for _ in range(2):
        rig.send("backfill/beat", packed)
        assert rig.row_receipts()[-1]["ids"] == [batch.batch_id(packed)]
    assert sorted(kept(rig).values()) == sorted(lines)
    assert rig.rejected() == []


def test_what_needs_a_receipt_of_its_own_gets_it_out_of_a_batch_too(rig):
    event = rig.device.envelope(7)
    packed = frame(wire.encode(event))
    rig.send("backfill/event", packed)
    assert rig.row_receipts()[-1]["ids"] == [event["id"], batch.batch_id(packed)]


def test_bad_lines_are_told_one_by_one(rig):
    good = [beat(rig, number) for number in (1, 2)]
    state = wire.encode(rig.device.envelope(9, "beat", GOOD["state"], lane="telemetry"))
    bad = [
        (b"", "envelope"),
        (b"{}", "envelope"),
        (beat(rig, 3, device="cam-2"), "on a topic of"),
        (wire.encode(rig.device.envelope(4)), "in a batch on 'backfill/beat'"),
        (frame(good[0]), "envelope"),
        (state, "beat"),
        (beat(rig, 5)[:-1], "envelope"),
    ]
    lines = [good[0], *(line for line, _ in bad if b"\n" not in line), good[1]]
    rig.send("backfill/beat", frame(b"\n".join(lines)))
    rig.quiet()
    assert sorted(kept(rig).values()) == sorted(good)
    reasons = rig.rejected()[::-1]
    assert len(reasons) == len(lines) - 2
    assert len(rig.row_receipts()) == 1


@pytest.mark.parametrize("kind", ["file", "backfill", "receipt", "death", "sample", "birth/x"])
def test_a_line_of_what_is_never_in_an_envelope_is_refused(rig, kind):
    line = rig.device.envelope(1, kind, GOOD["beat"])
    rig.send(f"backfill/{kind.split('/')[0]}", frame(wire.encode(line)))
    rig.quiet()
    assert kept(rig) == {}
    assert len(rig.rejected()) == 1


def test_an_unreadable_batch_gets_no_receipt_and_the_next_one_does(rig):
    for packed in (BOMB, HONEST[:-6], frame(b"\n" * 1_000_000)):
        rig.send("backfill/beat", packed)
    rig.quiet()
    assert rig.row_receipts() == []
    assert len(rig.rejected()) == 3
    rig.send("backfill/beat", frame(beat(rig, 1)))
    assert len(rig.row_receipts()) == 1


def test_a_flood_of_full_batches_leaves_others_their_turn(rig):
    """All come at one poll; the event behind them is stored, and answers go out between them."""
    packed = frame(b"\n".join([beat(rig, 1)] * 700))
    assert len(packed) < 10_000
    for _ in range(8):
        rig.send("backfill/beat", packed)
    event = rig.device.envelope(2)
    rig.send("event/zone_enter", event)
    rig.quiet()
    assert event["id"] in {name for receipt in rig.row_receipts() for name in receipt["ids"]}
    assert len(kept(rig)) == 2
    assert rig.turns >= 3
