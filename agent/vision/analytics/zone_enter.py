"""An object stands in a zone: begins when its foot is inside, ends when it has left or is gone.

The foot is inside from `hysteresis_frac` within the border and outside from as far beyond it, so
that a trembling box makes one event. The path between two looks is walked in small steps and the
moment of crossing is interpolated: dwell and times do not depend on the frame rate, and an object
that runs through between two looks still counts. A short loss of the object is bridged.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

from agent.core.config import NAME, Doc, Range
from agent.core.model import Phase, Point, Signal, Track, View
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._contract import Places, RuleConfig, Spec
from agent.vision.analytics._path import sights_since

SPEC: Final = Spec(
    kind="zone_enter",
    needs=frozenset({"tracks"}),
    onvif_topic="tns1:RuleEngine/FieldDetector/ObjectsInside",
    version=1,
)

_STEP_FRAC: Final = 0.01  # of the frame: length of one step along a path
_MAX_STEPS: Final = 64
_US_PER_S: Final = 1_000_000


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


@dataclass(frozen=True, slots=True)
class Visit:
    """What is known of one track: where its foot was last seen, and since when it is inside."""

    track_id: int
    seen_us: int
    foot: Point
    entered_us: int | None = None
    entered_at: Point | None = None
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Visits by track id, oldest first."""

    visits: tuple[Visit, ...] = ()


def initial() -> State:
    """Nobody has been seen."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    polygon = places.zones[rule.zone].points
    signals: list[Signal] = []
    visits = {visit.track_id: visit for visit in state.visits}
    if view.gap_us > rule.grace_s * _US_PER_S:
        signals += [signal for visit in visits.values() for signal in _end_lost(visit)]
        visits = {}
    present = {track.track_id: track for track in view.tracks if track.label in rule.labels}
    for track in present.values():
        visit, said = _follow(visits.get(track.track_id), track, polygon, rule)
        signals += said
        if visit is not None:
            visits[track.track_id] = visit
    for track_id in sorted(visits):
        visit = visits[track_id]
        if view.t_us - visit.seen_us > rule.grace_s * _US_PER_S:
            signals += _end_lost(visit)
            visits[track_id] = replace(visit, entered_us=None, is_told=False)
    kept = tuple(
        visits[track_id]
        for track_id in sorted(visits)
        if track_id in present or visits[track_id].entered_us is not None
    )
    return State(kept), tuple(signals)


def _follow(
    visit: Visit | None, track: Track, polygon: Sequence[Point], rule: Config
) -> tuple[Visit | None, list[Signal]]:
    """Take what was newly observed of a track."""
    signals: list[Signal] = []
    for point in sights_since(track, None if visit is None else visit.seen_us):
        foot = point.box.foot
        before = visit or Visit(track.track_id, point.t_us, foot)
        visit = before
        for at_us, spot, is_inside in _changes(before, foot, point.t_us, polygon, rule):
            visit = replace(visit, seen_us=at_us)
            if is_inside:
                visit = replace(visit, entered_us=at_us, entered_at=spot)
            else:
                visit, said = _begin(visit, track, rule)
                signals += [*said, *_end(visit, at_us, "left")]
                visit = replace(visit, entered_us=None, is_told=False)
        visit = replace(visit, foot=foot, seen_us=point.t_us)
    if visit is None:
        return None, signals
    visit, said = _begin(visit, track, rule)
    return visit, [*signals, *said]


def _changes(
    visit: Visit, foot: Point, t_us: int, polygon: Sequence[Point], rule: Config
) -> Iterator[tuple[int, Point, bool]]:
    """Walk in small steps to a new foot point; gives when, where, and whether inside now."""
    margin = min(rule.hysteresis_frac, geometry.area(polygon) / geometry.length(polygon))
    is_inside = visit.entered_us is not None
    count = min(_MAX_STEPS, max(1, math.ceil(math.dist(visit.foot, foot) / _STEP_FRAC)))
    before = geometry.depth(visit.foot, polygon)
    for index in range(1, count + 1):
        here = geometry.depth(geometry.between(visit.foot, foot, index / count), polygon)
        limit = -margin if is_inside else margin
        if (here <= limit) if is_inside else (here >= limit):
            is_inside = not is_inside
            share = (index - 1 + _part(before, here, limit)) / count
            at_us = round(visit.seen_us + share * (t_us - visit.seen_us))
            yield at_us, geometry.between(visit.foot, foot, share), is_inside
        before = here


def _part(before: float, here: float, limit: float) -> float:
    """Give the part of a step at which the depth passed the limit, 0..1."""
    if here == before:
        return 1.0
    return min(1.0, max(0.0, (limit - before) / (here - before)))


def _begin(visit: Visit, track: Track, rule: Config) -> tuple[Visit, list[Signal]]:
    """Tell a visit that has lasted long enough and was not told yet."""
    if visit.entered_us is None or visit.is_told:
        return visit, []
    if visit.seen_us - visit.entered_us < rule.min_inside_s * _US_PER_S:
        return visit, []
    spot = visit.entered_at or visit.foot
    signal = Signal(
        Phase.BEGIN,
        key=str(visit.track_id),
        t_us=visit.entered_us,
        label=track.label,
        score=track.score,
        track_ids=(visit.track_id,),
        measured={"x": geometry.rounded(spot.x), "y": geometry.rounded(spot.y)},
    )
    return replace(visit, is_told=True), [signal]


def _end(visit: Visit, at_us: int, reason: str) -> list[Signal]:
    if visit.entered_us is None or not visit.is_told:
        return []
    dwell_s = geometry.rounded((at_us - visit.entered_us) / _US_PER_S)
    return [
        Signal(
            Phase.END,
            key=str(visit.track_id),
            t_us=at_us,
            track_ids=(visit.track_id,),
            measured={"dwell_s": dwell_s},
            reason=reason,
        )
    ]


def _end_lost(visit: Visit) -> list[Signal]:
    return _end(visit, visit.seen_us, "lost")
