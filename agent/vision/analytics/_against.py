"""How far an object has gone back against a direction, shared by the rules that ask for it."""

import math

from agent.core.model import Line, Point
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._trail import Step, Trail, Verdict

TURNED = "turned"


def unit(start: Point, end: Point) -> Point:
    """Give the direction from one point to another, of length 1."""
    length = math.dist(start, end)
    return Point((end[0] - start[0]) / length, (end[1] - start[1]) / length)


def direction_of(line: Line) -> Point:
    """Give the direction in which a line is drawn."""
    return unit(line.start, line.end)


def judge(trail: Trail, here: Step, ahead: Point, min_distance_frac: float) -> Verdict | None:
    """Judge a trail against the allowed direction `ahead`.

    An event begins where the object is `min_distance_frac` behind the farthest it had come, with
    at least as much way along as across, and ends where it has come forward half of that again.
    """
    at_us, foot = here
    if trail.is_told:
        lowest = min(_along(point, ahead) for _, point in trail.points)
        if _along(foot, ahead) - lowest < min_distance_frac / 2:
            return None
        return Verdict(at_us, {}, TURNED)
    farthest = max(trail.points, key=lambda step: _along(step[1], ahead))
    back = _along(farthest[1], ahead) - _along(foot, ahead)
    if back < min_distance_frac or abs(_across(farthest[1], foot, ahead)) > back:
        return None
    before_us, before = trail.points[-1]
    had = _along(farthest[1], ahead) - _along(before, ahead)
    share = (min_distance_frac - had) / (back - had) if back > had else 1.0
    reached_us = round(before_us + min(1.0, max(0.0, share)) * (at_us - before_us))
    return Verdict(reached_us, {"distance_frac": geometry.rounded(back)})


def _along(point: Point, ahead: Point) -> float:
    return point[0] * ahead[0] + point[1] * ahead[1]


def _across(start: Point, end: Point, ahead: Point) -> float:
    return (end[0] - start[0]) * ahead[1] - (end[1] - start[1]) * ahead[0]
