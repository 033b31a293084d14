"""Many slow vehicles in a zone of calibrated ground; lengths and speeds carry their error."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Length, Range
from agent.core.model import Phase, Signal, Track, View
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics import _hold as holds
from agent.vision.analytics._area import area
from agent.vision.analytics._contract import (
    BY_SENSITIVITY,
    GROUND,
    LABEL,
    TRACKS,
    Places,
    RuleConfig,
    Spec,
)
from agent.vision.analytics._velocity import Velocity, velocity

SPEC: Final = Spec(
    kind="congestion", needs=frozenset({TRACKS, GROUND}), onvif_topic="", version=1, is_lasting=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Slow traffic."""

    LEVELS: ClassVar = {"on_s": (60.0, 30.0, 20.0, 10.0, 5.0)}

    zone: Annotated[str, Doc("Zone of the carriageway"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("vehicle",)
    limit_kmh: Annotated[float, Doc("Mean speed below which traffic is slow"), Range(1, 200)] = 15.0
    min_count: Annotated[int, Doc("Vehicles that make traffic"), Range(2, 200)] = 4
    on_s: Annotated[float, Doc("Seconds for which it must be so"), Range(0, 3600)] = BY_SENSITIVITY
    off_s: Annotated[
        float, Doc("Seconds of better traffic after which the event ends"), Range(0, 3600)
    ] = 10.0
    window_s: Annotated[float, Doc("Seconds over which speed is taken"), Range(0.5, 20)] = 3.0


@dataclass(frozen=True, slots=True)
class State:
    """Whether traffic is slow, and for how long."""

    hold: holds.Hold = holds.NONE


def initial() -> State:
    """Nobody has been seen."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    inside = _inside(view, rule, places)
    speeds = [found for _, found in inside]
    mean_kmh = sum(found.speed_kmh for found in speeds) / max(1, len(speeds))
    hold, change = holds.advance(
        state.hold,
        view.t_us,
        is_true=len(inside) >= rule.min_count and mean_kmh < rule.limit_kmh,
        on_s=rule.on_s,
        off_s=rule.off_s,
        armed_since_us=view.armed_since_us,
    )
    state = State(hold)
    if change == holds.Change():
        return state, ()
    variance = sum(found.error_kmh**2 for found in speeds) / max(1, len(speeds)) ** 2
    signal = Signal(
        Phase.BEGIN,
        key=rule.zone,
        t_us=change.began_us or 0,
        label=inside[0][0].label if inside else "",
        score=max((track.score for track, _ in inside), default=0.0),
        track_ids=tuple(track.track_id for track, _ in inside),
        measured={
            "count": float(len(inside)),
            "speed_kmh": geometry.rounded(mean_kmh),
            "error_kmh": geometry.rounded(math.sqrt(variance)),
            "length_m": geometry.rounded(_length_m(speeds)),
        },
    )
    if change.ended_us is not None:
        return state, (replace(signal, phase=Phase.END, t_us=change.ended_us, reason="flowing"),)
    return state, (signal,)


def _inside(view: View, rule: Config, places: Places) -> list[tuple[Track, Velocity]]:
    if places.ground is None:
        return []
    where = area(places.zones[rule.zone], 0.0)
    return [
        (track, found)
        for track in sorted(view.tracks, key=lambda track: track.track_id)
        if track.label in rule.labels
        and where.depth(track.box.foot) >= 0
        and (found := velocity(track, places.ground, view.t_us, rule.window_s)) is not None
    ]


def _length_m(speeds: list[Velocity]) -> float:
    """Give the distance between the two vehicles that are farthest apart."""
    spots = [found.spot for found in speeds]
    return max(
        (math.hypot(a.x_m - b.x_m, a.y_m - b.y_m) for a in spots for b in spots), default=0.0
    )
