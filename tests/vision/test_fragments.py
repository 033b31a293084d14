"""The readable head of a damaged file."""

import io
from pathlib import Path

import pytest

from agent.vision.fragments import Head, readable_end
from agent.vision.remux import Muxer, Template, demux
from agent.vision.segment import MOVFLAGS
from tests import footage

pytestmark = pytest.mark.video


@pytest.fixture
def fragmented(tmp_path: Path) -> Path:
    """Three groups of pictures in two fragments and a rest, as a killed muxer leaves them."""
    packets = list(footage.stamped(footage.numbered(60), "r", 0))[:30]
    template = Template("h264", packets[0].payload)
    target = io.BytesIO()
    muxer = Muxer(target, template, packets[0], MOVFLAGS)
    for packet in packets:
        muxer.add(packet)
    path = tmp_path / "a.mp4"
    path.write_bytes(target.getvalue())
    muxer.close()
    template.close()
    return path


def test_whole_file_is_readable_to_its_last_media(fragmented: Path) -> None:
    end = readable_end(fragmented)
    assert fragmented.read_bytes()[end:].find(b"mdat") < 0
    fragmented.write_bytes(fragmented.read_bytes()[:end])
    assert len(list(demux(fragmented))) == 20


def test_damaged_header_of_a_fragment_costs_that_fragment(fragmented: Path) -> None:
    content = fragmented.read_bytes()
    second = content.rfind(b"moof") - 4
    fragmented.write_bytes(content[: second + 40] + bytes(len(content) - second - 40))
    assert readable_end(fragmented) == second
    fragmented.write_bytes(content[:second])
    assert len(list(demux(fragmented))) == 10


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 5000, b"\xff" * 5000, b"\0\0\0\1mdat" + b"\xff" * 8, b"\0\0\0\x10mdat" * 4],
)
def test_what_is_no_video_has_no_head(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert readable_end(path) == 0


def test_head_ends_where_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    head = Head(path, 6)
    assert (head.read(4), head.read(), head.read(1)) == (b"0123", b"45", b"")
    assert (head.seek(-2, 2), head.read(9), head.tell()) == (4, b"45", 6)
    assert (head.seek(1), head.read(2)) == (1, b"12")
    head.close()
