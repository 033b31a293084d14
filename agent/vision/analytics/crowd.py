"""At least so many objects are in a zone at once; who is hidden is not counted, so: at least."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Length, Range
from agent.core.model import Phase, Signal, Track, View
from agent.vision.analytics import _hold as holds
from agent.vision.analytics._area import Area, area
from agent.vision.analytics._contract import (
    BY_SENSITIVITY,
    LABEL,
    TRACKS,
    Places,
    RuleConfig,
    Spec,
)

SPEC: Final = Spec(
    kind="crowd", needs=frozenset({TRACKS}), onvif_topic="", version=1, is_lasting=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Many objects in a zone."""

    LEVELS: ClassVar = {"min_count": (12, 8, 5, 4, 3)}

    zone: Annotated[str, Doc("Zone that is watched"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("person",)
    min_count: Annotated[int, Doc("Objects at once that make an event"), Range(2, 200)] = (
        BY_SENSITIVITY
    )
    on_s: Annotated[float, Doc("Seconds for which it must be so"), Range(0, 600)] = 3.0
    off_s: Annotated[float, Doc("Seconds with fewer after which the event ends"), Range(0, 600)] = (
        5.0
    )
    hysteresis_frac: Annotated[
        float, Doc("How far inside counts as in, and outside as out"), Range(0, 0.2)
    ] = 0.01


@dataclass(frozen=True, slots=True)
class State:
    """Who was inside, whether there are enough, and the most since the event began."""

    inside: tuple[int, ...] = ()
    hold: holds.Hold = holds.NONE
    most: int = 0


def initial() -> State:
    """Nobody is there."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    where = area(places.zones[rule.zone], rule.hysteresis_frac)
    tracks = sorted(view.tracks, key=lambda track: track.track_id)
    inside = [
        track
        for track in tracks
        if track.label in rule.labels and _is_inside(track, where, state.inside)
    ]
    hold, change = holds.advance(
        state.hold,
        view.t_us,
        is_true=len(inside) >= rule.min_count,
        on_s=rule.on_s,
        off_s=rule.off_s,
        armed_since_us=view.armed_since_us,
    )
    most = max(state.most, len(inside)) if state.hold.is_told else len(inside)
    state = State(tuple(track.track_id for track in inside), hold, most)
    signal = Signal(
        Phase.BEGIN,
        key=rule.zone,
        t_us=change.began_us or 0,
        label=inside[0].label if inside else "",
        score=max((track.score for track in inside), default=0.0),
        track_ids=state.inside,
        measured={"count": float(len(inside)), "count_max": float(most)},
    )
    if change.began_us is not None:
        return state, (signal,)
    if change.ended_us is not None:
        return state, (replace(signal, phase=Phase.END, t_us=change.ended_us, reason="dispersed"),)
    return state, ()


def _is_inside(track: Track, where: Area, inside: tuple[int, ...]) -> bool:
    was_inside = track.track_id in inside or track.predecessor in inside
    return where.holds(track.box.foot, was_inside=was_inside)
