"""The file driver: what it refuses, looping, pace."""

import time
from itertools import islice, pairwise
from pathlib import Path

import av
import pytest

from agent.core.clock import NS_PER_S, RealClock, SimClock
from agent.core.errors import SourceLost, Unsupported
from drivers import file as driver
from tests import footage

pytestmark = pytest.mark.video


def test_gives_every_packet_once_and_ends(tmp_path: Path) -> None:
    found = footage.take(footage.numbered(60))
    assert len(found.packets) == 60
    assert [place for place, packet in enumerate(found.packets) if packet.is_key] == [
        *range(0, 60, footage.GOP)
    ]
    assert all(packet.camera_utc_ns is None for packet in found.packets)


def test_looped_file_goes_on_rising_at_the_same_pace() -> None:
    path = footage.numbered(30)
    source = driver.build(driver.Config(path, is_looped=True), RealClock())
    source.open()
    packets = list(islice(source.packets(), 100))
    source.close()
    steps = {right.dts - left.dts for left, right in pairwise(packets)}
    assert len(steps) == 1
    assert packets[30].payload == packets[0].payload


def test_looped_file_with_b_frames_goes_on_rising() -> None:
    source = driver.build(
        driver.Config(footage.numbered(30, bframes=2), is_looped=True), RealClock()
    )
    source.open()
    packets = list(islice(source.packets(), 100))
    source.close()
    assert all(left.dts < right.dts for left, right in pairwise(packets))
    assert all(packet.pts >= packet.dts for packet in packets)
    assert len({packet.pts for packet in packets}) == 100


def test_realtime_file_keeps_its_pace_on_the_clock() -> None:
    clock = SimClock()
    source = driver.build(driver.Config(footage.numbered(60), is_realtime=True), clock)
    source.open()
    packets = list(source.packets())
    assert len(packets) == 60
    first = packets[0]
    for packet in packets:
        due_ns = int((packet.dts - first.dts) * packet.time_base * NS_PER_S)
        assert abs(packet.arrival_mono_ns - first.arrival_mono_ns - due_ns) < 1000


def test_as_fast_as_it_can_is_not_slowed() -> None:
    begun = time.monotonic()
    source = driver.build(driver.Config(footage.numbered(60)), RealClock())
    source.open()
    assert len(list(source.packets())) == 60
    assert time.monotonic() - begun < 3


def test_text_file_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("this is no video\n" * 100)
    with pytest.raises(Unsupported, match=r"notes\.mp4"):
        driver.build(driver.Config(path), RealClock()).open()


@pytest.mark.parametrize("content", [b"", b"\0" * 4096])
def test_empty_and_blank_files_are_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "blank.mp4"
    path.write_bytes(content)
    with pytest.raises(Unsupported, match=r"blank\.mp4"):
        driver.build(driver.Config(path), RealClock()).open()


def test_sound_alone_is_no_video() -> None:
    with pytest.raises(Unsupported, match=r"sound\.wav: no video stream"):
        driver.build(driver.Config(footage.sound()), RealClock()).open()


def test_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises((Unsupported, SourceLost), match=str(tmp_path)):
        driver.build(driver.Config(tmp_path), RealClock()).open()


def test_missing_file_is_lost_and_named(tmp_path: Path) -> None:
    with pytest.raises(SourceLost, match=r"gone\.mp4: no such file"):
        driver.build(driver.Config(tmp_path / "gone.mp4"), RealClock()).open()


def test_other_codec_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "old.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for number in range(3):
            container.mux(stream.encode(footage._picture(number, 320)))
        container.mux(stream.encode(None))
    with pytest.raises(Unsupported, match=r"codec mpeg4; allowed: h264, hevc"):
        driver.build(driver.Config(path), RealClock()).open()


def test_raw_stream_without_times_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "raw.h264"
    path.write_bytes(
        b"".join(packet.payload for packet in footage.take(footage.numbered(60)).packets)
    )
    source = driver.build(driver.Config(path), RealClock())
    source.open()
    with pytest.raises(Unsupported, match=r"raw\.h264: h264 stream without times"):
        list(source.packets())


def test_file_without_its_index_is_refused(tmp_path: Path) -> None:
    whole = footage.numbered(60).read_bytes()
    path = tmp_path / "short.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unsupported, match=r"short\.mp4"):
        driver.build(driver.Config(path), RealClock()).open()
