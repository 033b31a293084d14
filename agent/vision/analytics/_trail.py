"""The way of every object inside an area: shared by the rules that ask which way, and how far.

A trail begins where the object enters, at a point interpolated between two looks, and ends where it
leaves. It keeps places at least a stride apart, so that a trembling box makes no way.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.core.model import Phase, Point, Signal, Track, View
from agent.vision.analytics._area import Area
from agent.vision.analytics._path import by_track, in_order, sights_since

STRIDE_FRAC: Final = 0.01  # of the picture
MAX_POINTS: Final = 200
LOST: Final = "lost"
LEFT: Final = "left"

_US_PER_S: Final = 1_000_000

Step = tuple[int, Point]


@dataclass(frozen=True, slots=True)
class Trail:
    """What is known of one object; `key` names its event even after a change of track."""

    track_id: int
    key: int
    label: str
    score: float
    seen_us: int
    foot: Point
    points: tuple[Step, ...] = ()  # inside, oldest first; empty outside
    is_told: bool = False

    @property
    def is_inside(self) -> bool:
        """Whether it is in the area."""
        return bool(self.points)


@dataclass(frozen=True, slots=True)
class Terms:
    """Whose trails are kept."""

    labels: tuple[str, ...]
    grace_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule thinks of a trail: it begins an event, or ends the one that is open."""

    at_us: int
    measured: Mapping[str, float]
    reason: str = ""  # of an end


Judge = Callable[[Trail, Step], Verdict | None]
"""Judges a trail at its newest look, which need not be among its points."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one instant gave: trails to remember, signals, and the trails that ended."""

    trails: tuple[Trail, ...]
    signals: tuple[Signal, ...]
    ended: tuple[Trail, ...]


def step(view: View, trails: Sequence[Trail], terms: Terms, area: Area, judge: Judge) -> Result:
    """Judge one instant."""
    walk = _Walk(view, terms, area, judge)
    present = {track.track_id: track for track in view.tracks if track.label in terms.labels}
    known = by_track(trails, present.values())
    if view.armed_since_us is None:  # the host has closed what was open
        known = {key: replace(trail, is_told=False) for key, trail in known.items()}
    for track_id in sorted(present):
        trail = walk.follow(known.get(track_id), present[track_id])
        if trail is not None:
            known[track_id] = trail
    for track_id in sorted(known):
        trail = known[track_id]
        if view.t_us - trail.seen_us > terms.grace_s * _US_PER_S:
            walk.leave(trail, trail.seen_us, LOST)
            del known[track_id]
    return Result(in_order(known), tuple(walk.signals), tuple(walk.ended))


class _Walk:
    """The work of one instant."""

    def __init__(self, view: View, terms: Terms, area: Area, judge: Judge) -> None:
        self._view = view
        self._grace_us = terms.grace_s * _US_PER_S
        self._area = area
        self._judge = judge
        self.signals: list[Signal] = []
        self.ended: list[Trail] = []

    def follow(self, trail: Trail | None, track: Track) -> Trail | None:
        """Take what was newly detected of a track."""
        if trail is not None and trail.track_id != track.track_id:
            trail = self._take_over(trail, track)
        for point in sights_since(track, None if trail is None else trail.seen_us):
            if trail is not None and point.t_us - trail.seen_us > self._grace_us:
                self.leave(trail, trail.seen_us, LOST)
                trail = None
            if trail is None:
                ids = (track.track_id, track.track_id)
                trail = Trail(*ids, track.label, track.score, point.t_us, point.box.foot)
            trail = self._advance(replace(trail, score=track.score), (point.t_us, point.box.foot))
        return trail

    def leave(self, trail: Trail, at_us: int, reason: str) -> None:
        """End a trail."""
        if not trail.is_inside:
            return
        self.ended.append(trail)
        if trail.is_told:
            self._say(trail, Phase.END, Verdict(at_us, {}, reason))

    def _take_over(self, trail: Trail, track: Track) -> Trail:
        """Carry a trail on under its successor's id."""
        key = trail.key if trail.is_told else track.track_id
        moved = replace(trail, track_id=track.track_id, key=key)
        if moved.is_told:
            self._say(moved, Phase.UPDATE, Verdict(moved.seen_us, {}))
        return moved

    def _advance(self, trail: Trail, here: Step) -> Trail:
        start = (trail.seen_us, trail.foot)
        for at_us, spot, is_inside in self._area.changes(start, here, is_inside=trail.is_inside):
            if is_inside:
                trail = replace(trail, seen_us=at_us, foot=spot, points=((at_us, spot),))
            else:
                trail = self._judged(trail, (at_us, spot))
                self.leave(trail, at_us, LEFT)
                trail = replace(trail, seen_us=at_us, foot=spot, points=(), is_told=False)
        trail = replace(trail, seen_us=here[0], foot=here[1])
        if not trail.is_inside:
            return trail
        trail = self._judged(trail, here)
        if math.dist(trail.points[-1][1], here[1]) >= STRIDE_FRAC:
            trail = replace(trail, points=_thinned((*trail.points, here)))
        return trail

    def _judged(self, trail: Trail, here: Step) -> Trail:
        verdict = self._judge(trail, here)
        if verdict is None or self._view.armed_since_us is None:
            return trail
        if trail.is_told:
            self._say(trail, Phase.END, verdict)
            return replace(trail, is_told=False, points=(here,))
        at_us = max(verdict.at_us, self._view.armed_since_us)
        self._say(trail, Phase.BEGIN, replace(verdict, at_us=at_us))
        return replace(trail, is_told=True, points=(here,))

    def _say(self, trail: Trail, phase: Phase, verdict: Verdict) -> None:
        self.signals.append(
            Signal(
                phase,
                key=str(trail.key),
                t_us=verdict.at_us,
                label=trail.label,
                score=trail.score,
                track_ids=(trail.track_id,),
                measured=verdict.measured,
                reason=verdict.reason,
            )
        )


def _thinned(points: tuple[Step, ...]) -> tuple[Step, ...]:
    """Keep the first and the newest, and every other one between, when there are too many."""
    return points if len(points) <= MAX_POINTS else (*points[:-1:2], points[-1])
