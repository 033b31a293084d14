"""What the scripts of scenes share: cameras, zones, walks and drives, chosen by seeded dice."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim.scenes.paths import Aside, Pace, Way
from firmware_sim.scenes.pinhole import Camera, Floats
from firmware_sim.scenes.stage import CAR, PERSON, Actor, Polygon

Spot = tuple[float, float]

_SIZES_PX: Final = ((1280, 720), (1920, 1080), (640, 480))
FROM_DOOR: Final = "out of a door"
INTO_DOOR: Final = "into a door"

_LANE_M: Final = 3.5
_LEAD_S: Final = 2.0
_FAR_M: Final = 90.0
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Studio:
    """Seeded dice and a camera; every script gets its own."""

    dice: np.random.Generator
    camera: Camera

    def between(self, low: float, high: float) -> float:
        """Give a number between two."""
        return float(self.dice.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        """Give a whole number, both ends possible."""
        return int(self.dice.integers(low, high + 1))

    def one_of(self, names: Sequence[str]) -> str:
        """Choose."""
        return names[int(self.dice.integers(len(names)))]

    def is_so(self, share: float) -> bool:
        """Say yes in a share of cases."""
        return bool(self.dice.random() < share)

    def ground(self, spot: Spot) -> Spot:
        """Give the place that is seen at a spot of the picture."""
        return self.camera.ground(*spot)

    def seen(self, place: Spot) -> Spot:
        """Give the spot of the picture at which a place of the ground is seen."""
        x, y = self.camera.project(np.array((*place, 0.0)))
        return float(x), float(y)

    def walk(
        self,
        stops: Sequence[Spot],
        *,
        start_s: float = 0.0,
        pauses_s: dict[int, float] | None = None,
        speed_mps: float | None = None,
        plot: str = "",
    ) -> Actor:
        """Give a person who goes from spot to spot of the picture, and pauses at some of them.

        Nobody drops from the sky: without a door in its plot's name, a walk begins and ends some
        seconds before and after its first and last spot, straight on.
        """
        speed = self.between(0.9, 1.6) if speed_mps is None else speed_mps
        way = Way.through([self.ground(spot) for spot in stops], is_round=False)
        way = Way.through(
            [
                *([] if FROM_DOOR in plot else [_before(way, _LEAD_S * speed)]),
                *map(tuple, way.points.tolist()),
                *([] if INTO_DOOR in plot else [_after(way, _LEAD_S * speed)]),
            ],
            is_round=False,
        )
        first = 0 if FROM_DOOR in plot else 1
        phases: list[tuple[float, float]] = []
        for number, length in enumerate(np.diff(way.lengths).tolist()):
            if pause := (pauses_s or {}).get(number - first, 0.0):
                phases.append((pause, 0.0))
            phases.append((length / speed, speed))
        pace = Pace.steps(phases, start_s=start_s)
        aside = Aside(sway_m=self.between(0.0, 0.03), phase=self.between(0, 2 * math.pi))
        return Actor(
            "person", PERSON, way, pace, aside, appears_s=start_s, vanishes_s=pace.ends_s, plot=plot
        )


@dataclass(frozen=True, slots=True)
class Mast:
    """What cameras of a kind are put on: ranges of height, tilt and focal length."""

    height_m: tuple[float, float]
    tilt_deg: tuple[float, float]
    focal_frac: tuple[float, float]

    def camera(self, dice: np.random.Generator) -> Camera:
        """Give one of them, a little askew."""
        width, height = _SIZES_PX[int(dice.integers(len(_SIZES_PX)))]
        return Camera(
            focal_frac=float(dice.uniform(*self.focal_frac)),
            height_m=float(dice.uniform(*self.height_m)),
            tilt_deg=float(dice.uniform(*self.tilt_deg)),
            roll_deg=float(dice.uniform(-3.0, 3.0)),
            k1=float(dice.uniform(-0.10, 0.02)),
            width_px=width,
            height_px=height,
        )


WALL: Final = Mast((4.0, 7.0), (24.0, 38.0), (0.7, 1.0))  # looks at people
MAST: Final = Mast((6.0, 10.0), (17.0, 28.0), (0.8, 1.2))  # looks at a road
GANTRY: Final = Mast((10.0, 13.0), (21.0, 27.0), (0.75, 0.9))  # looks down between cars


def drawn(corners: Sequence[Spot]) -> Polygon:
    """Give corners as a person's file would have them."""
    return tuple((round(float(x), _DIGITS), round(float(y), _DIGITS)) for x, y in corners)


def quad(studio: Studio, centre: Spot, half: Spot) -> Polygon:
    """Give a four-sided zone about a spot, none of its sides quite level."""
    corners = []
    for right, down in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        off_x, off_y = studio.between(0.85, 1.15), studio.between(0.85, 1.15)
        corners.append((centre[0] + right * half[0] * off_x, centre[1] + down * half[1] * off_y))
    return drawn(corners)


