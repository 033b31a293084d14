"""An object is faster than allowed, by more than the error: indicative, no basis for a fine."""

from dataclasses import dataclass, replace
from typing import Annotated, Final

from agent.core.config import NAME, Doc, Length, Range
from agent.core.model import Phase, Signal, Track, View
from agent.vision.analytics import _geometry as geometry
from agent.vision.analytics._area import area
from agent.vision.analytics._contract import GROUND, LABEL, TRACKS, Places, RuleConfig, Spec
from agent.vision.analytics._path import by_track, in_order
from agent.vision.analytics._velocity import Velocity, velocity

SPEC: Final = Spec(kind="speed", needs=frozenset({TRACKS, GROUND}), onvif_topic="", version=1)

_SLOW_AGAIN: Final = 0.9  # of the limit
_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Objects above a speed limit."""

    limit_kmh: Annotated[float, Doc("Speed that makes an event"), Range(1, 400)]
    zone: Annotated[
        str | None, Doc("Zone that is watched; all of the ground, without it"), NAME
    ] = None
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("vehicle",)
    window_s: Annotated[float, Doc("Seconds over which speed is taken"), Range(0.5, 20)] = 2.0
    min_length_m: Annotated[
        float, Doc("Way over which it must be taken, in metres"), Range(0.5, 200)
    ] = 5.0
    grace_s: Annotated[
        float, Doc("Seconds an object may be hidden or lost without leaving"), Range(0, 60)
    ] = 2.0


@dataclass(frozen=True, slots=True)
class Drive:
    """An object that is being told as too fast."""

    track_id: int
    key: int
    seen_us: int
    fastest: Velocity


@dataclass(frozen=True, slots=True)
class State:
    """Who is too fast."""

    drives: tuple[Drive, ...] = ()


def initial() -> State:
    """Nobody has been seen."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    tracks = {track.track_id: track for track in view.tracks if track.label in rule.labels}
    known = {} if view.armed_since_us is None else by_track(state.drives, tracks.values())
    signals: list[Signal] = []
    for track_id in sorted(tracks):
        track = tracks[track_id]
        if track.missing_s > 0 or view.armed_since_us is None:
            continue
        found = _measured(track, view, rule, places)
        drive = known.pop(track_id, None)
        if drive is None:
            drive, said = _begin(found, track, view, rule)
        elif not _is_inside(track, rule, places):
            said = [_signal(drive, Phase.END, view.t_us, track, "left")]
            drive = None
        else:
            drive, said = _carry_on(drive, found, track, view, rule)
        signals += said
        if drive is not None:
            known[track_id] = drive
    for track_id in sorted(known):
        if view.t_us - known[track_id].seen_us > rule.grace_s * _US_PER_S:
            lost = known.pop(track_id)
            signals.append(_signal(lost, Phase.END, lost.seen_us, None, "lost"))
    return State(in_order(known)), tuple(signals)


def _measured(track: Track, view: View, rule: Config, places: Places) -> Velocity | None:
    if places.ground is None or not _is_inside(track, rule, places):
        return None
    return velocity(track, places.ground, view.t_us, rule.window_s)


def _is_inside(track: Track, rule: Config, places: Places) -> bool:
    if rule.zone is None:
        return True
    return area(places.zones[rule.zone], 0.0).depth(track.box.foot) >= 0


def _begin(
    found: Velocity | None, track: Track, view: View, rule: Config
) -> tuple[Drive | None, list[Signal]]:
    if found is None or found.length_m < rule.min_length_m:
        return None, []
    if found.speed_kmh - found.error_kmh <= rule.limit_kmh:
        return None, []
    drive = Drive(track.track_id, track.track_id, view.t_us, found)
    return drive, [_signal(drive, Phase.BEGIN, view.t_us, track, "")]


def _carry_on(
    drive: Drive, found: Velocity | None, track: Track, view: View, rule: Config
) -> tuple[Drive | None, list[Signal]]:
    if found is not None and found.speed_kmh < _SLOW_AGAIN * rule.limit_kmh:
        return None, [_signal(drive, Phase.END, view.t_us, track, "slower")]
    is_faster = found is not None and found.speed_kmh > drive.fastest.speed_kmh
    fastest = found if found is not None and is_faster else drive.fastest
    is_new = track.track_id != drive.track_id
    drive = replace(drive, track_id=track.track_id, seen_us=view.t_us, fastest=fastest)
    return drive, [_signal(drive, Phase.UPDATE, view.t_us, track, "")] if is_new else []


def _signal(drive: Drive, phase: Phase, t_us: int, track: Track | None, reason: str) -> Signal:
    fastest = drive.fastest
    return Signal(
        phase,
        key=str(drive.key),
        t_us=t_us,
        label="" if track is None else track.label,
        score=0.0 if track is None else track.score,
        track_ids=(drive.track_id,),
        measured={
            "speed_kmh": geometry.rounded(fastest.speed_kmh),
            "error_kmh": geometry.rounded(fastest.told_error_kmh),
            "length_m": geometry.rounded(fastest.length_m),
            "samples": float(fastest.samples),
        },
        reason=reason,
    )
