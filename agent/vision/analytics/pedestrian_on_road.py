"""A person on the carriageway, and on no crossing."""

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

SPEC: Final = Spec(kind="pedestrian_on_road", needs=frozenset({TRACKS}), onvif_topic="", version=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Persons on a road."""

    LEVELS: ClassVar = {"on_s": (3.0, 2.0, 1.0, 0.5, 0.3)}

    zone: Annotated[str, Doc("Zone of the carriageway"), NAME]
    exclude: Annotated[
        tuple[Annotated[str, NAME], ...], Doc("Zones where walking is allowed"), Length(0, 8)
    ] = ()
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("person",)
    on_s: Annotated[float, Doc("Seconds on the road that make an event"), Range(0, 600)] = (
        BY_SENSITIVITY
    )
    hysteresis_frac: Annotated[
        float, Doc("How far inside counts as in, and outside as out"), Range(0, 0.2)
    ] = 0.01
    grace_s: Annotated[
        float, Doc("Seconds a person may be hidden or lost without leaving"), Range(0, 60)
    ] = 3.0


def initial() -> stays.Stays:
    """Nobody has been seen."""
    return stays.Stays()


def step(
    view: View, state: stays.Stays, rule: Config, places: Places
) -> tuple[stays.Stays, tuple[Signal, ...]]:
    """Judge one instant."""
    terms = stays.Terms(rule.labels, rule.on_s, rule.grace_s)
    others = [places.zones[name] for name in rule.exclude]
    where = area(places.zones[rule.zone], rule.hysteresis_frac, others)
    return stays.step(view, state, terms, where)
