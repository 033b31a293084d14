"""An object drives against the direction of its lane."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Length, Range
from agent.core.model import Signal, View
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

SPEC: Final = Spec(kind="wrong_way", needs=frozenset({TRACKS}), onvif_topic="", version=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Objects against the direction of a lane."""

    LEVELS: ClassVar = {"min_distance_frac": (0.20, 0.15, 0.10, 0.07, 0.05)}

    zone: Annotated[str, Doc("Zone of the lane"), NAME]
    line: Annotated[str, Doc("Line drawn along the lane, in the direction allowed"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("vehicle", "bicycle")
    min_distance_frac: Annotated[
        float, Doc("Way back that makes an event, of the picture"), Range(0.01, 1)
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
    ahead = against.direction_of(places.lines[rule.line])
    result = ways.step(
        view,
        state.trails,
        ways.Terms(rule.labels, rule.grace_s),
        area(places.zones[rule.zone], rule.hysteresis_frac),
        lambda trail, here: against.judge(trail, here, ahead, rule.min_distance_frac),
    )
    return State(result.trails), result.signals
