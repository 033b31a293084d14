"""Broken recordings made playable, beside what FFmpeg reads of them and beside a fragmented MP4.

Real footage, encoded anew as cameras do (1280x720, sound beside it), is cut at a share of its
bytes; the good clip is another part of the same footage. A picture counts if it lies whole in what
is left and, decoded from the rescued file, equals the original's in every pixel at the same time.
FFmpeg (PyAV) reads the very same cut files, and fragmented MP4s of the same pictures cut at the
same share.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator
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
    "99%, 64 KiB in the middle read as zeros": bytes(DAMAGE_BYTES),
    "99%, 64 KiB in the middle overwritten": np.random.default_rng(1).bytes(DAMAGE_BYTES),
}

Shown = list[tuple[Fraction, str]]
"""Pictures: time after the first one in seconds, hash of the pixels."""


@dataclass(frozen=True, slots=True)
class _Played:
    shown: Shown
    errors: int


def table() -> str:
    """Measure, and give the table."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way in WAYS:
            rows += _rows(way, folder)
    head = [
        *("codec", "what is left", "pictures whole in it", "rescued", "at another time", "wrong"),
        *("decode errors", "MB/s", "FFmpeg, the same file", "FFmpeg, fragmented MP4"),
    ]
    return markdown(head, rows)


def _rows(way: str, folder: Path) -> Iterator[tuple[object, ...]]:
    good = _record(way, folder / "good.mp4", GOOD_PICTURES, 500, {})
    whole = _record(way, folder / "whole.mp4", PICTURES, 0, {})
    fragmented = _record(way, folder / "fragmented.mp4", PICTURES, 0, FRAGMENTED)
    original = set(_played(whole).shown)
    pixels_of = {pixels for _, pixels in original}
    for label, data in _left(whole.read_bytes()):
        broken, out = folder / "broken.mp4", folder / "out.mp4"
        broken.write_bytes(data)
        begun_s = time.perf_counter()
        try:
            rescue.rescue(broken, good, out)
            seconds, found = time.perf_counter() - begun_s, _played(out)
        except AgentError:
            seconds, found = time.perf_counter() - begun_s, _Played([], 0)
        there = _whole_pictures(whole, len(data))
        right = len(set(found.shown) & original)
        known = sum(pixels in pixels_of for _, pixels in found.shown)
        share = len(data) / whole.stat().st_size
        peer = _fragmented_share(fragmented, share) if label not in DAMAGES else ""
        yield (
            *(way, label, there, f"{right} ({right / there:.1%})", known - right),
            *(len(found.shown) - known, found.errors, f"{len(data) / 1e6 / seconds:.0f}"),
            *(f"{len(_played(broken).shown) / there:.0%}", peer),
        )
        for path in (out, rescue.facts_path(out)):
            path.unlink(missing_ok=True)


def _left(data: bytes) -> Iterator[tuple[str, bytes]]:
    for cut in CUTS:
        yield f"{cut:.0%}", data[: int(cut * len(data))]
    middle = len(data) // 2
    last = int(CUTS[-1] * len(data))
    for label, filling in DAMAGES.items():
        yield label, data[:middle] + filling + data[middle + DAMAGE_BYTES : last]


def _fragmented_share(path: Path, share: float) -> str:
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


def _whole_pictures(path: Path, size_bytes: int) -> int:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return sum((packet.pos or 0) + packet.size <= size_bytes for packet in packets)


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
