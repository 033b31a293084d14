"""Somebody goes against the stream: the direction is learned from those who crossed the zone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Length, Range
from agent.core.model import Point, Signal, View
from agent.vision.analytics import _against as against
from agent.vision.analytics import _trail as ways
from agent.vision.analytics._area import area
from agent.vision.analytics._contract import (
    BY_SENSITIVITY,
    LABEL,
    TRACKS,
    Places,
    RuleConfig,
    Spec,
)

SPEC: Final = Spec(kind="counter_flow", needs=frozenset({TRACKS}), onvif_topic="", version=1)

_MAX_PASSES: Final = 300
_MIN_WAY_FRAC: Final = 0.05  # shorter ways through the zone say nothing of the stream
_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Objects against the stream."""

    LEVELS: ClassVar = {"min_distance_frac": (0.20, 0.15, 0.10, 0.07, 0.05)}

    zone: Annotated[str, Doc("Zone through which the stream goes"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("person",)
    min_distance_frac: Annotated[
        float, Doc("Way back that makes an event, of the picture"), Range(0.01, 1)
    ] = BY_SENSITIVITY
    learn_s: Annotated[
        float, Doc("Seconds back from which the stream is learned"), Range(10, 36_000)
    ] = 600.0
    min_objects: Annotated[
        int, Doc("Objects that must have crossed before there is a stream"), Range(2, 200)
    ] = 10
    min_agreement: Annotated[
        float, Doc("How well they must agree, 0 not at all to 1 all the same way"), Range(0.1, 1)
    ] = 0.7
    grace_s: Annotated[
        float, Doc("Seconds an object may be hidden or lost without leaving"), Range(0, 60)
    ] = 3.0
    hysteresis_frac: Annotated[
        float, Doc("How far inside counts as in, and outside as out"), Range(0, 0.2)
    ] = 0.01


@dataclass(frozen=True, slots=True)
class Pass:
    """One object has crossed the zone, in this direction."""

    t_us: int
    direction: Point


@dataclass(frozen=True, slots=True)
class State:
    """Trails by track id, and who has crossed lately, oldest first."""

    trails: tuple[ways.Trail, ...] = ()
    passes: tuple[Pass, ...] = ()


def initial() -> State:
    """Nobody has been seen."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    oldest_us = view.t_us - rule.learn_s * _US_PER_S
    passes = [item for item in state.passes if item.t_us >= oldest_us]
    ahead = _stream(passes, rule)

    def judge(trail: ways.Trail, here: ways.Step) -> ways.Verdict | None:
        if ahead is None:
            return None
        return against.judge(trail, here, ahead, rule.min_distance_frac)

    result = ways.step(
        view,
        state.trails,
        ways.Terms(rule.labels, rule.grace_s),
        area(places.zones[rule.zone], rule.hysteresis_frac),
        judge,
    )
    for trail in result.ended:
        start, end = trail.points[0][1], trail.foot
        if not trail.is_told and math.dist(start, end) >= _MIN_WAY_FRAC:
            passes.append(Pass(view.t_us, against.unit(start, end)))
    return State(result.trails, tuple(passes[-_MAX_PASSES:])), result.signals


def _stream(passes: Sequence[Pass], rule: Config) -> Point | None:
    """Give the mean direction (Mardia, Jupp: "Directional Statistics", 2000), if there is one."""
    if len(passes) < rule.min_objects:
        return None
    x = sum(item.direction.x for item in passes)
    y = sum(item.direction.y for item in passes)
    length = math.hypot(x, y)
    if length < rule.min_agreement * len(passes):
        return None
    return Point(x / length, y / length)
