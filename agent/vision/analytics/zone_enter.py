"""An object stands in a zone: begins when its foot is inside, ends when it has left or is gone.

The foot is inside from `hysteresis_frac` within the border and outside from as far beyond it, so
that a trembling box makes one event. See `_stay` for how time and place are kept.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from agent.core.config import NAME, Doc, Range
from agent.core.model import Signal, View
from agent.vision.analytics import _stay as stays
from agent.vision.analytics._area import area
from agent.vision.analytics._contract import TRACKS, Places, RuleConfig, Spec

SPEC: Final = Spec(
    kind="zone_enter",
    needs=frozenset({TRACKS}),
    onvif_topic="tns1:RuleEngine/FieldDetector/ObjectsInside",
    version=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Objects in a zone."""

    zone: Annotated[str, Doc("Zone that is watched"), NAME]
    hysteresis_frac: Annotated[
        float, Doc("How far inside counts as in, and outside as out"), Range(0, 0.2)
    ] = 0.01
    min_inside_s: Annotated[float, Doc("Seconds inside before it is an event"), Range(0, 3600)] = (
        0.0
    )
    grace_s: Annotated[
        float, Doc("Seconds an object may be lost inside before the event ends"), Range(0, 60)
    ] = 2.0


def initial() -> stays.Stays:
    """Nobody has been seen."""
    return stays.Stays()


def step(
    view: View, state: stays.Stays, rule: Config, places: Places
) -> tuple[stays.Stays, tuple[Signal, ...]]:
    """Judge one instant."""
    terms = stays.Terms(rule.labels, rule.min_inside_s, rule.grace_s, starts_at_entry=True)
    return stays.step(view, state, terms, area(places.zones[rule.zone], rule.hysteresis_frac))
