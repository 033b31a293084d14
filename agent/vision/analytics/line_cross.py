"""An object crosses a line: one event at once, with the direction it went. See `_crossing`."""

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from agent.core.config import NAME, Doc, Range
from agent.core.model import Phase, Signal, View
from agent.vision.analytics import _crossing as crossing
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._contract import TRACKS, Places, RuleConfig, Spec

SPEC: Final = Spec(
    kind="line_cross",
    needs=frozenset({TRACKS}),
    onvif_topic="tns1:RuleEngine/LineDetector/Crossed",
    version=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Objects over a line."""

    line: Annotated[str, Doc("Line that is watched"), NAME]
    direction: Annotated[
        Literal["a_to_b", "b_to_a", "both"],
        Doc("Which way counts: a is left of the line seen from start to end, b is right"),
    ] = "both"
    hysteresis_frac: Annotated[
        float, Doc("How far from the line an object must be seen on both sides"), Range(0, 0.2)
    ] = 0.01
    max_unseen_s: Annotated[
        float, Doc("Longest time between two looks over which a path is believed"), Range(0.1, 60)
    ] = 4.0


@dataclass(frozen=True, slots=True)
class State:
    """Walks by track id."""

    walks: tuple[crossing.Walk, ...] = ()


def initial() -> State:
    """Nobody has been seen."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    terms = crossing.Terms(rule.labels, rule.direction, rule.hysteresis_frac, rule.max_unseen_s)
    walks, crossings = crossing.follow(view, state.walks, places.lines[rule.line], terms)
    signals = tuple(signal for item in crossings for signal in _told(item))
    return State(walks), signals


def _told(item: crossing.Crossing) -> tuple[Signal, Signal]:
    begin = Signal(
        Phase.BEGIN,
        key=str(item.track.track_id),
        t_us=item.at_us,
        label=item.track.label,
        score=item.track.score,
        track_ids=(item.track.track_id,),
        measured={
            "direction": 1.0 if item.direction == "a_to_b" else -1.0,
            "x": geometry.rounded(item.spot.x),
            "y": geometry.rounded(item.spot.y),
        },
    )
    return begin, replace(begin, phase=Phase.END, reason=item.direction)
