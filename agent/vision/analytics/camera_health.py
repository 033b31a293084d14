"""The camera itself: dark, washed out, frozen, blurred, moved, lost, clock wrong, stream damaged.

One event a mode, its label the mode. Contrast and sharpness are judged against the camera's own
usual ones, which are known after half a minute and not learned while a fault holds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Final

from agent.core.config import Doc, Length, Pattern, Range
from agent.core.model import Phase, Picture, Signal, View
from agent.vision.analytics import _hold as holds
from agent.vision.analytics import _stillness as still
from agent.vision.analytics._contract import (
    BY_SENSITIVITY,
    GROUND,
    PICTURE,
    SHIFT,
    TRACKS,
    Places,
    RuleConfig,
    Spec,
)
from agent.vision.analytics._geometry import rounded

FROZEN, DARK, BRIGHT, BLURRED = "frozen", "dark", "bright", "blurred"
MOVED, CLOCK, DEGRADED, LOST = "moved", "clock", "degraded", "lost"
MODES: Final = (DARK, BRIGHT, FROZEN, BLURRED, MOVED, CLOCK, DEGRADED, LOST)

SPEC: Final = Spec(
    kind="camera_health",
    needs=frozenset({PICTURE}),
    onvif_topic="",
    version=1,
    onvif_topics={
        DARK: "tns1:VideoSource/ImageTooDark/AnalyticsService",
        BRIGHT: "tns1:VideoSource/ImageTooBright/AnalyticsService",
        BLURRED: "tns1:VideoSource/ImageTooBlurry/AnalyticsService",
        MOVED: "tns1:VideoSource/GlobalSceneChange/AnalyticsService",
        LOST: "tns1:VideoSource/SignalLoss",
    },
    figures=frozenset({SHIFT}),
    is_lasting=True,
    is_on_camera=True,
    blinds={
        DARK: frozenset({TRACKS, GROUND, PICTURE}),
        BRIGHT: frozenset({TRACKS, GROUND, PICTURE}),
        FROZEN: frozenset({TRACKS, GROUND, PICTURE}),
        MOVED: frozenset({GROUND, PICTURE}),
    },
)

ELSEWHERE_FRAC: Final = 1.0  # what `Picture.shift_frac` says of another view altogether
MIN_SPREAD: Final = 6.0  # grey levels: with less contrast sharpness and place mean nothing
BLACK_SPREAD: Final = 4.0  # grey levels: with less, dark is black and not night
SETTLE_S: Final = 30.0  # before the camera's usual figures are known
GOOD_AGAIN: Final = 1.3  # an event ends when the figure is better than its limit by this factor

_US_PER_S: Final = 1_000_000
_MODE = Pattern("|".join(MODES), ", ".join(MODES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RuleConfig):
    """Faults of the camera and of its picture."""

    LEVELS: ClassVar = {"on_s": (60.0, 30.0, 15.0, 10.0, 5.0)}

    modes: Annotated[
        tuple[Annotated[str, _MODE], ...], Doc("Faults it looks for"), Length(1, len(MODES))
    ] = MODES
    on_s: Annotated[float, Doc("Seconds for which a fault must hold"), Range(1, 3600)] = (
        BY_SENSITIVITY
    )
    off_s: Annotated[float, Doc("Seconds of good pictures that end an event"), Range(0, 3600)] = 5.0
    frozen_s: Annotated[
        float, Doc("frozen: seconds without the smallest change"), Range(5, 3600)
    ] = 30.0
    lost_s: Annotated[float, Doc("lost: seconds without a picture"), Range(3, 3600)] = 10.0
    dark_levels: Annotated[
        float, Doc("dark: brightness up to which a picture without contrast is black"), Range(0, 80)
    ] = 20.0
    bright_levels: Annotated[
        float, Doc("bright: brightness from which a picture is washed out"), Range(180, 255)
    ] = 230.0
    covered_ratio: Annotated[
        float, Doc("dark, bright: contrast below this share of the usual"), Range(0.02, 0.9)
    ] = 0.35
    blurred_ratio: Annotated[
        float, Doc("blurred: sharpness below this share of the usual"), Range(0.02, 0.9)
    ] = 0.35
    moved_frac: Annotated[
        float, Doc("moved: displacement of the view, as a share of the picture"), Range(0.002, 0.5)
    ] = 0.01
    clock_s: Annotated[
        float, Doc("clock: seconds between the camera's clock and ours"), Range(0.5, 86_400)
    ] = 5.0
    degraded_share: Annotated[
        float, Doc("degraded: share of damaged pictures over a minute"), Range(0.001, 1)
    ] = 0.05
    usual_s: Annotated[
        float,
        Doc("Seconds over which the usual contrast and sharpness are learned"),
        Range(60, 1e6),
    ] = 1800.0


@dataclass(frozen=True, slots=True)
class State:
    """What has held since when, and the usual figures."""

    holding: Mapping[str, holds.Hold] = field(default_factory=dict)
    since_us: int | None = None  # the first look
    last_us: int = 0
    looks: int = 0  # that were learned from
    spread: float = 0.0  # usual contrast, grey levels
    crispness: float = 0.0  # usual sharpness by contrast
    stillness: still.Stillness = still.UNKNOWN
    seen_us: int = 0  # the last view with the source there
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class _Finding:
    is_so: bool
    value: float
    baseline: float


_SOUND: Final = _Finding(is_so=False, value=0.0, baseline=0.0)


def initial() -> State:
    """Nothing is known of the camera."""
    return State()


def step(
    view: View,
    state: State,
    rule: Config,
    places: Places,  # noqa: ARG001 - every rule has it
) -> tuple[State, tuple[Signal, ...]]:
    """Judge one instant."""
    state, signals = _lost(view, state, rule)
    picture = view.picture
    if picture is None:
        return state, signals
    stillness = still.advance(state.stillness, picture, view.t_us, is_break=view.gap_us > 0)
    state = replace(state, stillness=stillness)
    findings = _findings(picture, view.t_us, state, rule)
    holding = dict(state.holding)
    if findings.get(FROZEN, _SOUND).is_so and not holding.get(FROZEN, holds.NONE).is_told:
        holding[FROZEN] = holds.Hold(since_us=stillness.since_us)
    for mode, found in findings.items():
        if mode not in rule.modes:
            continue
        hold, change = holds.advance(
            holding.get(mode, holds.NONE),
            view.t_us,
            is_true=found.is_so,
            on_s=max(rule.on_s, rule.frozen_s) if mode == FROZEN else rule.on_s,
            off_s=rule.off_s,
            armed_since_us=view.armed_since_us,
        )
        holding[mode] = hold
        signals += _told(mode, change, found)
    is_faulty = any(
        findings[mode].is_so for mode in (DARK, BRIGHT, BLURRED, MOVED) if mode in findings
    )
    state = replace(state, holding=holding)
    return _learned(state, picture, view.t_us, rule, is_faulty=is_faulty), signals


def _findings(picture: Picture, t_us: int, state: State, rule: Config) -> dict[str, _Finding]:
    """Give each mode that this look says anything of."""
    is_settled = state.since_us is not None and t_us - state.since_us >= SETTLE_S * _US_PER_S
    spread, usual = picture.luma_sd, state.spread if is_settled else 0.0
    is_flat = spread < rule.covered_ratio * usual * _slack(state, DARK, BRIGHT)
    is_bright = picture.luma_mean >= rule.bright_levels and (is_flat or spread < MIN_SPREAD)
    is_black = picture.luma_mean <= rule.dark_levels * _slack(state, DARK) and (
        spread < BLACK_SPREAD * _slack(state, DARK)
    )
    is_recognised = picture.shift_frac is not None and picture.shift_frac < ELSEWHERE_FRAC
    is_dark = is_black or (is_flat and not is_bright and not is_recognised)
    found = {DARK: _Finding(is_dark, spread, usual), BRIGHT: _Finding(is_bright, spread, usual)}
    if picture.clock_offset_s is not None:
        off_s = abs(picture.clock_offset_s)
        limit_s = rule.clock_s / _slack(state, CLOCK)
        found[CLOCK] = _Finding(off_s > limit_s, picture.clock_offset_s, 0.0)
    share = picture.corrupt_share
    limit = rule.degraded_share / _slack(state, DEGRADED)
    found[DEGRADED] = _Finding(share > limit, share, 0.0)
    if is_dark or is_bright:  # one cause, one event; the rest cannot be seen
        return found
    found[FROZEN] = _Finding(state.stillness.is_frozen, picture.change, 0.0)
    if spread < MIN_SPREAD:
        return found
    is_elsewhere = picture.shift_frac == ELSEWHERE_FRAC
    if not is_elsewhere and not state.holding.get(MOVED, holds.NONE).is_told:
        found[BLURRED] = _blurred(picture, state, rule, is_settled=is_settled)
    is_blurred = BLURRED in found and found[BLURRED].is_so
    if picture.shift_frac is not None and not is_blurred:
        limit = rule.moved_frac / _slack(state, MOVED)
        found[MOVED] = _Finding(picture.shift_frac > limit, picture.shift_frac, 0.0)
    return found


def _blurred(picture: Picture, state: State, rule: Config, *, is_settled: bool) -> _Finding:
    """Compare the sharpness with the usual one, of the same view."""
    crisp, usual = _crispness(picture), state.crispness if is_settled else 0.0
    limit = rule.blurred_ratio * usual * _slack(state, BLURRED)
    return _Finding(crisp < limit, crisp, usual)


def _crispness(picture: Picture) -> float:
    """Give the sharpness by contrast, which dusk and gain do not change."""
    return picture.sharpness / picture.luma_sd**2


def _slack(state: State, *modes: str) -> float:
    is_told = any(state.holding.get(mode, holds.NONE).is_told for mode in modes)
    return GOOD_AGAIN if is_told else 1.0


def _learned(state: State, picture: Picture, t_us: int, rule: Config, *, is_faulty: bool) -> State:
    since_us = t_us if state.since_us is None else state.since_us
    span_s = max(0, t_us - state.last_us) / _US_PER_S
    state = replace(state, since_us=since_us, last_us=t_us)
    if is_faulty or picture.luma_sd < MIN_SPREAD:
        return state
    looks = state.looks + 1
    share = max(1 / looks, 1 - math.exp(-span_s / rule.usual_s))
    return replace(
        state,
        looks=looks,
        spread=state.spread + share * (picture.luma_sd - state.spread),
        crispness=state.crispness + share * (_crispness(picture) - state.crispness),
    )


def _lost(view: View, state: State, rule: Config) -> tuple[State, tuple[Signal, ...]]:
    """Tell a loss while it lasts, or, where nobody asked meanwhile, when it is over."""
    away_us = view.t_us - state.seen_us if view.is_lost else view.gap_us
    if not view.is_lost:
        state = replace(state, seen_us=view.t_us)
    if view.armed_since_us is None:
        return replace(state, is_lost=False), ()
    if LOST not in rule.modes:
        return state, ()
    signals: tuple[Signal, ...] = ()
    if away_us >= rule.lost_s * _US_PER_S and not state.is_lost:
        began_us = view.t_us - away_us + round(rule.lost_s * _US_PER_S)
        signals = (_signal(LOST, Phase.BEGIN, began_us, away_us / _US_PER_S, 0.0),)
        state = replace(state, is_lost=True)
    if state.is_lost and not view.is_lost:
        signals += (_signal(LOST, Phase.END, view.t_us, away_us / _US_PER_S, 0.0, "back"),)
        state = replace(state, is_lost=False)
    return state, signals


def _told(mode: str, change: holds.Change, found: _Finding) -> tuple[Signal, ...]:
    if change.began_us is not None:
        return (_signal(mode, Phase.BEGIN, change.began_us, found.value, found.baseline),)
    if change.ended_us is not None:
        end = _signal(mode, Phase.END, change.ended_us, found.value, found.baseline, "good again")
        return (replace(end, measured={}),)
    return ()


def _signal(
    mode: str, phase: Phase, t_us: int, value: float, baseline: float, reason: str = ""
) -> Signal:
    return Signal(
        phase,
        key=mode,
        t_us=t_us,
        label=mode,
        measured={"value": rounded(value), "baseline": rounded(baseline)},
        reason=reason,
    )
