"""Counts who crosses a line, both ways, and reports at the end of every period; no alarm."""

from dataclasses import dataclass
from typing import Annotated, Final

from agent.core.config import NAME, Doc, Range
from agent.core.model import Phase, Signal, View
from agent.vision.analytics import _crossing as crossing
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._contract import TRACKS, Places, RuleConfig, Spec

SPEC: Final = Spec(
    kind="counting",
    needs=frozenset({TRACKS}),
    onvif_topic="tns1:RuleEngine/CountAggregation/Counter",
    version=1,
)

_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Objects over a line, counted."""

    line: Annotated[str, Doc("Line that is counted at"), NAME]
    report_s: Annotated[float, Doc("Seconds between two reports"), Range(5, 86_400)] = 300.0
    hysteresis_frac: Annotated[
        float, Doc("How far from the line an object must be seen on both sides"), Range(0, 0.2)
    ] = 0.01
    max_unseen_s: Annotated[
        float, Doc("Longest time between two looks over which a path is believed"), Range(0.1, 60)
    ] = 4.0


@dataclass(frozen=True, slots=True)
class State:
    """Walks by track id, and the counts since the last report."""

    walks: tuple[crossing.Walk, ...] = ()
    report_us: int | None = None  # the next one is due then
    a_to_b: int = 0
    b_to_a: int = 0
    occupancy: int = 0
    blind_us: int = 0


def initial() -> State:
    """Nobody has been seen."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    period_us = round(rule.report_s * _US_PER_S)
    report_us = view.t_us + period_us if state.report_us is None else state.report_us
    terms = crossing.Terms(rule.labels, "both", rule.hysteresis_frac, rule.max_unseen_s)
    walks, crossings = crossing.follow(view, state.walks, places.lines[rule.line], terms)
    a_to_b, b_to_a, occupancy = state.a_to_b, state.b_to_a, state.occupancy
    for item in sorted(crossings, key=lambda item: (item.at_us, item.track.track_id)):
        is_in = item.direction == "a_to_b"
        a_to_b, b_to_a = a_to_b + is_in, b_to_a + (not is_in)
        occupancy = max(0, occupancy + (1 if is_in else -1))
    blind_us = state.blind_us + view.gap_us
    if view.t_us < report_us:
        return State(walks, report_us, a_to_b, b_to_a, occupancy, blind_us), ()
    measured = {
        "a_to_b": float(a_to_b),
        "b_to_a": float(b_to_a),
        "occupancy": float(occupancy),
        "blind_s": geometry.rounded(blind_us / _US_PER_S),
    }
    signal = Signal(Phase.MEASURE, key=rule.line, t_us=report_us, measured=measured)
    while report_us <= view.t_us:
        report_us += period_us
    return State(walks, report_us, occupancy=occupancy), (signal,)
