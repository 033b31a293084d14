"""The USB driver behind an injected opener: real decoders and coders, a made camera."""

import threading
import time
from itertools import islice, pairwise
from pathlib import Path

import av
import pytest

from agent.core.clock import RealClock
from agent.core.errors import SourceLost, Unsupported
from drivers import v4l2 as driver

pytestmark = pytest.mark.video
PATH = Path("/dev/v4l/by-id/usb-made_camera-index0")


def made(config: driver.Config) -> av.container.InputContainer:
    """A camera of raw pictures, as fast as it is read."""
    size = f"{config.width_px}x{config.height_px}"
    return av.open(f"testsrc2=s={size}:r={config.rate_per_s}", format="lavfi")


def endless_mjpeg(folder: Path):
    """A camera of JPEG pictures: a file of them stands for the device."""
    path = folder / "camera.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=15)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuvj420p"
        with made(driver.Config(PATH, width_px=320, height_px=180)) as source:
            for frame in islice(source.decode(video=0), 60):
                container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))
    return lambda _config: av.open(str(path))


def build(opener=made, **options) -> driver.V4l2Source:
    settings = {"width_px": 320, "height_px": 180, "stall_s": 2.0} | options
    return driver.V4l2Source(driver.Config(PATH, **settings), RealClock(), opener)


def decoded(packets) -> list[av.VideoFrame]:
    context = av.CodecContext.create("h264", "r")
    shown = [frame for packet in packets for frame in context.decode(av.Packet(packet.payload))]
    return shown + context.decode(None)


def test_raw_pictures_become_a_stream_that_can_be_recorded():
    source = build(format="raw")
    info = source.open()
    packets = list(islice(source.packets(), 70))
    source.close()
    assert (info.codec, info.width_px, info.height_px, info.fps_nominal) == ("h264", 320, 180, 15.0)
    keys = [number for number, packet in enumerate(packets) if packet.is_key]
    assert keys == [0, 30, 60]
    assert all(one.dts < other.dts for one, other in pairwise(packets))
    steps = {round((other.pts_us - one.pts_us) / 1000) for one, other in pairwise(packets)}
    assert steps <= {66, 67}
    frames = decoded(packets)
    assert len(frames) == 70
    assert (frames[0].width, frames[0].height) == (320, 180)


def test_jpeg_pictures_are_coded(tmp_path: Path):
    source = build(endless_mjpeg(tmp_path), format="mjpeg")
    source.open()
    packets = []
    with pytest.raises(SourceLost, match="ended the stream"):
        packets.extend(source.packets())
    assert len(decoded(packets)) == 60


def test_an_odd_size_is_made_even():
    info = build(format="raw", width_px=321, height_px=181).open()
    assert (info.width_px, info.height_px) == (320, 180)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            FileNotFoundError(2, "No such file or directory"),
            "no such device; is the camera plugged in",
        ),
        (PermissionError(13, "Permission denied"), "allowed: a user in the group video"),
        (OSError(16, "Device or resource busy"), "another program uses it"),
        (OSError(22, "Invalid argument"), "it gives no mjpeg; allowed: what `v4l2-ctl"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_what_cannot_be_opened_is_lost_and_says_what_to_do(error: OSError, told: str):
    def opener(_config):
        raise error

    with pytest.raises(SourceLost, match=told) as caught:
        build(opener).open()
    assert str(PATH) in str(caught.value)


def test_a_device_that_hangs_while_it_is_opened_is_lost():
    """V4L2 has no time limit of its own."""
    freed = threading.Event()

    def opener(config):
        freed.wait(20)
        return made(config)

    source = build(opener, open_timeout_s=1.0)
    begun_s = time.monotonic()
    with pytest.raises(SourceLost, match="no answer for 2 s"):
        source.open()
    assert time.monotonic() - begun_s < 8
    threading.Timer(0.3, source.close).start()
    with pytest.raises(SourceLost, match="closed"):
        source.open()
    freed.set()
    while any(thread.name == "opening" for thread in threading.enumerate()):
        time.sleep(0.05)


def test_key_frames_come_by_time_where_pictures_do_not():
    """In the dark, and for want of light, a camera gives a third of what it was asked for."""
    dim = "testsrc2=s=320x180:r=5"
    source = build(lambda _config: av.open(dim, format="lavfi"), format="raw")
    source.open()
    keys_us = [packet.pts_us for packet in islice(source.packets(), 60) if packet.is_key]
    source.close()
    assert {later - sooner for sooner, later in pairwise(keys_us)} == {2_000_000}


@pytest.mark.parametrize("preset", ["veryfast", "ultrafast"])
def test_what_coding_costs_is_chosen(preset: str):
    source = build(format="raw", preset=preset)
    source.open()
    packets = list(islice(source.packets(), 10))
    source.close()
    assert (b"cabac=0" in packets[0].payload) == (preset == "ultrafast")


def test_a_real_missing_device_is_lost():
    source = driver.build(driver.Config(Path("/dev/v4l/by-id/nothing")), RealClock())
    with pytest.raises(SourceLost, match="no such device"):
        source.open()


def test_a_device_without_video_is_unsupported(tmp_path: Path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=160)
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(Unsupported, match="no video"):
        build(lambda _config: av.open(str(path))).open()


class Unplugged:
    """A container whose device goes after some pictures, or hangs."""

    def __init__(self, config, then):
        self._real = made(config)
        self.streams = self._real.streams
        self._then = then

    def decode(self, stream):
        yield from islice(self._real.decode(stream), 20)
        self._then()

    def close(self):
        self._real.close()


def test_unplugging_is_noticed():
    def then():
        raise OSError(19, "No such device")

    source = build(lambda config: Unplugged(config, then), format="raw")
    source.open()
    stream = source.packets()
    assert len(list(islice(stream, 15))) == 15
    with pytest.raises(SourceLost, match="No such device; was it unplugged"):
        list(stream)


def test_a_device_that_hangs_is_noticed():
    freed = threading.Event()
    source = build(lambda config: Unplugged(config, lambda: freed.wait(20)), format="raw")
    source.open()
    begun_s = time.monotonic()
    with pytest.raises(SourceLost, match="no picture for"):
        list(source.packets())
    freed.set()
    assert time.monotonic() - begun_s < 8


def test_closing_from_another_thread_ends_the_packets():
    source = build(format="raw")
    source.open()
    threading.Timer(0.3, source.close).start()
    begun_s = time.monotonic()
    for _ in source.packets():
        time.sleep(0.01)
    assert time.monotonic() - begun_s < 3
    with pytest.raises(SourceLost, match="not open"):
        next(source.packets())
