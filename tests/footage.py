"""Small H.264 files whose pictures carry their number as brightness, made once a test run."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from agent.core.clock import NS_PER_S, RealClock
from agent.core.model import Packet, StreamInfo
from drivers import file as file_driver

FPS = 10
GOP = 10
_STEP, _BASE, _DIGITS = 13, 20, 16  # luma of a half picture: base + step * digit


@functools.cache
def folder() -> Path:
    """Where the files of this test run live."""
    made = Path(tempfile.mkdtemp(prefix="outpost-footage-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@functools.cache
def numbered(
    pictures: int = 60, width_px: int = 320, codec: str = "libx264", bframes: int = 0
) -> Path:
    """Give an MP4 of up to 256 numbered pictures, 10 a second, a key frame every 10."""
    path = folder() / f"{codec}-{pictures}-{width_px}-{bframes}.mp4"
    options = {"preset": "ultrafast", "bf": str(bframes)}
    if codec == "libx264":
        options["x264-params"] = "scenecut=0"
    else:
        options["x265-params"] = "log-level=none:scenecut=0:bframes=0:keyint=10:min-keyint=10"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width_px, 180, "yuv420p"
        stream.gop_size = GOP
        for number in range(pictures):
            container.mux(stream.encode(_picture(number, width_px)))
        container.mux(stream.encode(None))
    return path


@functools.cache
def mpeg4() -> Path:
    """Give an MP4 of a codec that no camera of ours sends."""
    path = folder() / "mpeg4.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for number in range(5):
            container.mux(stream.encode(_picture(number, 320)))
        container.mux(stream.encode(None))
    return path


@functools.cache
def noisy(pictures: int = 30) -> Path:
    """Give an MP4 of about 150 kB a picture, to fill buffers."""
    path = folder() / f"noisy-{pictures}.mp4"
    dice = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "bf": "0", "qp": "4", "x264-params": "scenecut=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.gop_size = GOP
        for _ in range(pictures):
            pixels = dice.integers(16, 235, (270, 320), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="yuv420p")))
        container.mux(stream.encode(None))
    return path


@functools.cache
def sound() -> Path:
    """Give a file with sound and no picture."""
    path = folder() / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), dtype=np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(path: Path) -> list[int]:
    """Decode a file and read the number of every picture."""
    with av.open(str(path)) as container:
        return [_number(frame) for frame in container.decode(video=0)]


@dataclass(frozen=True)
class Take:
    """A file's stream in memory."""

    info: StreamInfo
    packets: tuple[Packet, ...]


@functools.cache
def take(path: Path) -> Take:
    """Read a file through its driver."""
    source = file_driver.build(file_driver.Config(path), RealClock())
    info = source.open()
    return Take(info, tuple(source.packets()))


def stamped(path: Path, run: str, start_utc_ns: int) -> Iterator[Packet]:
    """Give a file's packets as if live, arriving evenly from `start_utc_ns` on, on both clocks."""
    found = take(path)
    first = found.packets[0].dts
    for packet in found.packets:
        past_ns = int((packet.dts - first) * packet.time_base * NS_PER_S)
        now_ns = start_utc_ns + past_ns
        yield replace(packet, run=run, utc_ns=now_ns, arrival_mono_ns=now_ns)


def is_faststart(path: Path) -> bool:
    """Whether the index of an MP4 stands before its media."""
    content = path.read_bytes()
    return 0 < content.find(b"moov") < content.find(b"mdat")


def _picture(number: int, width_px: int) -> av.VideoFrame:
    luma = np.empty((180, width_px), dtype=np.uint8)
    luma[:, : width_px // 2] = _BASE + _STEP * (number % _DIGITS)
    luma[:, width_px // 2 :] = _BASE + _STEP * (number // _DIGITS % _DIGITS)
    chroma = np.full((90, width_px), 128, dtype=np.uint8)
    return av.VideoFrame.from_ndarray(np.vstack((luma, chroma)), format="yuv420p")


def _number(frame: av.VideoFrame) -> int:
    luma = frame.to_ndarray(format="yuv420p")[: frame.height]
    middle = luma.shape[1] // 2
    low, high = (
        round((float(half.mean()) - _BASE) / _STEP)
        for half in (luma[:, : middle - 16], luma[:, middle + 16 :])
    )
    return low + high * _DIGITS
