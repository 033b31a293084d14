"""Plane geometry in frame fractions, shared by the rules: pure Python, no allocation worth naming.

Points are (x, y) with y down. Polygons are closed by themselves: the last point is joined to
the first.
"""

import math
from collections.abc import Sequence

from agent.core.model import Point

Pair = tuple[float, float]

DIGITS = 6  # of every float that leaves a rule: the same input gives the same bytes


def rounded(value: float) -> float:
    """Cut a float to the digits that signals carry."""
    return round(value, DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0


def area(polygon: Sequence[Pair]) -> float:
    """Give the area of a simple polygon, in units of the frame."""
    return abs(sum(_cross(a, b) for a, b in _edges(polygon))) / 2


def length(polygon: Sequence[Pair]) -> float:
    """Give the length of the polygon's border."""
    return sum(math.dist(a, b) for a, b in _edges(polygon))


def between(a: Pair, b: Pair, share: float) -> Point:
    """Give the point at a share of the way from `a` to `b`."""
    return Point(a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]))


def is_simple(polygon: Sequence[Pair]) -> bool:
    """Whether no two edges of the polygon touch but neighbours at their common corner."""
    if len(set(polygon)) != len(polygon):
        return False
    edges = _edges(polygon)
    count = len(edges)
    return not any(
        segments_meet(*edges[i], *edges[j])
        for i in range(count)
        for j in range(i + 2, count)
        if (j + 1) % count != i
    )


def is_inside(point: Pair, polygon: Sequence[Pair]) -> bool:
    """Whether a point lies in the polygon, by the even-odd rule; the border is undefined."""
    x, y = point
    inside = False
    for (ax, ay), (bx, by) in _edges(polygon):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            inside = not inside
    return inside


def distance_to_segment(point: Pair, a: Pair, b: Pair) -> float:
    """Give the distance of a point to the segment from `a` to `b`."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length2 = dx * dx + dy * dy
    along = 0.0
    if length2 > 0:
        along = ((point[0] - a[0]) * dx + (point[1] - a[1]) * dy) / length2
        along = min(1.0, max(0.0, along))
    return math.hypot(point[0] - a[0] - along * dx, point[1] - a[1] - along * dy)


def depth(point: Pair, polygon: Sequence[Pair]) -> float:
    """Give the signed distance to the polygon's border: positive inside."""
    nearest = min(distance_to_segment(point, a, b) for a, b in _edges(polygon))
    return nearest if is_inside(point, polygon) else -nearest


def side(point: Pair, start: Pair, end: Pair) -> float:
    """Give the signed distance to the endless line: positive left, seen from start to end.

    Left is meant as on the screen, where y points down.
    """
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    return ((point[0] - start[0]) * dy - (point[1] - start[1]) * dx) / length


def crossing(a: Pair, b: Pair, start: Pair, end: Pair) -> tuple[float, float] | None:
    """Where the step from `a` to `b` meets the endless line through `start` and `end`.

    Returns:
        (share of the step, share of the line), the latter within 0..1 on the segment itself;
        None where the step runs along the line or stays on one side.
    """
    from_side, to_side = side(a, start, end), side(b, start, end)
    if (from_side > 0) == (to_side > 0) or from_side == to_side:
        return None
    step = from_side / (from_side - to_side)
    spot = between(a, b, step)
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((spot.x - start[0]) * dx + (spot.y - start[1]) * dy) / (dx * dx + dy * dy)
    return step, along


def segments_meet(a: Pair, b: Pair, c: Pair, d: Pair) -> bool:
    """Whether two segments have a point in common."""
    turns = (_turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b))
    if _differ(turns[0], turns[1]) and _differ(turns[2], turns[3]):
        return True
    ends = ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
    return any(turn == 0 and _is_between(*spot) for turn, spot in zip(turns, ends, strict=True))


def _edges(polygon: Sequence[Pair]) -> list[tuple[Pair, Pair]]:
    return list(zip(polygon, [*polygon[1:], polygon[0]], strict=True))


def _cross(a: Pair, b: Pair) -> float:
    return a[0] * b[1] - b[0] * a[1]


def _turn(a: Pair, b: Pair, c: Pair) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _differ(one: float, other: float) -> bool:
    return one < 0 < other or other < 0 < one


def _is_between(a: Pair, b: Pair, c: Pair) -> bool:
    return min(a[0], b[0]) <= c[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= c[1] <= max(a[1], b[1])
