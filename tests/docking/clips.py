"""Small recordings as body cameras make them, and what a player makes of them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

PICTURES = 150
FPS = 30
RATE_HZ = 48_000
ENCODERS = {
    "h264": ("libx264", {"preset": "veryfast", "bf": "0"}),
    "h264-b": ("libx264", {"preset": "veryfast", "bf": "3"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=0"}),
    "hevc-b": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3"}),
}
MODES = tuple(ENCODERS)


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as a player shows it."""

    time: Fraction  # seconds after the first one
    pixels: str  # hash


def record(  # noqa: PLR0913 - each a thing that cameras differ in
    path: Path,
    mode: str = "h264",
    *,
    count: int = PICTURES,
    size: tuple[int, int] = (320, 180),
    seed: int = 1,
    muxing: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a recording: a pattern that moves, with noise, so that no two pictures are alike."""
    encoder, options = ENCODERS[mode]
    noise = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mp4", options=muxing or {}) as container:
        container.metadata.update(metadata or {})
        video = container.add_stream(encoder, rate=FPS, options=options)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.codec_context.gop_size = FPS
        audio = container.add_stream("aac", rate=RATE_HZ)
        audio.layout = "mono"
        done = 0
        for index in range(count):
            container.mux(video.encode(_picture(index + 11 * seed, size, noise, index)))
            while done < (index + 1) * RATE_HZ // FPS:
                container.mux(audio.encode(_tone(done, noise)))
                done += 1024
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def rewritten(path: Path, target: Path, format_name: str) -> Path:
    """Put a recording into another container."""
    with av.open(str(path)) as found, av.open(str(target), "w", format=format_name) as made:
        stream = made.add_stream_from_template(found.streams.video[0])
        for packet in found.demux(found.streams.video[0]):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    return target


def _picture(phase: int, size: tuple[int, int], noise: np.random.Generator, index: int):
    width, height = size
    across, down = np.arange(width)[None, :], np.arange(height)[:, None]
    pattern = 128 + 60 * np.sin((across + 3 * phase) / 17) + 50 * np.cos((down - phase) / 11)
    luma = np.clip(pattern + noise.normal(0, 6, (height, width)), 0, 255).astype(np.uint8)
    chroma = np.full((height // 2, width), 128, np.uint8)
    frame = av.VideoFrame.from_ndarray(np.vstack([luma, chroma]), format="yuv420p")
    frame.pts, frame.time_base = index, Fraction(1, FPS)
    return frame


def _tone(start: int, noise: np.random.Generator):
    moments = np.arange(start, start + 1024) / RATE_HZ
    wave = 0.2 * np.sin(2 * np.pi * 440 * moments) + 0.1 * noise.standard_normal(1024)
    frame = av.AudioFrame.from_ndarray(
        wave.astype(np.float32).reshape(1, -1), format="fltp", layout="mono"
    )
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
    return frame


def shown(path: Path) -> list[Shown]:
    """Play a file: every picture with its time; an error where a player would stumble."""
    found: list[Shown] = []
    first: Fraction | None = None
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            assert not picture.is_corrupt
            now = picture.pts * picture.time_base
            first = now if first is None else first
            pixels = hashlib.md5(picture.to_ndarray().tobytes()).hexdigest()
            found.append(Shown(now - first, pixels))
    return found


def packets(path: Path) -> Iterator[tuple[int, int]]:
    """Give where each coded picture begins and ends in a file."""
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                yield packet.pos, packet.pos + packet.size


def whole_pictures(path: Path, size_bytes: int) -> int:
    """Count the pictures that lie whole before a byte."""
    return sum(end <= size_bytes for _, end in packets(path))


def sound_seconds(path: Path) -> float:
    """Give how much sound a player hears."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return 0.0
        return sum(frame.samples for frame in container.decode(audio=0)) / RATE_HZ


class Stock:
    """Recordings made once a run; who wants one changed takes a copy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.good = self._kept(lambda path, mode: record(path, mode, count=90, seed=2), "good")
        self.original = self._kept(record, "original")
        self.shown = cache(lambda mode: shown(self.original(mode)))

    def _kept(self, make: Callable[[Path, str], Path], name: str) -> Callable[[str], Path]:
        return cache(lambda mode: make(self._folder / f"{name}-{mode}.mp4", mode))
