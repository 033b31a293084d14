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
    gone = sum(math.dist(a[1], b[1]) for a, b in zip(trail.points, trail.points[1:], strict=False))
    before_us, before = trail.points[-1]
    stride = math.dist(before, here[1])
    if stride < ways.STRIDE_FRAC or gone + stride < min_distance_frac:
        return None
    share = min(1.0, max(0.0, (min_distance_frac - gone) / stride))
    at_us = round(before_us + share * (here[0] - before_us))
    return ways.Verdict(at_us, {"distance_frac": geometry.rounded(gone + stride)})
