"""Packets into MP4 and back."""

import io
from dataclasses import replace
from itertools import chain
from pathlib import Path

import av
import pytest

from agent.core.errors import StorageError, Unsupported
from agent.core.model import Packet
from agent.vision.remux import GopFile, Muxer, Template, demux, parameter_sets
from tests import footage

pytestmark = pytest.mark.video

MOVFLAGS = "hybrid_fragmented+frag_keyframe"


@pytest.fixture
def packets() -> tuple[Packet, ...]:
    return footage.take(footage.numbered(60)).packets


def write(path: Path, packets, codec: str = "h264", movflags: str = MOVFLAGS) -> Muxer:
    template = Template(codec, packets[0].payload)
    muxer = Muxer(str(path), template, packets[0], movflags)
    for packet in packets:
        muxer.add(packet)
    muxer.close()
    template.close()
    return muxer


@pytest.mark.parametrize(
    ("codec", "make"),
    [
        ("h264", lambda: footage.numbered(60)),
        ("hevc", lambda: footage.numbered(30, codec="libx265")),
        ("h264", lambda: footage.numbered(30, bframes=2)),
    ],
)
def test_written_and_read_back_is_the_same(tmp_path: Path, codec: str, make) -> None:
    packets = footage.take(make()).packets
    muxer = write(tmp_path / "a.mp4", packets, codec)
    assert (muxer.packets, muxer.skipped) == (len(packets), 0)
    found = list(demux(tmp_path / "a.mp4"))
    assert len(found) == len(packets)
    steps = [
        (packet.dts - packets[0].dts) * packet.time_base - back.dts * back.time_base
        for packet, back in zip(packets, found, strict=True)
    ]
    assert all(abs(step) < 0.001 for step in steps)
    assert [back.is_keyframe for back in found] == [packet.is_key for packet in packets]
    assert footage.numbers(tmp_path / "a.mp4") == list(range(len(packets)))


def test_middle_of_a_stream_begins_at_time_zero(tmp_path: Path, packets) -> None:
    write(tmp_path / "a.mp4", packets[20:40])
    found = list(demux(tmp_path / "a.mp4"))
    assert found[0].dts == 0
    assert footage.numbers(tmp_path / "a.mp4") == list(range(20, 40))


