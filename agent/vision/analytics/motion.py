"""Something moves in a zone, whatever it is: what a camera falls back to without a detector."""

from dataclasses import dataclass
from typing import Annotated, Final

from agent.core.config import NAME, Doc, Range
from agent.core.model import Box, Phase, Point, Signal, View
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics import _hold as holds
from agent.vision.analytics._area import Area, area
from agent.vision.analytics._contract import PICTURE, Places, RuleConfig, Spec

SPEC: Final = Spec(
    kind="motion",
    needs=frozenset({PICTURE}),
    onvif_topic="tns1:RuleEngine/MotionRegionDetector/Motion",
    version=1,
    is_lasting=True,
)

_EVERYWHERE: Final = "picture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Motion in a zone."""

    zone: Annotated[
        str | None, Doc("Zone that is watched; the whole picture, without it"), NAME
    ] = None
    min_area_frac: Annotated[
        float, Doc("Smallest moving area, as a share of the picture"), Range(0, 1)
    ] = 0.002
    on_s: Annotated[float, Doc("Seconds for which it must move"), Range(0, 600)] = 1.0
    off_s: Annotated[float, Doc("Seconds of rest after which the event ends"), Range(0, 600)] = 5.0


@dataclass(frozen=True, slots=True)
class State:
    """Whether something moves, and for how long."""

    hold: holds.Hold = holds.NONE


def initial() -> State:
    """Nothing moves."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    if view.picture is None:
        return state, ()
    where = None if rule.zone is None else area(places.zones[rule.zone], 0.0)
    found = [box for box in view.picture.moving if _is_inside(box, where)]
    area_frac = sum(box.w * box.h for box in found)
    hold, change = holds.advance(
        state.hold,
        view.t_us,
        is_true=bool(found) and area_frac >= rule.min_area_frac,
        on_s=rule.on_s,
        off_s=rule.off_s,
        armed_since_us=view.armed_since_us,
    )
    key = rule.zone or _EVERYWHERE
    measured = {"area_frac": geometry.rounded(area_frac)}
    if change.began_us is not None:
        return State(hold), (Signal(Phase.BEGIN, key, change.began_us, measured=measured),)
    if change.ended_us is not None:
        return State(hold), (Signal(Phase.END, key, change.ended_us, reason="rest"),)
    return State(hold), ()


def _is_inside(box: Box, where: Area | None) -> bool:
    return where is None or where.depth(Point(box.x + box.w / 2, box.y + box.h / 2)) >= 0
