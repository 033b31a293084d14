"""The rules of one camera at work: armed by their schedules, kept apart from each other.

A rule that raises is stopped, told, and begun anew after a pause; the others go on. A rule that
takes more than its share of time is asked less often: it looks at what is new since it was asked
last, so that its rate suffers, never its state.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agent.core.clock import NS_PER_MS, Clock
from agent.core.model import Phase, Signal, Track, View
from agent.vision import analytics
from agent.vision.analytics import Places
from agent.vision.analytics._contract import TRACKS
from agent.vision.config import CameraConfig
from agent.vision.schedule import is_armed

NO_DETECTOR: Final = "no detector"
SOURCE_LOST: Final = "source lost"

BUDGET_MS: Final = 2.0  # a step, on average
FIRST_PAUSE_S: Final = 10.0
LONGEST_PAUSE_S: Final = 600.0
WINDOW: Final = 10  # views that are kept for the report of a fault

_US_PER_S: Final = 1_000_000
_MEMORY: Final = 50  # steps over which the cost is averaged


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule raised: what it was given last, newest at the end."""

    rule: str
    kind: str
    reason: str
    views: tuple[View, ...]
    state: str


@dataclass(frozen=True, slots=True)
class Blindness:
    """Why a rule cannot see, and for how long it could not since the start."""

    reason: str  # empty: it sees
    total_s: float


@dataclass(frozen=True, slots=True)
class Said:
    """What the rules said of one instant."""

    signals: tuple[tuple[str, Signal], ...] = ()
    disarmed: tuple[str, ...] = ()  # their open events are over
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class _Running:
    name: str
    kind: str
    rule: analytics.Rule
    settings: analytics.RuleConfig
    state: Any
    armed_since_us: int | None = None
    paused_until_us: int = 0
    pause_s: float = FIRST_PAUSE_S
    cost_ms: float = 0.0
    skipped: int = 0
    gap_us: int = 0  # of the steps that were skipped
    views: deque[View] = field(default_factory=lambda: deque(maxlen=WINDOW))
    blind: str = ""
    blind_us: int = 0
    blind_until_us: int | None = None
    open_keys: set[str] = field(default_factory=set)


