"""Crossings of a line, shared by the rules that tell and that count them.

Side `a` is left of the line for somebody who walks over the picture from `start` to `end`, side `b`
is right: for a line drawn downwards, `a` is the right half of the picture as it is looked at.
The foot must be seen at least `hysteresis_frac` away on one side and then on the other, by the
detector and not by prediction; the line itself is met on the path between, so a fast object at a
low rate counts, one that only touches does not, and the time does not depend on the rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.core.model import Line, Point, Track, View
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._path import by_track, sights_since

_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """What counts as a crossing."""

    labels: tuple[str, ...]
    direction: str  # a_to_b, b_to_a, both
    hysteresis_frac: float
    max_unseen_s: float  # longest time between two looks over which a path is believed


@dataclass(frozen=True, slots=True)
class Walk:
    """What is known of one track: where it was last seen, and on which side for sure."""

    track_id: int
    seen_us: int
    foot: Point
    sure_side: int = 0  # 1 is a, -1 is b, 0 is not known yet
    met_us: int | None = None  # last time the path met the line since the side was sure
    met_at: Point | None = None
    is_on_segment: bool = False


@dataclass(frozen=True, slots=True)
class Crossing:
    """One track went over the line."""

    track: Track
    at_us: int
    spot: Point
    direction: str  # a_to_b or b_to_a


def follow(
    view: View, walks: Sequence[Walk], line: Line, terms: Terms
) -> tuple[tuple[Walk, ...], list[Crossing]]:
    """Take one instant; gives the walks to remember, and who crossed."""
    is_broken = view.gap_us > terms.max_unseen_s * _US_PER_S
    tracks = sorted(
        (track for track in view.tracks if track.label in terms.labels),
        key=lambda track: track.track_id,
    )
    known = by_track(() if is_broken else walks, tracks)
    kept: list[Walk] = []
    crossings: list[Crossing] = []
    for track in tracks:
        walk = _follow(known.get(track.track_id), track, line, terms, crossings)
        kept += [] if walk is None else [walk]
    there = {walk.track_id for walk in kept}
    waiting = [  # a successor may still come
        walk
        for key, walk in sorted(known.items())
        if key not in there and view.t_us - walk.seen_us <= terms.max_unseen_s * _US_PER_S
    ]
    return (*kept, *waiting), crossings


def _follow(
    walk: Walk | None, track: Track, line: Line, terms: Terms, crossings: list[Crossing]
) -> Walk | None:
    """Take what was newly detected of a track."""
    if walk is not None:
        walk = replace(walk, track_id=track.track_id)
    for point in sights_since(track, None if walk is None else walk.seen_us):
        foot = point.box.foot
        if walk is None or point.t_us - walk.seen_us > terms.max_unseen_s * _US_PER_S:
            walk = Walk(track.track_id, point.t_us, foot)
        walk = replace(_meet(walk, foot, point.t_us, line), seen_us=point.t_us, foot=foot)
        distance = geometry.side(foot, line.start, line.end)
        if distance != 0 and abs(distance) >= terms.hysteresis_frac:
            side = 1 if distance > 0 else -1
            crossings += _crossed(walk, side, track, terms)
            walk = replace(walk, sure_side=side, met_us=None, met_at=None, is_on_segment=False)
    return walk


def _meet(walk: Walk, foot: Point, t_us: int, line: Line) -> Walk:
    """Note where the step to a new foot point meets the line."""
    met = geometry.crossing(walk.foot, foot, line.start, line.end)
    if met is None:
        return walk
    share, along = met
    return replace(
        walk,
        met_us=round(walk.seen_us + share * (t_us - walk.seen_us)),
        met_at=geometry.between(walk.foot, foot, share),
        is_on_segment=0.0 <= along <= 1.0,
    )


def _crossed(walk: Walk, side: int, track: Track, terms: Terms) -> list[Crossing]:
    """Tell a crossing: sure of the other side before, sure of this one now."""
    if walk.sure_side != -side or walk.met_us is None or not walk.is_on_segment:
        return []
    direction = "a_to_b" if side < 0 else "b_to_a"
    if terms.direction not in ("both", direction):
        return []
    return [Crossing(track, walk.met_us, walk.met_at or walk.foot, direction)]
