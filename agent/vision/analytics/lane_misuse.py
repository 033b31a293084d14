"""An object uses a lane that is not for it; one that only crosses the lane does not."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Length, Range
from agent.core.model import Signal, View
from agent.vision.analytics import _geometry as geometry
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

SPEC: Final = Spec(kind="lane_misuse", needs=frozenset({TRACKS}), onvif_topic="", version=1)


STRIDE_FRAC: Final = 0.02  # of the picture: less is the box's trembling


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Objects on a lane that is not theirs."""

    LEVELS: ClassVar = {"min_distance_frac": (0.30, 0.25, 0.20, 0.15, 0.10)}

    zone: Annotated[str, Doc("Zone of the lane"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it is not for"), Length(1, 3)
    ] = ("vehicle",)
    min_distance_frac: Annotated[
        float, Doc("Way inside that makes an event, of the picture"), Range(0.01, 2)
    ] = BY_SENSITIVITY
    grace_s: Annotated[
        float, Doc("Seconds an object may be hidden or lost without leaving"), Range(0, 60)
    ] = 3.0
    hysteresis_frac: Annotated[
        float, Doc("How far inside counts as in, and outside as out"), Range(0, 0.2)
    ] = 0.01


@dataclass(frozen=True, slots=True)
class State:
    """Trails by track id."""

    trails: tuple[ways.Trail, ...] = ()


def initial() -> State:
    """Nobody has been seen."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    result = ways.step(
        view,
        state.trails,
        ways.Terms(rule.labels, rule.grace_s),
        area(places.zones[rule.zone], rule.hysteresis_frac),
        lambda trail, here: _judge(trail, here, rule.min_distance_frac),
    )
    return State(result.trails), result.signals


def _judge(trail: ways.Trail, here: ways.Step, min_distance_frac: float) -> ways.Verdict | None:
    if trail.is_told:
        return None
    gone, last = 0.0, trail.points[0]
    for step in (*trail.points[1:], here):
        stride = math.dist(last[1], step[1])
        if stride < STRIDE_FRAC:
            continue
        if gone + stride >= min_distance_frac:
            share = (min_distance_frac - gone) / stride
            at_us = round(last[0] + share * (step[0] - last[0]))
            return ways.Verdict(at_us, {"distance_frac": geometry.rounded(gone + stride)})
        gone, last = gone + stride, step
    return None
