"""A vehicle stands where traffic should flow, and it is no queue."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Length, Range
from agent.core.model import Signal, View
from agent.vision.analytics import _still as stands
from agent.vision.analytics._area import area
from agent.vision.analytics._contract import (
    BY_SENSITIVITY,
    LABEL,
    TRACKS,
    Places,
    RuleConfig,
    Spec,
)

SPEC: Final = Spec(
    kind="stopped_vehicle", needs=frozenset({TRACKS}), onvif_topic="", version=1, is_lasting=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Vehicles that stand."""

    LEVELS: ClassVar = {"stop_s": (60.0, 30.0, 15.0, 10.0, 5.0)}

    zone: Annotated[str, Doc("Zone that is watched"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("vehicle",)
    stop_s: Annotated[float, Doc("Seconds of standing that make an event"), Range(1, 3600)] = (
        BY_SENSITIVITY
    )
    still_frac: Annotated[
        float, Doc("How far a standing box may tremble, of the picture"), Range(0.002, 0.2)
    ] = 0.02
    queue_from: Annotated[
        int, Doc("So many standing at once are a queue, and no event"), Range(2, 100)
    ] = 3
    grace_s: Annotated[float, Doc("Seconds a standing vehicle may be hidden"), Range(0, 600)] = 10.0
    hysteresis_frac: Annotated[
        float, Doc("How far inside counts as in, and outside as out"), Range(0, 0.2)
    ] = 0.01


def initial() -> stands.Stands:
    """Nobody has been seen."""
    return stands.Stands()


def step(
    view: View, state: stands.Stands, rule: Config, places: Places
) -> tuple[stands.Stands, tuple[Signal, ...]]:
    """Judge one instant."""
    terms = stands.Terms(rule.labels, rule.stop_s, rule.grace_s, rule.still_frac, rule.queue_from)
    return stands.step(view, state, terms, area(places.zones[rule.zone], rule.hysteresis_frac))
