"""Broken recordings made playable, beside what FFmpeg reads of them and beside a fragmented MP4.

Real footage, encoded anew as cameras do (1280x720, sound beside it), is cut at a share of its
bytes; the good clip is another part of the same footage. A picture counts if, decoded from the
rescued file, it equals one of the original's in every pixel. FFmpeg (PyAV) reads the very same
files, and fragmented MP4s of the same pictures cut at the same share.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from agent.core.errors import AgentError
from agent.docking import rescue
from benchmarks._table import markdown

FOOTAGE = Path(__file__).parents[1] / "firmware_sim" / "media" / "plaza.mp4"
SIZE = (1280, 720)
FPS, KEY_EVERY, RATE_HZ = 30, 60, 48_000
PICTURES, GOOD_PICTURES = 600, 240
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
X264, X265 = ("libx264", "veryfast"), ("libx265", "ultrafast")
WAYS: dict[str, tuple[tuple[str, str], dict[str, str]]] = {
    "H.264": (X264, {"bf": "0", "b": "6M"}),
    "H.264, B-frames": (X264, {"bf": "3", "b": "6M"}),
    "H.264, baseline, four slices": (X264, {"profile": "baseline", "slices": "4", "b": "6M"}),
    "HEVC": (X265, {"x265-params": "log-level=none:bframes=0:bitrate=3000"}),
    "HEVC, B-frames": (X265, {"x265-params": "log-level=none:bframes=3:bitrate=3000"}),
}
CUTS = (0.10, 0.50, 0.90, 0.99)
DAMAGE_BYTES = 64 << 10
DAMAGES = {
    "read as zeros": bytes(DAMAGE_BYTES),
    "overwritten": np.random.default_rng(1).bytes(DAMAGE_BYTES),
}

Shown = list[tuple[Fraction, str]]
"""Pictures: time after the first one in seconds, hash of the pixels."""


@dataclass(frozen=True, slots=True)
class _Played:
    shown: Shown
    errors: int


def table() -> str:
    """Measure, and give both tables: recordings that were cut, and damaged ones."""
    cut: list[Sequence[object]] = []
    damaged: list[Sequence[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way in WAYS:
            bench = _Bench(way, folder)
            cut += [bench.cut(share) for share in CUTS]
            damaged += [bench.damaged(label, filling) for label, filling in DAMAGES.items()]
    tried = ["rescued", "wrong", "decode errors", "MB/s", "FFmpeg, the same file"]
    first = ["codec", "cut at", "pictures whole in it", *tried, "FFmpeg, fragmented MP4"]
    second = ["codec", "64 KiB in the middle", "pictures whole in it", *tried, "times off, s"]
    return f"{markdown(first, cut)}\n\n{markdown(second, damaged)}"


class _Bench:
    """One way of recording."""

    def __init__(self, way: str, folder: Path) -> None:
        self._way = way
        self._folder = folder
        self._good = _record(way, folder / "good.mp4", GOOD_PICTURES, 500, {})
        self._whole = _record(way, folder / "whole.mp4", PICTURES, 0, {})
        self._fragmented = _record(way, folder / "fragmented.mp4", PICTURES, 0, FRAGMENTED)
        self._times: dict[str, list[Fraction]] = {}
        for at, pixels in _played(self._whole).shown:
            self._times.setdefault(pixels, []).append(at)

    def cut(self, share: float) -> Sequence[object]:
        """Give a row of a recording cut at a share of its bytes."""
        data = self._whole.read_bytes()
        data = data[: int(share * len(data))]
        there = _whole_pictures(self._whole, len(data))
        cells, _ = self._rescued(data, there)
        return (self._way, f"{share:.0%}", there, *cells, self._fragmented_share(share))

    def damaged(self, label: str, filling: bytes) -> Sequence[object]:
        """Give a row of a recording without its index and with other bytes in its middle."""
        data = self._whole.read_bytes()
        damage = len(data) // 2, len(data) // 2 + len(filling)
        last = int(CUTS[-1] * len(data))
        there = sum(
            end <= damage[0] or (damage[1] <= start and end <= last)
            for start, end in _places(self._whole)
        )
        data = data[: damage[0]] + filling + data[damage[1] : last]
        cells, off_s = self._rescued(data, there)
        return (self._way, label, there, *cells, f"{off_s:.2f}")

    def _rescued(self, data: bytes, there: int) -> tuple[Sequence[object], float]:
        broken, out = self._folder / "broken.mp4", self._folder / "out.mp4"
        broken.write_bytes(data)
        begun_s = time.perf_counter()
        try:
            rescue.rescue(broken, self._good, out)
            seconds, found = time.perf_counter() - begun_s, _played(out)
        except AgentError:
            seconds, found = time.perf_counter() - begun_s, _Played([], 0)
        right = [(at, pixels) for at, pixels in found.shown if pixels in self._times]
        off_s = max((self._off_s(at, pixels) for at, pixels in right), default=0.0)
        for path in (out, rescue.facts_path(out)):
            path.unlink(missing_ok=True)
        return (
            f"{len(right)} ({len(right) / there:.1%})",
            len(found.shown) - len(right),
            found.errors,
            f"{len(data) / 1e6 / seconds:.0f}",
            f"{len(_played(broken).shown) / there:.0%}",
        ), off_s

    def _off_s(self, at: Fraction, pixels: str) -> float:
        return float(min(abs(at - true) for true in self._times[pixels]))

    def _fragmented_share(self, share: float) -> str:
        path = self._fragmented
        size = int(share * path.stat().st_size)
        cut = path.with_name("cut.mp4")
        cut.write_bytes(path.read_bytes()[:size])
        return f"{len(_played(cut).shown) / _whole_pictures(path, size):.1%}"


def _played(path: Path) -> _Played:
    """Play a file to its end; errors are counted, corrupt pictures left out."""
    shown: Shown = []
    first: Fraction | None = None
    try:
        with av.open(str(path)) as container:
            for picture in container.decode(video=0):
                at = (picture.pts or 0) * (picture.time_base or Fraction(0))
                first = at if first is None else first
                if not picture.is_corrupt:
                    pixels = hashlib.md5(picture.to_ndarray().tobytes()).hexdigest()
                    shown.append((at - first, pixels))
    except (av.error.FFmpegError, OSError):
        return _Played(shown, 1)
    return _Played(shown, 0)


def _places(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [(packet.pos or 0, (packet.pos or 0) + packet.size) for packet in packets]


def _whole_pictures(path: Path, size_bytes: int) -> int:
    return sum(end <= size_bytes for _, end in _places(path))


def _record(way: str, path: Path, count: int, first: int, muxing: dict[str, str]) -> Path:
    (encoder, preset), options = WAYS[way]
    noise = np.random.default_rng(first)
    with av.open(str(path), "w", format="mp4", options=muxing) as container:
        video: Any = container.add_stream(encoder, FPS, options={"preset": preset, **options})
        (video.width, video.height), video.pix_fmt = SIZE, "yuv420p"
        video.codec_context.gop_size = KEY_EVERY
        sound: Any = container.add_stream("aac", rate=RATE_HZ)
        sound.layout = "mono"
        heard = 0
        for index, picture in enumerate(_pictures(first, count)):
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(picture))
            while heard < (index + 1) * RATE_HZ // FPS:
                container.mux(sound.encode(_sound(heard, noise)))
                heard += 1024
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


def _pictures(first: int, count: int) -> Iterator[Any]:
    """Give pictures of the footage, from one on; the footage begins again where it ends."""
    done = -first
    while True:
        with av.open(str(FOOTAGE)) as container:
            for picture in container.decode(video=0):
                if done >= 0:
                    yield picture.reformat(*SIZE, "yuv420p")
                done += 1
                if done == count:
                    return


def _sound(start: int, noise: np.random.Generator) -> Any:
    wave = 0.1 * noise.standard_normal((1, 1024)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
    return frame
