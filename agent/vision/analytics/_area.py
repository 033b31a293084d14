"""A zone less the zones that are taken out of it, with an edge that does not tremble."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agent.core.model import Point, Zone
from agent.vision.analytics import _geometry as geometry

_STEP_FRAC: Final = 0.01  # of the frame: length of one step along a path
_MAX_STEPS: Final = 64


@dataclass(frozen=True, slots=True)
class Area:
    """Where a rule holds; inside from `margin_frac` within its border, outside as far beyond."""

    polygon: tuple[Point, ...]
    excluded: tuple[tuple[Point, ...], ...]
    margin_frac: float

    def depth(self, point: Point) -> float:
        """Give the signed distance to the border, positive inside."""
        found = geometry.depth(point, self.polygon)
        return min([found, *(-geometry.depth(point, other) for other in self.excluded)])

    def holds(self, point: Point, *, was_inside: bool) -> bool:
        """Whether a point is inside, for an object that was inside or outside before."""
        limit = -self.margin_frac if was_inside else self.margin_frac
        return self.depth(point) > limit if was_inside else self.depth(point) >= limit

    def changes(
        self, begin: tuple[int, Point], end: tuple[int, Point], *, is_inside: bool
    ) -> Iterator[tuple[int, Point, bool]]:
        """Walk in small steps from one look to the next; gives when, where, and whether inside."""
        (begin_us, start), (end_us, goal) = begin, end
        way, before = math.dist(start, goal), self.depth(start)
        if (before if is_inside else -before) > way + self.margin_frac:
            return  # too far from the border to reach it
        count = min(_MAX_STEPS, max(1, math.ceil(way / _STEP_FRAC)))
        for index in range(1, count + 1):
            here = self.depth(geometry.between(start, goal, index / count))
            limit = -self.margin_frac if is_inside else self.margin_frac
            if (here <= limit) if is_inside else (here >= limit):
                is_inside = not is_inside
                share = (index - 1 + _part(before, here, limit)) / count
                at_us = round(begin_us + share * (end_us - begin_us))
                yield at_us, geometry.between(start, goal, share), is_inside
            before = here


def area(zone: Zone, hysteresis_frac: float, excluded: Sequence[Zone] = ()) -> Area:
    """Give a zone as an area; a thin zone has a thin margin, so that it can be entered at all."""
    thin = geometry.area(zone.points) / geometry.length(zone.points)
    others = tuple(other.points for other in excluded)
    return Area(zone.points, others, min(hysteresis_frac, thin))


def _part(before: float, here: float, limit: float) -> float:
    """Give the part of a step at which the depth passed the limit, 0..1."""
    if here == before:
        return 1.0
    return min(1.0, max(0.0, (limit - before) / (here - before)))