def along_side(polygon: Polygon, side: int, inward: float, beyond: float) -> tuple[Spot, Spot]:
    """Give the two ends of a path beside a side of a convex zone, corners clockwise as seen.

    Args:
        polygon: the zone.
        side: number of the corner at which the side begins.
        inward: how far inside the border the path runs, negative outside, in fractions.
        beyond: how much longer than the side it is at both ends.
    """
    (x0, y0), (x1, y1) = polygon[side], polygon[(side + 1) % len(polygon)]
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    off_x, off_y = -dy * inward, dx * inward
    return (
        (x0 - dx * beyond + off_x, y0 - dy * beyond + off_y),
        (x1 + dx * beyond + off_x, y1 + dy * beyond + off_y),
    )


@dataclass(frozen=True, slots=True)
class Road:
    """A straight road before a camera; metres along it count from the middle of what is seen."""

    studio: Studio
    middle: Spot  # on the ground
    bearing_deg: float  # of its direction from straight ahead, clockwise
    lanes_m: float = _LANE_M

    def place(self, along_m: float, left_m: float) -> Spot:
        """Give a place of the ground by metres along the road and left of its middle."""
        angle = math.radians(self.bearing_deg)
        ahead_x, ahead_y = math.sin(angle), math.cos(angle)
        return (
            self.middle[0] + along_m * ahead_x - left_m * ahead_y,
            self.middle[1] + along_m * ahead_y + left_m * ahead_x,
        )

    def lane(self, left_m: float, *, is_back: bool = False) -> Way:
        """Give the way of a lane, in the road's direction or against it."""
        ends = [self.place(-_FAR_M, left_m), self.place(_FAR_M, left_m)]
        return Way.through(ends[::-1] if is_back else ends)

    def car(
        self,
        pace: Pace,
        left_m: float = 0.0,
        *,
        is_back: bool = False,
        aside: Aside | None = None,
        hidden: tuple[tuple[float, float], ...] = (),
        plot: str = "",
    ) -> Actor:
        """Give a car; its pace counts metres from `_FAR_M` before the middle: see `start_m`."""
        way = self.lane(left_m, is_back=is_back)
        return Actor("vehicle", CAR, way, pace, aside or Aside(), hidden=hidden, plot=plot)

    def feet(self, along_m: Floats, left_m: float) -> Floats:
        """Give where the feet (n, 2) of cars are seen that stand there."""
        pace = Pace.of([(1.0, 0.0)], speed_mps=1.0, begin_m=start_m(0.0))
        boxes = self.car(pace, left_m).boxes(self.studio.camera, along_m)
        return np.stack((boxes[:, 0] + boxes[:, 2] / 2, boxes[:, 1] + boxes[:, 3]), axis=-1)

    def foot(self, along_m: float, left_m: float) -> Spot:
        """Give where a car's foot is seen that stands there."""
        x, y = self.feet(np.array([along_m]), left_m)[0]
        return float(x), float(y)

    def shown(self, left_m: float, most_m: float = 40.0) -> tuple[float, float]:
        """Give from where to where along a lane feet of cars are well in the picture."""
        along = np.arange(-35.0, 70.0, 1.0)
        x, y = self.feet(along, left_m).T
        inside = along[(x > 0.08) & (x < 0.92) & (y > 0.32) & (y < 0.90)]  # noqa: PLR2004 - shares
        return float(inside[0]), float(min(inside[-1], inside[0] + most_m))

    def band(self, along: tuple[float, float], left: tuple[float, float]) -> Polygon:
        """Give the zone in which the feet of cars are that drive there; left from right to left."""
        places = np.linspace(along[0], along[1], 4).tolist()
        corners = [self.foot(place, left[1]) for place in places]
        corners += [self.foot(place, left[0]) for place in reversed(places)]
        inside = drawn([(min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)) for x, y in corners])
        return tuple(dict.fromkeys(inside))


def _before(way: Way, length_m: float) -> Spot:
    x, y = way.at(np.array([-length_m]))[0]
    return float(x), float(y)


def _after(way: Way, length_m: float) -> Spot:
    x, y = way.at(np.array([way.length_m + length_m]))[0]
    return float(x), float(y)


def start_m(along_m: float) -> float:
    """Give a pace's metres at a place along the road, in the road's direction."""
    return _FAR_M + along_m


def road_before(studio: Studio, bearing_deg: float | None = None) -> Road:
    """Give a road past the middle of the picture."""
    bearing = studio.between(-50, 50) if bearing_deg is None else bearing_deg
    spot = (studio.between(0.42, 0.58), studio.between(0.55, 0.65))
    return Road(studio, studio.ground(spot), bearing)