class Rules:
    """Asks every rule of a camera at each instant; for one thread.

    Args:
        camera: whose rules.
        places: its zones, lines and ground.
        clock: measures what a rule costs.
        has_detector: without one, rules over tracks are blind.
    """

    def __init__(
        self, camera: CameraConfig, places: Places, clock: Clock, *, has_detector: bool
    ) -> None:
        self._places = places
        self._clock = clock
        self._has_detector = has_detector
        self._running = [
            _Running(item.settings.name, item.kind, rule, item.settings, rule.initial())
            for item in camera.rules
            for rule in (analytics.rule(item.kind),)
        ]
        # What the camera itself suffers is known before anybody judges what it sees.
        self._running.sort(key=lambda item: not item.rule.SPEC.is_on_camera)
        self._last_us: int | None = None

    def step(self, view: View, utc_ns: int) -> Said:
        """Ask the rules about one instant.

        Args:
            view: the instant; its `armed_since_us` is filled in for each rule.
            utc_ns: wall time of the instant, for the schedules.
        """
        passed_us = 0 if self._last_us is None else max(0, view.t_us - self._last_us)
        self._last_us = view.t_us
        signals: list[tuple[str, Signal]] = []
        disarmed: list[str] = []
        faults: list[Fault] = []
        for item in self._running:
            was_armed = item.armed_since_us is not None
            self._arm(item, view.t_us, utc_ns)
            if was_armed and item.armed_since_us is None:
                disarmed.append(item.name)
                item.open_keys.clear()
            item.blind = self._blindness(item, view)
            item.blind_us += passed_us if item.blind or view.gap_us else 0
            if view.is_lost and not item.rule.SPEC.is_on_camera:
                continue
            said, fault = self._ask(item, view)
            self._note_keys(item, said)
            if item.armed_since_us is not None:
                signals += [(item.name, signal) for signal in said]
            faults += [] if fault is None else [fault]
        return Said(tuple(signals), tuple(disarmed), tuple(faults))

    def forget(self) -> None:
        """Begin anew: the stream was interrupted for too long to bridge.

        Rules on the camera itself go on: the interruption is one of the things they tell.
        """
        for item in self._running:
            if not item.rule.SPEC.is_on_camera:
                item.state = item.rule.initial()
                item.open_keys.clear()

    def blindness(self) -> dict[str, Blindness]:
        """Give what each rule can not see, by its name."""
        return {
            item.name: Blindness(item.blind, round(item.blind_us / _US_PER_S, 1))
            for item in self._running
        }

    def costs_ms(self) -> dict[str, float]:
        """Give the mean time of a step of each rule."""
        return {item.name: round(item.cost_ms, 3) for item in self._running}

    def _blindness(self, item: _Running, view: View) -> str:
        """Say why a rule cannot see; those on the camera itself always can."""
        spec = item.rule.SPEC
        if spec.is_on_camera or spec.blinds:
            return ""
        if view.is_lost:
            return SOURCE_LOST
        if TRACKS in spec.needs and not self._has_detector:
            return NO_DETECTOR
        keys = [
            key
            for other in self._running
            for key in sorted(other.open_keys)
            if spec.needs & other.rule.SPEC.blinds.get(key, frozenset())
        ]
        return keys[0] if keys else ""

    def _note_keys(self, item: _Running, said: Sequence[Signal]) -> None:
        if not item.rule.SPEC.blinds:
            return
        for signal in said:
            if signal.phase is Phase.BEGIN:
                item.open_keys.add(signal.key)
            elif signal.phase is Phase.END:
                item.open_keys.discard(signal.key)

    def _arm(self, item: _Running, t_us: int, utc_ns: int) -> None:
        schedule = item.settings.schedule
        if schedule is not None and not is_armed(schedule, utc_ns):
            item.armed_since_us = None
        elif item.armed_since_us is None:
            item.armed_since_us = t_us

    def _ask(self, item: _Running, view: View) -> tuple[Sequence[Signal], Fault | None]:
        item.gap_us = max(item.gap_us, view.gap_us)
        if view.t_us < item.paused_until_us or item.skipped < int(item.cost_ms / BUDGET_MS):
            item.skipped += 1
            return (), None
        view = replace(view, armed_since_us=item.armed_since_us, gap_us=item.gap_us)
        if item.blind:  # what is hidden from it has gone, for all it knows
            item.blind_until_us = view.t_us
            view = replace(view, tracks=(), picture=None)
        elif item.blind_until_us is not None:
            view = replace(view, tracks=_seen_since(view.tracks, item.blind_until_us))
        item.skipped = item.gap_us = 0
        item.views.append(view)
        begun_ns = self._clock.mono_ns()
        try:
            item.state, said = item.rule.step(view, item.state, item.settings, self._places)
        except Exception as error:  # noqa: BLE001 - one rule's fault must not end the others
            return (), self._stopped(item, view.t_us, error)
        took_ms = (self._clock.mono_ns() - begun_ns) / NS_PER_MS
        item.cost_ms += (took_ms - item.cost_ms) / _MEMORY
        return said, None

    def _stopped(self, item: _Running, t_us: int, error: Exception) -> Fault:
        reason = f"{type(error).__name__}: {error}"
        fault = Fault(item.name, item.kind, reason, tuple(item.views), repr(item.state))
        item.paused_until_us = t_us + round(item.pause_s * _US_PER_S)
        item.pause_s = min(LONGEST_PAUSE_S, 2 * item.pause_s)
        item.state = item.rule.initial()
        item.open_keys.clear()
        return fault


def _seen_since(tracks: Sequence[Track], t_us: int) -> tuple[Track, ...]:
    """Leave out of the histories what a rule could not see: it would be told late, or falsely."""
    return tuple(
        replace(track, history=history)
        for track in tracks
        if (history := tuple(point for point in track.history if point.t_us > t_us))
    )
