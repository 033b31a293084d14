"""Objects that stay in an area: shared by the rules that ask for how long.

The moment of entering is interpolated on the path between two looks, so that times do not depend on
the frame rate, and an object that runs through between two looks still counts. A loss of up to
`grace_s` is bridged; being seen outside ends the stay at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.core.model import Phase, Point, Signal, Track, View
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._area import Area
from agent.vision.analytics._path import by_track, in_order, sights_since

LOST: Final = "lost"
LEFT: Final = "left"

_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """What counts as a stay worth telling."""

    labels: tuple[str, ...]
    hold_s: float  # inside for so long
    grace_s: float  # bridged when lost
    starts_at_entry: bool = False  # the event's start is the entry, not the end of `hold_s`


@dataclass(frozen=True, slots=True)
class Stay:
    """What is known of one object; `key` names its event even after a change of track."""

    track_id: int
    key: int
    seen_us: int
    foot: Point
    since_us: int | None = None
    entered_at: Point | None = None
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class Stays:
    """State of such a rule, by track id."""

    stays: tuple[Stay, ...] = ()


def step(view: View, state: Stays, terms: Terms, area: Area) -> tuple[Stays, tuple[Signal, ...]]:
    """Judge one instant."""
    grace_us = terms.grace_s * _US_PER_S
    signals: list[Signal] = []
    present = {track.track_id: track for track in view.tracks if track.label in terms.labels}
    known = by_track(state.stays, present.values())
    if view.gap_us > grace_us:
        signals += [signal for stay in in_order(known) for signal in _end(stay, stay.seen_us, LOST)]
        known = {}
    if view.armed_since_us is None:  # the host has closed what was open
        known = {key: replace(stay, is_told=False) for key, stay in known.items()}
    for track_id in sorted(present):
        stay, said = _follow(known.get(track_id), present[track_id], view, terms, area)
        signals += said
        if stay is not None:
            known[track_id] = stay
    for track_id in sorted(known):
        stay = known[track_id]
        if stay.since_us is not None and view.t_us - stay.seen_us > grace_us:
            signals += _end(stay, stay.seen_us, LOST)
            known[track_id] = replace(stay, since_us=None, is_told=False)
    kept = {key: stay for key, stay in known.items() if key in present or stay.since_us is not None}
    return Stays(in_order(kept)), tuple(signals)


def _follow(
    stay: Stay | None, track: Track, view: View, terms: Terms, area: Area
) -> tuple[Stay | None, Sequence[Signal]]:
    """Take what was newly detected of a track."""
    signals: list[Signal] = []
    if stay is not None and stay.track_id != track.track_id:
        stay, said = _take_over(stay, track)
        signals += said
    for point in sights_since(track, None if stay is None else stay.seen_us):
        foot = point.box.foot
        if stay is None:
            stay = Stay(track.track_id, track.track_id, point.t_us, foot)
        elif point.t_us - stay.seen_us > terms.grace_s * _US_PER_S:  # nothing is known of the way
            signals += _end(stay, stay.seen_us, LOST)
            stay = replace(stay, seen_us=point.t_us, foot=foot, since_us=None, is_told=False)
        begin, end = (stay.seen_us, stay.foot), (point.t_us, foot)
        is_inside = stay.since_us is not None
        for at_us, spot, is_now_inside in area.changes(begin, end, is_inside=is_inside):
            stay = replace(stay, seen_us=at_us)
            if is_now_inside:
                stay = replace(stay, since_us=at_us, entered_at=spot)
            else:
                stay, said = _begin(stay, track, view, terms)
                signals += [*said, *_end(stay, at_us, LEFT)]
                stay = replace(stay, since_us=None, is_told=False)
        stay = replace(stay, foot=foot, seen_us=point.t_us)
    if stay is not None:
        stay, said = _begin(stay, track, view, terms)
        signals += said
    return stay, signals


def _take_over(stay: Stay, track: Track) -> tuple[Stay, Sequence[Signal]]:
    """Carry a stay on under its successor's id."""
    moved = replace(stay, track_id=track.track_id)
    if not stay.is_told:
        return replace(moved, key=track.track_id), ()
    return moved, [_signal(moved, Phase.UPDATE, stay.seen_us, track)]


def _begin(stay: Stay, track: Track, view: View, terms: Terms) -> tuple[Stay, Sequence[Signal]]:
    """Tell a stay that has lasted long enough and was not told yet."""
    if stay.since_us is None or stay.is_told or view.armed_since_us is None:
        return stay, ()
    counted_us = max(stay.since_us, view.armed_since_us)
    due_us = counted_us + round(terms.hold_s * _US_PER_S)
    if stay.seen_us < due_us:
        return stay, ()
    at_us = counted_us if terms.starts_at_entry else due_us
    return replace(stay, is_told=True), [_signal(stay, Phase.BEGIN, at_us, track)]


def _signal(stay: Stay, phase: Phase, at_us: int, track: Track) -> Signal:
    spot = stay.entered_at or stay.foot
    return Signal(
        phase,
        key=str(stay.key),
        t_us=at_us,
        label=track.label,
        score=track.score,
        track_ids=(stay.track_id,),
        measured={"x": geometry.rounded(spot.x), "y": geometry.rounded(spot.y)},
    )


def _end(stay: Stay, at_us: int, reason: str) -> Sequence[Signal]:
    if stay.since_us is None or not stay.is_told:
        return ()
    dwell_s = geometry.rounded((at_us - stay.since_us) / _US_PER_S)
    end = Signal(
        Phase.END,
        key=str(stay.key),
        t_us=at_us,
        track_ids=(stay.track_id,),
        measured={"dwell_s": dwell_s},
        reason=reason,
    )
    return (end,)
