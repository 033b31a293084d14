"""What goes wrong with a camera's picture, rendered over real footage, with the truth of it.

Pictures are brightness planes (180x320, 8 bit). Footage of some seconds is played to and fro for as
long as a scene needs, so people walk in every scene. Each maker gives one variant of one fault from
its seed; `NAMES` lists them. Lengths in pixels are those of the plane, times seconds of the scene.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH_PX: Final = 320
HEIGHT_PX: Final = 180
LOOKS_PER_S: Final = 2.0
LORRY_S: Final = 12.0  # a second to come, ten to stand, a second to go
BEGIN_S: Final = 45.0  # of the fault: by then every reference is learned

Image = NDArray[np.uint8]
Paint = Callable[[Image, float], Image]
"""Draws over a picture (owned by the painter) at a time of the scene."""
Rect = tuple[float, float, float, float]
"""Left, top, width, height in fractions of the picture."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture of a scene."""

    t_s: float
    picture: Image
    people: tuple[Rect, ...] = ()  # that a perfect detector sees of what was drawn
    is_corrupt: bool = False
    camera_offset_s: float | None = None


@dataclass(frozen=True, slots=True)
class Truth:
    """What should be told: a rule's kind and the event's label, and when the fault holds."""

    kind: str
    label: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One variant of a fault, not yet drawn."""

    name: str
    seconds: float
    truths: tuple[Truth, ...] = ()
    paint: Paint = lambda picture, _t_s: picture
    people: Callable[[float], tuple[Rect, ...]] = lambda _t_s: ()
    corrupt_share: float = 0.0
    camera_offset_s: float | None = None
    gap: tuple[float, float] = (0.0, 0.0)  # no pictures from, to
    zone: Rect = (0.02, 0.5, 0.96, 0.49)  # for the rules that need one: the ground
    frozen: tuple[float, float] = field(default=(0.0, 0.0))  # the same picture from, to


def footage(path: Path, looks_per_s: float = LOOKS_PER_S) -> list[Image]:
    """Give the planes of a file at so many a second of its own time."""
    found: list[Image] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for picture in container.decode(stream):
            if picture.pts is None or stream.time_base is None:
                continue
            if float(picture.pts * stream.time_base) * looks_per_s >= len(found):
                small = picture.reformat(WIDTH_PX, HEIGHT_PX, "gray")
                found.append(small.to_ndarray().astype(np.uint8, copy=False))
    return found


def shots(plan: Plan, pictures: Sequence[Image], seed: int) -> Iterator[Shot]:
    """Draw a plan over footage, from a place in it that the seed chooses."""
    dice = np.random.default_rng(seed)
    start = int(dice.integers(0, len(pictures)))
    held: Image | None = None
    for index in range(int(plan.seconds * LOOKS_PER_S)):
        t_s = index / LOOKS_PER_S
        if plan.gap[0] <= t_s < plan.gap[1]:
            continue
        picture = plan.paint(_to_and_fro(pictures, start + index).copy(), t_s)
        if plan.frozen[0] <= t_s < plan.frozen[1]:
            held = picture if held is None else held
            picture = held
        yield Shot(
            t_s,
            picture,
            plan.people(t_s),
            is_corrupt=t_s >= BEGIN_S and bool(dice.random() < plan.corrupt_share),
            camera_offset_s=None if t_s < BEGIN_S else plan.camera_offset_s,
        )


def _to_and_fro(pictures: Sequence[Image], index: int) -> Image:
    last = max(1, len(pictures) - 1)
    place = index % (2 * last)
    return pictures[min(place if place <= last else 2 * last - place, len(pictures) - 1)]


# The camera.


def _health(label: str, end_s: float) -> tuple[Truth, ...]:
    return (Truth("camera_health", label, BEGIN_S, end_s),)


def _is_so(dice: np.random.Generator, share: float) -> bool:
    return bool(dice.random() < share)


def _during(end_s: float, paint: Paint) -> Paint:
    return lambda picture, t_s: paint(picture, t_s) if BEGIN_S <= t_s < end_s else picture


def _grain(picture: NDArray[np.floating], sigma: float, t_s: float) -> Image:
    noise = np.random.default_rng(round(t_s * 1000)).normal(0, sigma, picture.shape)
    return cast("Image", np.clip(picture + noise, 0, 255).astype(np.uint8))


def untouched(_dice: np.random.Generator) -> Plan:
    """Nothing is wrong."""
    return Plan("untouched", 110)


def black(dice: np.random.Generator) -> Plan:
    """No signal from the sensor: limited-range black with little or no noise."""
    level, sigma, end_s = dice.uniform(0, 18), dice.uniform(0, 1.5), BEGIN_S + 30
    plane = np.full((HEIGHT_PX, WIDTH_PX), level)
    paint = _during(end_s, lambda _picture, t_s: _grain(plane, sigma, t_s))
    return Plan("black", end_s + 20, _health("dark", end_s), paint)


def covered(dice: np.random.Generator) -> Plan:
    """A hand, tape or paint before the lens: a smooth dim surface, and its grain."""
    level, end_s = dice.uniform(10, 150), BEGIN_S + 30
    slope = np.linspace(-1, 1, WIDTH_PX) * dice.uniform(0, 12)
    plane = level + slope[None, :] + np.linspace(-1, 1, HEIGHT_PX)[:, None] * dice.uniform(0, 8)
    sigma = dice.uniform(0.5, 3)
    paint = _during(end_s, lambda _picture, t_s: _grain(plane, sigma, t_s))
    return Plan("covered", end_s + 20, _health("dark", end_s), paint)


def overexposed(dice: np.random.Generator) -> Plan:
    """The iris sticks or a lamp shines in: nearly all of it white."""
    gain, offset, end_s = dice.uniform(2, 4), dice.uniform(170, 230), BEGIN_S + 30

    def paint(picture: Image, t_s: float) -> Image:
        return _grain(picture * gain + offset, 1.0, t_s)

    return Plan("overexposed", end_s + 20, _health("bright", end_s), _during(end_s, paint))


def blurred(dice: np.random.Generator) -> Plan:
    """The lens goes out of focus over some seconds; the grain stays."""
    sigma, ramp_s, end_s = dice.uniform(3, 7), dice.uniform(2, 30), BEGIN_S + 60

    def paint(picture: Image, t_s: float) -> Image:
        width = max(0.1, sigma * min(1.0, (t_s - BEGIN_S) / ramp_s))
        return _grain(cv2.GaussianBlur(picture, (0, 0), width).astype(float), 1.0, t_s)

    return Plan("blurred", end_s + 20, _health("blurred", end_s), _during(end_s, paint))


def shifted(dice: np.random.Generator) -> Plan:
    """The mount is knocked: the view moves by 2 to 20 pixels, and by less than tells."""
    is_told = _is_so(dice, 0.7)
    frac = dice.uniform(0.0125, 0.06) if is_told else dice.uniform(0.002, 0.0075)
    angle, end_s = dice.uniform(0, math.tau), BEGIN_S + 30
    move = np.array(
        [[1, 0, frac * math.cos(angle) * WIDTH_PX], [0, 1, frac * math.sin(angle) * HEIGHT_PX]]
    )

    def paint(picture: Image, _t_s: float) -> Image:
        size = (WIDTH_PX, HEIGHT_PX)
        return cast("Image", cv2.warpAffine(picture, move, size, borderMode=cv2.BORDER_REFLECT))

    truths = _health("moved", end_s) if is_told else ()
    return Plan("shifted", end_s + 20, truths, _during(end_s, paint))


def turned(dice: np.random.Generator) -> Plan:
    """Somebody turns the camera elsewhere: mirrored, turned and larger, nothing is where it was."""
    end_s = BEGIN_S + 30
    centre = (WIDTH_PX / 2, HEIGHT_PX / 2)
    angle = float(dice.choice([-1, 1]) * dice.uniform(15, 60))
    move = cv2.getRotationMatrix2D(centre, angle, dice.uniform(1.2, 1.6))

    def paint(picture: Image, _t_s: float) -> Image:
        size = (WIDTH_PX, HEIGHT_PX)
        return cast("Image", cv2.warpAffine(picture, move, size, borderMode=cv2.BORDER_REFLECT))

    return Plan("turned", end_s + 20, _health("moved", end_s), _during(end_s, paint))


def frozen(dice: np.random.Generator) -> Plan:
    """The encoder repeats one picture for a minute."""
    end_s = BEGIN_S + dice.uniform(45, 75)
    plan = Plan("frozen", end_s + 20, _health("frozen", end_s))
    return replace(plan, frozen=(BEGIN_S, end_s))


def noisy(dice: np.random.Generator) -> Plan:
    """Grain of a sensor at high gain: bad, and no fault that this agent tells."""
    sigma, end_s = dice.uniform(3, 20), BEGIN_S + 40
    paint = _during(end_s, lambda picture, t_s: _grain(picture.astype(float), sigma, t_s))
    return Plan("noisy", end_s + 20, (), paint)


def nightfall(dice: np.random.Generator) -> Plan:
    """It gets dark within a minute or two, and the gain makes grain: no fault."""
    low, sigma, ramp_s = dice.uniform(0.25, 0.5), dice.uniform(1, 4), dice.uniform(40, 120)

    def paint(picture: Image, t_s: float) -> Image:
        share = min(1.0, max(0.0, (t_s - BEGIN_S) / ramp_s))
        return _grain(picture * (1 + share * (low - 1)) + 4, 0.5 + share * sigma, t_s)

    return Plan("nightfall", BEGIN_S + ramp_s + 60, (), paint)


def fog(dice: np.random.Generator) -> Plan:
    """Contrast goes and a grey veil comes within five minutes: the thicker, the less is seen."""
    left, veil = dice.uniform(0.15, 0.7), dice.uniform(140, 200)

    def paint(picture: Image, t_s: float) -> Image:
        share = min(1.0, max(0.0, (t_s - BEGIN_S) / 300)) * (1 - left)
        return _grain(picture * (1 - share) + veil * share, 1.0, t_s)

    return Plan("fog", BEGIN_S + 360, (), paint)


def lorry(dice: np.random.Generator) -> Plan:
    """A lorry stops before the lens for ten seconds, and fills most or all of the picture."""
    colour, share = int(dice.integers(20, 220)), dice.uniform(0.6, 1.0)
    seam = int(dice.integers(8, 60))

    def paint(picture: Image, t_s: float) -> Image:
        passed_s = t_s - BEGIN_S
        if not 0 <= passed_s < LORRY_S:
            return picture
        front = min(1.0, passed_s, LORRY_S - passed_s)
        right = int(front * share * WIDTH_PX)
        picture[:, :right] = colour
        picture[:: max(6, seam), :right] = max(0, colour - 15)
        return _grain(picture.astype(float), 1.0, t_s)

    return Plan("lorry", BEGIN_S + 45, (), paint)


def wrong_clock(dice: np.random.Generator) -> Plan:
    """The camera's own clock is off; less than four seconds is nothing."""
    is_told = _is_so(dice, 0.6)
    offset_s = dice.uniform(6, 7200) if is_told else dice.uniform(0, 4)
    plan = Plan("clock", BEGIN_S + 40, _health("clock", BEGIN_S + 40) if is_told else ())
    return replace(plan, camera_offset_s=float(dice.choice([-1, 1]) * offset_s))


def damaged(dice: np.random.Generator) -> Plan:
    """Packets are lost on the way: a share of the pictures is damaged."""
    is_told = _is_so(dice, 0.6)
    share = dice.uniform(0.15, 0.6) if is_told else dice.uniform(0, 0.01)
    plan = Plan("degraded", BEGIN_S + 90, _health("degraded", BEGIN_S + 90) if is_told else ())
    return replace(plan, corrupt_share=float(share))


def lost(dice: np.random.Generator) -> Plan:
    """The stream stops for a while; less than eight seconds is nothing."""
    is_told = _is_so(dice, 0.7)
    away_s = dice.uniform(14, 120) if is_told else dice.uniform(1, 8)
    end_s = BEGIN_S + float(away_s)
    truths = _health("lost", end_s) if is_told else ()
    return replace(Plan("lost", end_s + 30, truths), gap=(BEGIN_S, end_s))
