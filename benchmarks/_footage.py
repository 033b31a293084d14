"""Real footage as the two streams of a camera, for benchmarks of seeing."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

import av
import numpy as np

from agent.core.model import Box
from firmware_sim import streams

ROOT: Final = Path(__file__).parent.parent
PLAZA: Final = ROOT / "firmware_sim" / "media" / "plaza.mp4"
SHARED: Final = ROOT.parent / "shared"
LAB: Final = SHARED / "media" / "lab"
ANNOTATED: Final = SHARED / "data" / "plaza_people.csv"
MAIN_WIDTH_PX: Final = 1920
SUB_HEIGHT_PX: Final = 360
MAIN_KBIT_PER_S: Final = 3000
SUB_KBIT_PER_S: Final = 400
NOISE_SIGMA: Final = 4.0  # grey levels, of a cheap sensor in the evening
MEDIAN_EVERY: Final = 16  # pictures whose median is the place without people

Image = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Clip:
    """Footage as a camera sends it."""

    name: str
    label: str  # of what is looked for
    main: Path
    sub: Path
    sub_size: tuple[int, int]
    fps: float
    length_s: float


def clips(folder: Path, max_s: float) -> tuple[list[Clip], list[str]]:
    """Make the clips that can be made here, and say which cannot.

    Args:
        folder: where the streams are written.
        max_s: longest clip.
    """
    made = [
        _clip("plaza: people all the time", "person", Footage(PLAZA, max_s), folder),
        _clip("plaza, empty, sensor noise", "person", Empty(PLAZA, max_s), folder),
    ]
    skipped = []
    for name, label, file in (
        ("hall: single persons who stand", "person", "one-by-one-person-detection.mp4"),
        ("road: cars from above", "vehicle", "car-detection.mp4"),
    ):
        if (LAB / file).exists():
            made.append(_clip(name, label, Footage(LAB / file, max_s), folder))
        else:
            skipped.append(f"Left out: {name} ({file} may not be committed, ../shared is absent).")
    return made, skipped


class Footage:
    """The pictures of a file, from its start."""

    def __init__(self, path: Path, max_s: float) -> None:
        streams.check(path)
        self.path = path
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            self.fps = float(video.average_rate or 25)
            self.size = video.width, video.height
            self.count = min(round(max_s * self.fps), video.frames or round(max_s * self.fps))

    def pictures(self) -> Iterator[Image]:
        """Give every picture as RGB."""
        with av.open(str(self.path)) as container:
            for frame in itertools.islice(container.decode(video=0), self.count):
                yield cast("Image", frame.to_ndarray(format="rgb24"))


class Empty(Footage):
    """The place of a file without anybody in it, as a noisy sensor sees it."""

    def pictures(self) -> Iterator[Image]:
        """Give the median of the file, each time with another noise."""
        place = place_without_people(Footage(self.path, self.count / self.fps)).astype(np.float32)
        dice = np.random.default_rng(1)
        for _ in range(self.count):
            noise = dice.normal(0.0, NOISE_SIGMA, place.shape[:2]).astype(np.float32)
            yield np.clip(place + noise[..., None], 0, 255).astype(np.uint8)


def place_without_people(footage: Footage) -> Image:
    """Give the median of some pictures."""
    some = itertools.islice(footage.pictures(), 0, None, MEDIAN_EVERY)
    return cast("Image", np.median(list(some), axis=0).astype(np.uint8))


def true_people(path: Path, size: tuple[int, int]) -> dict[int, list[Box]]:
    """Give the annotated persons of the plaza by picture, from 1; boxes in fractions."""
    found: dict[int, list[Box]] = {}
    for line in path.read_text().splitlines():
        number, _, *sides = line.split(",")
        if number.isdigit():
            x, y, w, h = (float(side) for side in sides[:4])
            box = Box(x / size[0], y / size[1], w / size[0], h / size[1])
            found.setdefault(int(number), []).append(box)
    return found


def _clip(name: str, label: str, footage: Footage, folder: Path) -> Clip:
    stem = name.split(":", maxsplit=1)[0].replace(",", "").replace(" ", "-")
    main, sub = folder / f"{stem}-main.mp4", folder / f"{stem}-sub.mp4"
    width, height = footage.size
    small = round(width * SUB_HEIGHT_PX / height) // 2 * 2, SUB_HEIGHT_PX
    large = MAIN_WIDTH_PX, round(height * MAIN_WIDTH_PX / width) // 2 * 2
    encode(footage.pictures(), main, footage.fps, large, MAIN_KBIT_PER_S)
    encode(footage.pictures(), sub, footage.fps, small, SUB_KBIT_PER_S)
    return Clip(name, label, main, sub, small, footage.fps, footage.count / footage.fps)


def encode(
    pictures: Iterable[Image], target: Path, fps: float, size: tuple[int, int], kbit_per_s: int
) -> None:
    """Write H.264 as fixed cameras send it, like `firmware_sim.streams`; RGB pictures in."""
    options = {"preset": "veryfast", "bf": "0", "profile": "main", "x264-params": "scenecut=0"}
    with av.open(str(target), "w") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.gop_size = streams.GOP
        stream.bit_rate = kbit_per_s * 1000
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
