"""The card of a simulated body camera: real recordings, and what may be wrong with a card."""

import functools
import io
import math
import os
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FOLDER = "DCIM/100MEDIA"
WIDTH_PX, HEIGHT_PX, FPS, SOUND_HZ = 320, 180, 25, 16_000
FIRST_UTC_S = 1_767_254_400  # the first recording, by the card's own dates
CUT_FRAC, ZERO_FRAC = 0.6, 0.7
GIANT_BYTES = 1 << 42
MANY = 20_000
BYTES_PER_MB = 1_000_000
DEEP = 12


@functools.cache
def clip(seed: int, seconds: float) -> bytes:
    """Give an MP4 with moving pictures and sound, its index at the end as cameras write it.

    The same seed gives the same bytes.
    """
    target = io.BytesIO()
    dice = np.random.default_rng(seed)
    noise = dice.integers(0, 96, (HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    with av.open(target, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        video.codec_context.thread_count = 1
        sound = container.add_stream("aac", rate=SOUND_HZ)
        sound.layout = "mono"
        for number in range(round(seconds * FPS)):
            container.mux(video.encode(_picture(noise, number)))
        container.mux(video.encode(None))
        for start in range(0, round(seconds * SOUND_HZ), 1024):
            container.mux(sound.encode(_tone(start)))
        container.mux(sound.encode(None))
    return target.getvalue()


def fill(root: Path, scenario: Mapping[str, Any]) -> None:
    """Lay recordings and the scenario's faults on a card.

    Args:
        root: of the card, made if it is not there.
        scenario: `seed`, `files`, `clip_s`, `pad_mb` by which each is larger, and `card`: a list
            of faults by name.
    """
    seed, count = int(scenario.get("seed", 1)), int(scenario.get("files", 3))
    for number in range(1, count + 1):
        content = clip(seed + number % 4, float(scenario.get("clip_s", 2.0)))
        # A camera's clips differ; a tail that players skip makes that cheap.
        mark = random.Random(f"{scenario.get('serial')}-{seed}-{number}").randbytes(64)
        mark += random.Random(mark).randbytes(int(scenario.get("pad_mb", 0)) * BYTES_PER_MB)
        free = (8 + len(mark)).to_bytes(4, "big") + b"free" + mark
        film(root, f"MOV_{number:04}.mp4", content + free, FIRST_UTC_S + 60 * number)
    for fault in scenario.get("card", ()):
        if fault not in FAULTS:
            raise ValueError(f"card fault {fault!r}; allowed: {', '.join(sorted(FAULTS))}")
        FAULTS[fault](root)


def film(root: Path, name: str, content: bytes, utc_s: int) -> Path:
    """Lay one file on a card."""
    path = root / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (utc_s, utc_s))
    return path


def _picture(noise: "np.ndarray[Any, Any]", number: int) -> av.VideoFrame:
    plane = np.roll(noise, 3 * number, axis=1)
    left = (7 * number) % (WIDTH_PX - 40)
    plane[60:120, left : left + 40] = 230
    grey = np.full((HEIGHT_PX // 2, WIDTH_PX), 128, np.uint8)
    frame = av.VideoFrame.from_ndarray(np.vstack([plane, grey]), format="yuv420p")
    frame.pts, frame.time_base = number, Fraction(1, FPS)
    return frame


def _tone(start: int) -> av.AudioFrame:
    wave = [0.2 * math.sin(2 * math.pi * 440 * at / SOUND_HZ) for at in range(start, start + 1024)]
    frame = av.AudioFrame.from_ndarray(np.array([wave], np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, start, Fraction(1, SOUND_HZ)
    return frame


def _newest(root: Path) -> Path:
    return max((root / FOLDER).glob("*.mp4"))


def _no_moov(root: Path) -> None:
    """The battery died: the file ends in the middle, without an index."""
    path = _newest(root)
    times = path.stat()
    os.truncate(path, int(times.st_size * CUT_FRAC))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _zero_tail(root: Path) -> None:
    """The card says that it has written what it has not."""
    path = _newest(root)
    data = path.read_bytes()
    kept = int(len(data) * ZERO_FRAC)
    path.write_bytes(data[:kept] + bytes(len(data) - kept))


def _symlink(root: Path) -> None:
    (root / FOLDER / "MOV_9999.mp4").symlink_to("/etc/passwd")


def _dir_loop(root: Path) -> None:
    """A folder that leads back to the root: many levels of it, as a damaged table shows them."""
    path = root
    for _ in range(DEEP):
        path /= "LOOP"
    path.mkdir(parents=True)
    (path / "MOV_0001.mp4").write_bytes(b"deep")


def _rtl_name(root: Path) -> None:
    (root / FOLDER / "MOV_\u202e4pm.exe.mp4").write_bytes(b"looks like another")


def _long_name(root: Path) -> None:
    (root / FOLDER / ("M" * 251 + ".mp4")).write_bytes(b"255 bytes of name")


def _many_files(root: Path) -> None:
    folder = root / "DCIM" / "MANY"
    folder.mkdir(parents=True)
    for number in range(MANY):
        (folder / f"{number:05}.jpg").write_bytes(b"%d" % number)


def _huge_sparse(root: Path) -> None:
    path = root / FOLDER / "MOV_8888.mp4"
    path.touch()
    os.truncate(path, GIANT_BYTES)


def _other_files(root: Path) -> None:
    (root / "autorun.inf").write_bytes(b"[autorun]\r\nopen=setup.exe\r\n")


FAULTS: dict[str, Callable[[Path], None]] = {
    "no_moov": _no_moov,
    "zero_tail": _zero_tail,
    "symlink": _symlink,
    "dir_loop": _dir_loop,
    "rtl_name": _rtl_name,
    "long_name": _long_name,
    "many_files": _many_files,
    "huge_sparse": _huge_sparse,
    "other_files": _other_files,
}
