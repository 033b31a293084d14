"""An object stays in a zone for longer than anybody who only passes."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Length, Range
from agent.core.model import Signal, View
from agent.vision.analytics import _stay as stays
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
    kind="loiter",
    needs=frozenset({TRACKS}),
    onvif_topic="tns1:RuleEngine/LoiteringDetector/ObjectIsLoitering",
    version=1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Objects that stay in a zone."""

    LEVELS: ClassVar = {"dwell_s": (120.0, 60.0, 30.0, 20.0, 10.0)}

    zone: Annotated[str, Doc("Zone that is watched"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("person",)
    dwell_s: Annotated[float, Doc("Seconds inside that make an event"), Range(1, 36_000)] = (
        BY_SENSITIVITY
    )
    hysteresis_frac: Annotated[
        float, Doc("How far inside counts as in, and outside as out"), Range(0, 0.2)
    ] = 0.01
    grace_s: Annotated[
        float, Doc("Seconds an object may be hidden or lost without leaving"), Range(0, 600)
    ] = 8.0


def initial() -> stays.Stays:
    """Nobody has been seen."""
    return stays.Stays()


def step(
    view: View, state: stays.Stays, rule: Config, places: Places
) -> tuple[stays.Stays, tuple[Signal, ...]]:
    """Judge one instant."""
    terms = stays.Terms(rule.labels, rule.dwell_s, rule.grace_s)
    return stays.step(view, state, terms, area(places.zones[rule.zone], rule.hysteresis_frac))
