"""Something has been taken from its place: the zone looks otherwise than it used to, for a time.

Time counts only while nothing moves or is tracked in front. A dark, moved or frozen picture says
nothing: the rule is blind then and remembers where it was.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final

from agent.core.config import NAME, Doc, Range
from agent.core.model import Box, Phase, Signal, View
from agent.vision.analytics import _hold as holds
from agent.vision.analytics._contract import (
    BY_SENSITIVITY,
    PICTURE,
    SIMILARITY,
    Places,
    RuleConfig,
    Spec,
)
from agent.vision.analytics._geometry import rounded
from agent.vision.analytics._overlap import covered, shared_area

SPEC: Final = Spec(
    kind="object_removed",
    needs=frozenset({PICTURE}),
    onvif_topic="",
    version=1,
    is_lasting=True,
    figures=frozenset({SIMILARITY}),
)

WITHIN: Final = 0.7  # of a moving box
LIKE_AGAIN: Final = 0.1  # so much more similar than the limit ends the event

_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """A thing that must stay where it is."""

    LEVELS: ClassVar = {"removed_s": (120.0, 60.0, 30.0, 20.0, 10.0)}

    zone: Annotated[str, Doc("Zone drawn closely round the thing"), NAME]
    removed_s: Annotated[
        float, Doc("Seconds for which the zone must look otherwise"), Range(1, 3600)
    ] = BY_SENSITIVITY
    off_s: Annotated[float, Doc("Seconds of its usual look that end the event"), Range(0, 600)] = (
        3.0
    )
    min_similarity: Annotated[
        float, Doc("Correlation with its usual look below which it looks otherwise"), Range(0, 0.85)
    ] = 0.6


@dataclass(frozen=True, slots=True)
class State:
    """How long the zone has looked otherwise."""

    hold: holds.Hold = holds.NONE
    last_us: int = 0


def initial() -> State:
    """It looks as usual."""
    return State()


def step(
    view: View, state: State, rule: Config, places: Places
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    passed_us = max(0, view.t_us - state.last_us)
    state = replace(state, last_us=view.t_us)
    similarity = None if view.picture is None else view.picture.similarity.get(rule.zone)
    if similarity is None or _is_hidden(view, places, rule.zone):
        return replace(state, hold=_later(state.hold, passed_us)), ()
    limit = rule.min_similarity + (LIKE_AGAIN if state.hold.is_told else 0.0)
    since_us = state.hold.since_us
    hold, change = holds.advance(
        state.hold,
        view.t_us,
        is_true=similarity < limit,
        on_s=rule.removed_s,
        off_s=rule.off_s,
        armed_since_us=view.armed_since_us,
    )
    state = replace(state, hold=hold)
    signal = Signal(
        Phase.BEGIN,
        key=rule.zone,
        t_us=change.began_us or 0,
        measured={"similarity": rounded(similarity)},
    )
    if change.began_us is not None:
        return state, (signal,)
    if change.ended_us is not None and since_us is not None:
        dwell_s = rounded((change.ended_us - since_us) / _US_PER_S)
        end = replace(
            signal,
            phase=Phase.END,
            t_us=change.ended_us,
            measured={"dwell_s": dwell_s},
            reason="as before",
        )
        return state, (end,)
    return state, ()


def _is_hidden(view: View, places: Places, zone: str) -> bool:
    xs, ys = zip(*places.zones[zone].points, strict=True)
    around = Box(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
    tracked = any(shared_area(around, track.box) for track in view.tracks)
    moving = view.picture.moving if view.picture is not None else ()
    # Motion that keeps to the zone is the thing's own going, which is motion for some seconds yet.
    return tracked or any(0 < covered(box, around) < WITHIN for box in moving)


def _later(hold: holds.Hold, passed_us: int) -> holds.Hold:
    """Put off what is due: time that nobody could see does not count."""
    return replace(
        hold,
        since_us=None if hold.since_us is None else hold.since_us + passed_us,
        off_us=None if hold.off_us is None else hold.off_us + passed_us,
    )
