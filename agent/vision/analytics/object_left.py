"""A thing was put down and left: it stands in the zone, it is nobody, and nobody stands by it.

A patch of static foreground that a standing track touches is that object, or has its owner by it;
the time counts from when they have left. A track that is lost where it stood still stands there as
far as one can tell: a detector that misses a sitting person makes no bag of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Range
from agent.core.model import Box, Patch, Phase, Signal, Track, View
from agent.vision.analytics._contract import (
    BY_SENSITIVITY,
    PATCHES,
    PICTURE,
    TRACKS,
    Places,
    RuleConfig,
    Spec,
)
from agent.vision.analytics._geometry import is_inside, rounded
from agent.vision.analytics._overlap import iou, shared_area

SPEC: Final = Spec(
    kind="object_left",
    needs=frozenset({TRACKS, PICTURE}),
    onvif_topic="",
    version=1,
    is_lasting=True,
    figures=frozenset({PATCHES}),
)

SAME_IOU: Final = 0.3
STILL_S: Final = 2.0
STILL_FRAC: Final = 0.02  # who moved further in that time walks past
PART_US: Final = 120_000_000  # a track lost at a patch much smaller than itself excuses it so long

_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Things left behind."""

    LEVELS: ClassVar = {"left_s": (120.0, 60.0, 30.0, 20.0, 10.0)}

    zone: Annotated[str, Doc("Zone that is watched"), NAME]
    left_s: Annotated[float, Doc("Seconds it must stand alone"), Range(1, 1200)] = BY_SENSITIVITY
    min_area_frac: Annotated[
        float, Doc("Smallest thing, its box as a share of the picture"), Range(0.0003, 0.5)
    ] = 0.0006
    max_area_frac: Annotated[
        float, Doc("Largest thing, its box as a share of the picture"), Range(0.001, 1)
    ] = 0.05


@dataclass(frozen=True, slots=True)
class Thing:
    """A patch in the zone; `key` names its event."""

    key: int
    box: Box
    since_us: int  # it stands there
    alone_us: int  # nobody has stood by it since
    by_it: tuple[int, ...] = ()  # tracks that stand by it
    last_by_it: Box | None = None
    lost_us: int | None = None  # they have not been seen since then
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What stands in the zone."""

    things: tuple[Thing, ...] = ()
    next_key: int = 1


def initial() -> State:
    """Nothing stands there."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    if view.picture is None:
        return state, ()
    polygon = places.zones[rule.zone].points
    patches = [
        patch
        for patch in view.picture.patches
        if rule.min_area_frac <= patch.box.w * patch.box.h <= rule.max_area_frac
        and is_inside(patch.box.foot, polygon)
    ]
    free, things, next_key = list(state.things), [], state.next_key
    signals: list[Signal] = []
    for patch in sorted(patches, key=lambda patch: (patch.since_us, patch.box)):
        thing = max(free, key=lambda item: iou(item.box, patch.box), default=None)
        if thing is None or iou(thing.box, patch.box) < SAME_IOU:
            thing = Thing(next_key, patch.box, patch.since_us, patch.since_us)
            next_key += 1
        else:
            free.remove(thing)
        thing, said = _judged(_attended(thing, patch, view), view, rule)
        things.append(thing)
        signals += said
    for thing in free:
        if thing.is_told and view.armed_since_us is not None:
            signals.append(_signal(thing, Phase.END, view.t_us))
    things.sort(key=lambda thing: thing.key)
    return State(tuple(things), next_key), tuple(signals)


def _attended(thing: Thing, patch: Patch, view: View) -> Thing:
    """Take note of who stands by it."""
    by_it = [track for track in view.tracks if _stands_by(track, patch.box)]
    if by_it:
        return replace(
            thing,
            box=patch.box,
            alone_us=view.t_us,
            by_it=tuple(sorted(track.track_id for track in by_it)),
            last_by_it=max(by_it, key=lambda track: iou(track.box, patch.box)).box,
            lost_us=None,
        )
    ids = {number for track in view.tracks for number in (track.track_id, track.predecessor)}
    if not thing.by_it or not ids.isdisjoint(thing.by_it):
        return replace(thing, box=patch.box, by_it=(), lost_us=None)  # they have gone their way
    lost_us = view.t_us if thing.lost_us is None else thing.lost_us
    is_itself = thing.last_by_it is not None and iou(thing.last_by_it, patch.box) >= SAME_IOU
    if is_itself or view.t_us - lost_us < PART_US:
        return replace(thing, box=patch.box, alone_us=view.t_us, lost_us=lost_us)
    return replace(thing, box=patch.box, by_it=(), lost_us=None)


def _judged(thing: Thing, view: View, rule: Config) -> tuple[Thing, Sequence[Signal]]:
    if view.armed_since_us is None:
        return replace(thing, is_told=False), ()
    due_us = max(thing.alone_us, view.armed_since_us) + round(rule.left_s * _US_PER_S)
    if thing.is_told or view.t_us < due_us:
        return thing, ()
    thing = replace(thing, is_told=True)
    return thing, (_signal(thing, Phase.BEGIN, due_us),)


def _signal(thing: Thing, phase: Phase, t_us: int) -> Signal:
    dwell_s = {} if phase is Phase.BEGIN else {"dwell_s": (t_us - thing.since_us) / _US_PER_S}
    measured = {"area_frac": thing.box.w * thing.box.h, **dwell_s}
    return Signal(
        phase,
        key=str(thing.key),
        t_us=t_us,
        measured={name: rounded(value) for name, value in measured.items()},
        reason="" if phase is Phase.BEGIN else "gone",
    )


def _stands_by(track: Track, box: Box) -> bool:
    if not shared_area(box, track.box):
        return False
    since_us = track.history[-1].t_us - STILL_S * _US_PER_S
    feet = [point.box.foot for point in track.history if point.t_us >= since_us]
    return (
        max(foot.x for foot in feet) - min(foot.x for foot in feet) <= STILL_FRAC
        and max(foot.y for foot in feet) - min(foot.y for foot in feet) <= STILL_FRAC
    )
