"""Objects that stand still, shared by the rules that ask for how long.

An object stands since it was last further than `still_frac` from where it stands now. One look
beyond that is a trembling box; it has moved with the second in a row, at the moment of the first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.core.model import Phase, Point, Signal, Track, TrackPoint, View
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._area import Area
from agent.vision.analytics._path import by_track, in_order, sights_since

LOST: Final = "lost"
MOVED: Final = "moved"

_US_PER_S: Final = 1_000_000
_STANDING_US: Final = 1_000_000  # still for so long stands, for the length of a queue
_MEMORY: Final = 30  # looks over which the spot is averaged


@dataclass(frozen=True, slots=True)
class Terms:
    """What counts as standing still."""

    labels: tuple[str, ...]
    hold_s: float
    grace_s: float
    still_frac: float
    queue_from: int | None  # so many standing at once are a queue, and nobody of it is told


@dataclass(frozen=True, slots=True)
class Stand:
    """What is known of one object; `key` names its event even after a change of track."""

    track_id: int
    key: int
    label: str
    score: float
    seen_us: int
    foot: Point
    spot: Point  # mean of where it was seen since it stands
    looks: int
    since_us: int
    is_told: bool = False
    strayed_us: int | None = None  # the last look was beyond the limit, which it passed then


@dataclass(frozen=True, slots=True)
class Stands:
    """State of such a rule; `queue_us` is the last instant at which there was a queue."""

    stands: tuple[Stand, ...] = ()
    queue_us: int = 0


def step(view: View, state: Stands, terms: Terms, area: Area) -> tuple[Stands, tuple[Signal, ...]]:
    """Judge one instant."""
    grace_us = terms.grace_s * _US_PER_S
    signals: list[Signal] = []
    present = {track.track_id: track for track in view.tracks if track.label in terms.labels}
    known = by_track(state.stands, present.values())
    if view.armed_since_us is None:  # the host has closed what was open
        known = {key: replace(stand, is_told=False) for key, stand in known.items()}
    for track_id in sorted(present):
        stand, said = _follow(known.get(track_id), present[track_id], terms)
        signals += said
        if stand is not None:
            known[track_id] = stand
    for track_id in sorted(known):
        if view.t_us - known[track_id].seen_us > grace_us:
            signals += _end(known[track_id], known[track_id].seen_us, LOST)
            del known[track_id]
    queue_us = view.t_us if _is_queue(known, view, terms, area) else state.queue_us
    for track_id in sorted(known):
        known[track_id], said = _begin(known[track_id], view, queue_us, terms, area)
        signals += said
    return Stands(in_order(known), queue_us), tuple(signals)


def _follow(
    stand: Stand | None, track: Track, terms: Terms
) -> tuple[Stand | None, Sequence[Signal]]:
    """Take what was newly detected of a track."""
    stand, signals = (None, []) if stand is None else _take_over(stand, track)
    for point in sights_since(track, None if stand is None else stand.seen_us):
        if stand is not None and point.t_us - stand.seen_us > terms.grace_s * _US_PER_S:
            signals += _end(stand, stand.seen_us, LOST)
            stand = None
        if stand is not None:
            stand, said = _look(stand, point, terms)
            signals += said
        stand = stand or _new(track, point, terms)
    return None if stand is None else replace(stand, score=track.score), signals


def _take_over(stand: Stand, track: Track) -> tuple[Stand, list[Signal]]:
    """Carry a stand on under its successor's id."""
    if stand.track_id == track.track_id:
        return stand, []
    if not stand.is_told:
        return replace(stand, track_id=track.track_id, key=track.track_id), []
    moved = replace(stand, track_id=track.track_id)
    return moved, [_signal(moved, Phase.UPDATE, moved.seen_us, {})]


def _look(stand: Stand, point: TrackPoint, terms: Terms) -> tuple[Stand | None, Sequence[Signal]]:
    """Take a look at one that stands; it is None once it has moved."""
    foot = point.box.foot
    passed_us = _passed(stand, foot, point.t_us, terms)
    if passed_us is not None and stand.strayed_us is None:
        return replace(stand, seen_us=point.t_us, foot=foot, strayed_us=passed_us), ()
    if passed_us is not None:
        return None, _end(stand, stand.strayed_us or passed_us, MOVED)
    weight = 1.0 / min(stand.looks + 1, _MEMORY)
    kept = replace(
        stand,
        seen_us=point.t_us,
        foot=foot,
        spot=geometry.between(stand.spot, foot, weight),
        looks=stand.looks + 1,
        strayed_us=None,
    )
    return kept, ()


def _new(track: Track, here: TrackPoint, terms: Terms) -> Stand:
    """Begin a stand where an object is seen, as long ago as it has been there."""
    foot, since_us = here.box.foot, here.t_us
    for point in reversed(track.history):
        if not point.is_detected or point.t_us > here.t_us:
            continue
        is_near = math.dist(point.box.foot, foot) <= terms.still_frac
        if not is_near or since_us - point.t_us > terms.grace_s * _US_PER_S:
            break
        since_us = point.t_us
    ids = (track.track_id, track.track_id)
    return Stand(*ids, track.label, track.score, here.t_us, foot, foot, 1, since_us)


def _passed(stand: Stand, foot: Point, t_us: int, terms: Terms) -> int | None:
    """Give the instant at which the object went beyond the limit, if it is beyond."""
    limit = terms.still_frac * (2 if stand.is_told else 1)
    away = math.dist(stand.spot, foot)
    if away <= limit:
        return None
    before = math.dist(stand.spot, stand.foot)
    share = (limit - before) / (away - before) if away > before else 1.0
    share = min(1.0, max(0.0, share))
    return round(stand.seen_us + share * (t_us - stand.seen_us))


def _is_queue(known: dict[int, Stand], view: View, terms: Terms, area: Area) -> bool:
    if terms.queue_from is None:
        return False
    standing = [
        stand
        for stand in known.values()
        if stand.strayed_us is None
        and view.t_us - stand.since_us >= _STANDING_US
        and area.holds(stand.spot, was_inside=True)
    ]
    return len(standing) >= terms.queue_from


def _begin(
    stand: Stand, view: View, queue_us: int, terms: Terms, area: Area
) -> tuple[Stand, Sequence[Signal]]:
    """Tell who has stood long enough and was not told yet."""
    if stand.is_told or stand.strayed_us is not None or view.armed_since_us is None:
        return stand, ()
    counted_us = max(stand.since_us, view.armed_since_us, queue_us)
    due_us = counted_us + round(terms.hold_s * _US_PER_S)
    if stand.seen_us < due_us or not area.holds(stand.spot, was_inside=False):
        return stand, ()
    stand = replace(stand, is_told=True)
    place = {"x": geometry.rounded(stand.spot.x), "y": geometry.rounded(stand.spot.y)}
    return stand, [_signal(stand, Phase.BEGIN, due_us, place)]


def _signal(stand: Stand, phase: Phase, at_us: int, measured: dict[str, float]) -> Signal:
    return Signal(
        phase,
        key=str(stand.key),
        t_us=at_us,
        label=stand.label,
        score=stand.score,
        track_ids=(stand.track_id,),
        measured=measured,
    )


def _end(stand: Stand, at_us: int, reason: str) -> Sequence[Signal]:
    if not stand.is_told:
        return ()
    dwell_s = geometry.rounded((at_us - stand.since_us) / _US_PER_S)
    return [replace(_signal(stand, Phase.END, at_us, {"dwell_s": dwell_s}), reason=reason)]