def test_hevc_is_tagged_for_every_player(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", footage.take(footage.numbered(30, codec="libx265")).packets, "hevc")
    assert b"hvc1" in (tmp_path / "a.mp4").read_bytes()


def test_equal_and_backward_times_are_counted_and_left_out(tmp_path: Path, packets) -> None:
    bad = [
        *packets[:10],
        replace(packets[10], dts=packets[9].dts),
        replace(packets[11], dts=packets[3].dts, pts=packets[3].pts),
        *packets[12:20],
    ]
    muxer = write(tmp_path / "a.mp4", bad)
    assert (muxer.packets, muxer.skipped) == (18, 2)
    assert len(list(demux(tmp_path / "a.mp4"))) == 18


def test_picture_shown_before_it_is_decoded_is_put_right(tmp_path: Path, packets) -> None:
    bad = [*packets[:5], replace(packets[5], pts=packets[5].dts - 1000), *packets[6:10]]
    assert write(tmp_path / "a.mp4", bad).packets == 10


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(
    "payload",
    [b"", b"no video at all", b"\0\0\1", b"\0\0\1\0\0\1\0\0\1", b"\0\0\0\1\x65" + b"\x88" * 400],
)
def test_template_of_something_else_is_unsupported(codec: str, payload: bytes) -> None:
    with pytest.raises(Unsupported, match=f"is no {codec}"):
        Template(codec, payload)


def test_template_tells_size_and_sets(packets) -> None:
    template = Template("h264", packets[0].payload)
    assert (template.width_px, template.height_px) == (320, 180)
    assert template.parameter_sets == parameter_sets("h264", packets[0].payload)
    template.close()


def test_parameter_sets_differ_by_shape_and_are_absent_between() -> None:
    small = footage.take(footage.numbered(60)).packets
    large = footage.take(footage.numbered(30, 480)).packets
    hevc = footage.take(footage.numbered(30, codec="libx265")).packets
    assert parameter_sets("h264", small[0].payload) == parameter_sets("h264", small[10].payload)
    assert parameter_sets("h264", small[0].payload) != parameter_sets("h264", large[0].payload)
    assert parameter_sets("h264", small[1].payload) == b""
    assert parameter_sets("hevc", hevc[0].payload) != b""
    assert parameter_sets("h264", b"\0\0\1\0\0\1") == b""
    assert parameter_sets("hevc", b"\0\0\1") == b""


def test_fragments_are_readable_while_the_file_grows(tmp_path: Path, packets) -> None:
    path = tmp_path / "a.mp4"
    template = Template("h264", packets[0].payload)
    with path.open("xb", buffering=0) as stream:
        target = GopFile(stream)
        muxer = Muxer(target, template, packets[0], MOVFLAGS)
        for packet in packets[:35]:
            muxer.add(packet)
            if packet.is_key:
                target.flush()
        assert len(list(demux(path))) == 30
        muxer.close()
        target.flush()
    template.close()
    assert len(list(demux(path))) == 35
    with av.open(str(path)) as container:  # an ordinary file at the end: its length is known
        assert container.duration == pytest.approx(3_500_000, abs=110_000)


def test_disk_that_refuses_is_told_as_such(packets) -> None:
    class Full(io.RawIOBase):
        def write(self, data) -> int:
            raise OSError(28, "No space left on device")

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

        def tell(self) -> int:
            return 0

    template = Template("h264", packets[0].payload)
    target = GopFile(Full())
    muxer = Muxer(target, template, packets[0], MOVFLAGS)
    for packet in packets[:15]:
        muxer.add(packet)
    with pytest.raises(OSError, match="No space left"):
        target.flush()
    with pytest.raises((OSError, StorageError)):
        muxer.close()
    template.close()


def test_gop_file_writes_once_a_flush_and_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("xb", buffering=0) as stream:
        target = GopFile(stream)
        assert target.write(b"abcdef") == 6
        assert path.read_bytes() == b""
        assert (target.pending_bytes, target.tell()) == (6, 6)
        target.seek(2)
        target.write(b"XY")
        target.flush()
        assert (target.pending_bytes, target.tell()) == (0, 4)
    assert path.read_bytes() == b"abXYef"


class Tape(io.RawIOBase):
    """A disk that remembers every write, and when it was told to sync; takes 1000 bytes a go."""

    def __init__(self) -> None:
        self.place = 0
        self.groups: list[list[tuple[int, bytes]]] = [[]]  # of writes between two syncs

    def write(self, data) -> int:
        taken = bytes(data[:1000])
        self.groups[-1].append((self.place, taken))
        self.place += len(taken)
        return len(taken)

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset
        return offset

    def tell(self) -> int:
        return self.place

    def sync(self) -> None:
        self.groups.append([])


def readable(path: Path, writes) -> int:
    content = bytearray()
    for place, data in writes:
        content.extend(bytes(max(0, place - len(content))))
        content[place : place + len(data)] = data
    path.write_bytes(content)
    try:
        return len(list(demux(path)))
    except StorageError:
        return 0


def test_power_cut_at_any_write_costs_at_most_one_group(tmp_path: Path, packets) -> None:
    """Between two syncs a disk may keep any of the writes: each one alone, and all but one."""
    tape = Tape()
    template = Template("h264", packets[0].payload)
    target = GopFile(tape, tape.sync)
    muxer = Muxer(target, template, packets[0], MOVFLAGS)
    synced = []  # packets handed over at each sync
    for count, packet in enumerate(packets[:35], start=1):
        muxer.add(packet)
        if packet.is_key and count > 1:
            target.flush()
            synced.append(count - 1)
    muxer.close()
    target.flush()
    template.close()
    path = tmp_path / "a.mp4"
    assert readable(path, chain.from_iterable(tape.groups)) == 35
    safe, done = [], 0
    for group in tape.groups:
        for place in range(len(group)):
            for kept in (
                group[:place],
                group[place : place + 1],
                group[:place] + group[place + 1 :],
            ):
                assert readable(path, safe + kept) >= done
        safe += group
        done = synced.pop(0) if synced else done


@pytest.mark.parametrize("payload", [b"", b"garbage", b"\0" * 50, b"\0\0\1"[:2]])
def test_what_is_no_picture_is_counted_and_left_out(tmp_path: Path, packets, payload) -> None:
    bad = [*packets[:5], replace(packets[5], payload=payload), *packets[6:20]]
    muxer = write(tmp_path / "a.mp4", bad)
    assert (muxer.packets, muxer.skipped) == (19, 1)
    assert len(list(demux(tmp_path / "a.mp4"))) == 19


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"text" * 1000])
def test_unreadable_files_are_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=str(path)):
        list(demux(path))
    with pytest.raises(StorageError, match=r"gone\.mp4"):
        list(demux(tmp_path / "gone.mp4"))
    with pytest.raises(StorageError, match="no video"):
        list(demux(footage.sound()))
