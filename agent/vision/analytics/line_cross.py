"""An object crosses a line: one event at once, with the direction it went.

Side `a` is left of the line for somebody who walks over the picture from `start` to `end`, side `b`
is right: for a line drawn downwards, `a` is the right half of the picture as it is looked at.
The foot must be seen at least `hysteresis_frac` away on one side and then on the other, by the
detector and not by prediction; the line itself is met on the path between, so a fast object at a
low rate counts, one that only touches does not, and the time does not depend on the rate.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal

from agent.core.config import NAME, Doc, Range
from agent.core.model import Line, Phase, Point, Signal, Track, View
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._contract import Places, RuleConfig, Spec
from agent.vision.analytics._path import sights_since

SPEC: Final = Spec(
    kind="line_cross",
    needs=frozenset({"tracks"}),
    onvif_topic="tns1:RuleEngine/LineDetector/Crossed",
    version=1,
)

_US_PER_S: Final = 1_000_000


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
class State:
    """Walks by track id."""

    walks: tuple[Walk, ...] = ()


def initial() -> State:
    """Nobody has been seen."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    line = places.lines[rule.line]
    is_broken = view.gap_us > rule.max_unseen_s * _US_PER_S
    known = {} if is_broken else {walk.track_id: walk for walk in state.walks}
    signals: list[Signal] = []
    walks: list[Walk] = []
    for track in sorted(view.tracks, key=lambda track: track.track_id):
        if track.label in rule.labels:
            walk, said = _follow(known.get(track.track_id), track, line, rule)
            signals += said
            walks += [] if walk is None else [walk]
    return State(tuple(walks)), tuple(signals)


def _follow(
    walk: Walk | None, track: Track, line: Line, rule: Config
) -> tuple[Walk | None, list[Signal]]:
    """Take what was newly observed of a track."""
    signals: list[Signal] = []
    for point in sights_since(track, None if walk is None else walk.seen_us):
        foot = point.box.foot
        if walk is None or point.t_us - walk.seen_us > rule.max_unseen_s * _US_PER_S:
            walk = Walk(track.track_id, point.t_us, foot)
        walk = replace(_meet(walk, foot, point.t_us, line), seen_us=point.t_us, foot=foot)
        distance = geometry.side(foot, line.start, line.end)
        if distance != 0 and abs(distance) >= rule.hysteresis_frac:
            side = 1 if distance > 0 else -1
            signals += _crossed(walk, side, track, rule)
            walk = replace(walk, sure_side=side, met_us=None, met_at=None, is_on_segment=False)
    return walk, signals


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


def _crossed(walk: Walk, side: int, track: Track, rule: Config) -> Iterable[Signal]:
    """Tell a crossing: sure of the other side before, sure of this one now."""
    if walk.sure_side != -side or walk.met_us is None or not walk.is_on_segment:
        return ()
    direction = "a_to_b" if side < 0 else "b_to_a"
    if rule.direction not in ("both", direction):
        return ()
    spot = walk.met_at or walk.foot
    begin = Signal(
        Phase.BEGIN,
        key=str(walk.track_id),
        t_us=walk.met_us,
        label=track.label,
        score=track.score,
        track_ids=(walk.track_id,),
        measured={
            "direction": float(-side),  # 1 is a_to_b, -1 is b_to_a
            "x": geometry.rounded(spot.x),
            "y": geometry.rounded(spot.y),
        },
    )
    return begin, replace(begin, phase=Phase.END, reason=direction)
