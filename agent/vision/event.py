"""Signals of rules become events: one open event a rule and key, its id given once.

The host owns what the rules must not: ids, wall time, merging, cool-down and the longest duration.
Pure but for the ids, which come from the clock.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from agent.core.clock import NS_PER_MS, Clock
from agent.core.model import Event, EventState, Phase, Point, Signal, Track, View
from agent.vision.analytics import RuleConfig
from agent.vision.analytics._path import sights_since
from agent.vision.config import EventConfig
from agent.vision.lines import MAX_PATH_POINTS

LOST: Final = "lost"
MAX_DURATION: Final = "max duration"

MAX_IDS: Final = 64  # of tracks that one event went through

_MERGE_FRAC: Final = 0.1  # of the frame: a lost object comes back no further away
_US_PER_S: Final = 1_000_000
_DIGITS: Final = 4
_BETTER: Final = 0.02  # of score: less is not worth another snapshot
_MAX_COOLING: Final = 1000

UtcOf = Callable[[int], int]
"""Stream time in microseconds to wall time in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A configured rule as the host sees it."""

    kind: str
    rule: RuleConfig
    is_lasting: bool = False  # never split; the clip shows its beginning
    is_on_camera: bool = False  # goes on while the source is lost


@dataclass(frozen=True, slots=True)
class Transitions:
    """What one step opened and closed; `best_now` are events best seen in this very frame."""

    events: tuple[Event, ...] = ()
    best_now: tuple[str, ...] = ()


@dataclass(slots=True)
class _Open:
    event_id: str
    rule: str
    start_us: int
    start_utc_ns: int
    label: str
    track_ids: list[int]
    score: float = 0.0
    keys: set[str] = field(default_factory=set)
    measured: dict[str, float] = field(default_factory=dict)
    path: list[tuple[int, float, float]] = field(default_factory=list)
    seen_us: int = 0  # last point of the path
    foot: Point | None = None
    lost_us: int | None = None  # every key has ended as lost, then
    best_score: float = -1.0  # of the frames offered for the snapshot
    has_had_clip: bool = False  # of a lasting event, before its end


class EventHost:
    """Keeps the open events of one camera."""

    def __init__(
        self,
        camera: str,
        bindings: Mapping[str, Binding],
        config: EventConfig,
        model: str,
        clock: Clock,
    ) -> None:
        self._camera = camera
        self._bindings = bindings
        self._config = config
        self._model = model
        self._clock = clock
        self._open: list[_Open] = []
        self._best_score: dict[int, float] = {}  # of the tracks that are there, over their life
        self._closed_us: dict[tuple[str, str], int] = {}
        self._utc_of: UtcOf = lambda _t_us: 0
        self._last_us = 0

    @property
    def open_count(self) -> int:
        """How many events are open."""
        return len(self._open)

    def step(self, view: View, signals: Iterable[tuple[str, Signal]], utc_of: UtcOf) -> Transitions:
        """Take what the rules said of one instant, as (name of the rule, signal)."""
        self._utc_of, self._last_us = utc_of, view.t_us
        tracks = {track.track_id: track for track in view.tracks}
        self._best_score = {
            track_id: max(track.score, self._best_score.get(track_id, 0.0))
            for track_id, track in tracks.items()
        }
        for event in self._open:
            self._extend(event, tracks)
        said: list[Event] = []
        best: list[str] = []
        for rule, signal in signals:
            if signal.phase is Phase.BEGIN:
                said += self._begin(rule, signal, tracks)
                best += self._best_now(tracks)
            elif signal.phase is Phase.MEASURE:
                said.append(self._report(rule, signal))
            else:
                said += self._carry_on(rule, signal)
        best += self._best_now(tracks)
        for event in tuple(self._open):
            said += self._over(event, view.t_us, tracks)
        return Transitions(tuple(said), tuple(dict.fromkeys(best)))

    def close_all(self, reason: str, *, also_on_camera: bool = True) -> tuple[Event, ...]:
        """End every open event at the last instant that was judged."""
        return self._close_those(
            lambda event: also_on_camera or not self._bindings[event.rule].is_on_camera, reason
        )

    def close_rule(self, rule: str, reason: str) -> tuple[Event, ...]:
        """End the open events of one rule at the last instant that was judged."""
        return self._close_those(lambda event: event.rule == rule, reason)

    def _close_those(self, is_meant: Callable[[_Open], bool], reason: str) -> tuple[Event, ...]:
        meant = [event for event in self._open if is_meant(event)]
        self._open = [event for event in self._open if event not in meant]
        return tuple(self._close(event, self._last_us, reason) for event in meant)

    def _report(self, rule: str, signal: Signal) -> Event:
        """Give an event without length and without a clip."""
        event = self._new(rule, signal)
        closed = self._close(event, signal.t_us, "report")
        return replace(closed, has_clip=False)

    def _begin(self, rule: str, signal: Signal, tracks: Mapping[int, Track]) -> list[Event]:
        closed_us = self._closed_us.get((rule, signal.key))
        cooldown_us = self._bindings[rule].rule.cooldown_s * _US_PER_S
        is_cooling = cooldown_us > 0 and closed_us is not None
        if is_cooling and signal.t_us - (closed_us or 0) < cooldown_us:
            return []
        heir = self._predecessor(rule, signal, tracks)
        if heir is not None:
            heir.keys.add(signal.key)
            heir.lost_us = None
            heir.track_ids = [*dict.fromkeys([*heir.track_ids, *signal.track_ids])][-MAX_IDS:]
            self._extend(heir, tracks)
            return []
        event = self._new(rule, signal)
        self._open.append(event)
        self._extend(event, tracks)
        return [self._record(event, EventState.OPEN)]

    def _new(self, rule: str, signal: Signal) -> _Open:
        event = _Open(
            event_id=self._clock.new_id(),
            rule=rule,
            start_us=signal.t_us,
            start_utc_ns=self._utc_of(signal.t_us),
            label=signal.label,
            track_ids=list(signal.track_ids),
            score=signal.score,
            keys={signal.key},
            measured=dict(signal.measured),
        )
        pre_us = round(self._bindings[rule].rule.pre_s * _US_PER_S)
        event.seen_us = signal.t_us - pre_us - 1
        return event

    def _predecessor(self, rule: str, signal: Signal, tracks: Mapping[int, Track]) -> _Open | None:
        """Find the open event whose object was lost where this one appears.

        One that was there already while the event's object was still seen is another one.
        """
        found = next((tracks[item] for item in signal.track_ids if item in tracks), None)
        if found is None:
            return None
        begun_us = self._last_us - round(found.age_s * _US_PER_S)
        for event in self._open:
            is_same = event.rule == rule and event.label == signal.label
            is_recent = self._last_us - event.seen_us <= self._config.merge_s * _US_PER_S
            is_free = is_same and is_recent and not _is_seen(event, tracks)
            is_after = begun_us >= event.seen_us
            if is_free and is_after and event.foot and _is_near(event.foot, found.box.foot):
                return event
        return None

    def _carry_on(self, rule: str, signal: Signal) -> list[Event]:
        for event in self._open:
            if event.rule == rule and signal.key in event.keys:
                dwell_s = event.measured.get("dwell_s", 0.0) + signal.measured.get("dwell_s", 0.0)
                event.measured.update(signal.measured)
                event.track_ids = [*dict.fromkeys([*event.track_ids, *signal.track_ids])][-MAX_IDS:]
                if "dwell_s" in signal.measured:
                    event.measured["dwell_s"] = round(dwell_s, 6)
                return self._end(event, signal) if signal.phase is Phase.END else []
        return []

    def _end(self, event: _Open, signal: Signal) -> list[Event]:
        event.keys.discard(signal.key)
        self._closed_us[event.rule, signal.key] = signal.t_us
        while len(self._closed_us) > _MAX_COOLING:
            self._closed_us.pop(next(iter(self._closed_us)))
        if event.keys:
            return []
        if signal.reason == LOST:
            event.lost_us = signal.t_us
            return []
        self._open.remove(event)
        return [self._close(event, signal.t_us, signal.reason)]

    def _over(self, event: _Open, t_us: int, tracks: Mapping[int, Track]) -> list[Event]:
        """End what stayed lost, split what goes on for too long."""
        if event.lost_us is not None:
            if t_us - event.lost_us <= self._config.merge_s * _US_PER_S:
                return []
            self._open.remove(event)
            return [self._close(event, event.lost_us, LOST)]
        if t_us - event.start_us < self._config.max_s * _US_PER_S or event.has_had_clip:
            return []
        if self._bindings[event.rule].is_lasting:
            event.has_had_clip = True
            said = self._record(event, EventState.OPEN)
            return [replace(said, clip_until_utc_ns=self._utc_of(t_us))]
        self._open.remove(event)
        following = _Open(
            event_id=self._clock.new_id(),
            rule=event.rule,
            start_us=t_us,
            start_utc_ns=self._utc_of(t_us),
            label=event.label,
            track_ids=[item for item in event.track_ids if item in tracks] or event.track_ids,
            score=event.score,
            keys=event.keys,
            seen_us=t_us,
            foot=event.foot,
        )
        self._open.append(following)
        closed = self._close(event, t_us, MAX_DURATION)
        return [closed, self._record(following, EventState.OPEN)]

    def _extend(self, event: _Open, tracks: Mapping[int, Track]) -> None:
        """Add what was newly observed of the event's tracks to its path."""
        points = sorted(
            (point.t_us, point.box.foot)
            for track_id in event.track_ids
            if track_id in tracks
            for point in sights_since(tracks[track_id], event.seen_us)
        )
        for t_us, foot in points:
            utc_ms = self._utc_of(t_us) // NS_PER_MS
            event.path.append((utc_ms, round(foot.x, _DIGITS), round(foot.y, _DIGITS)))
            event.seen_us, event.foot = t_us, foot
        while len(event.path) > MAX_PATH_POINTS:
            event.path = [*event.path[:-1:2], event.path[-1]]
        for track_id in event.track_ids:
            event.score = max(event.score, self._best_score.get(track_id, 0.0))

    def _best_now(self, tracks: Mapping[int, Track]) -> list[str]:
        best = []
        for event in self._open:
            seen = [tracks[item] for item in event.track_ids if item in tracks]
            score = max((track.score for track in seen if track.missing_s == 0), default=0.0)
            if score > event.best_score + _BETTER or event.best_score < 0:
                event.best_score = score
                best.append(event.event_id)
        return best

    def _close(self, event: _Open, t_us: int, reason: str) -> Event:
        end_utc_ns = max(event.start_utc_ns, self._utc_of(t_us))
        closed = self._record(event, EventState.CLOSED, end_utc_ns, reason)
        return replace(closed, has_clip=not event.has_had_clip)

    def _record(
        self, event: _Open, state: EventState, end_utc_ns: int | None = None, reason: str = ""
    ) -> Event:
        binding = self._bindings[event.rule]
        return Event(
            event_id=event.event_id,
            camera=self._camera,
            kind=binding.kind,
            rule=event.rule,
            state=state,
            start_utc_ns=event.start_utc_ns,
            end_utc_ns=end_utc_ns,
            label=event.label,
            score=event.score,
            track_ids=tuple(event.track_ids),
            measured=dict(event.measured),
            model=self._model,
            reason=reason,
            pre_s=binding.rule.pre_s,
            post_s=binding.rule.post_s,
            path=tuple(event.path),
            severity=binding.rule.severity,
        )


def _is_near(one: Point, other: Point) -> bool:
    return math.dist(one, other) <= _MERGE_FRAC


def _is_seen(event: _Open, tracks: Mapping[int, Track]) -> bool:
    return any(
        track_id in tracks and tracks[track_id].missing_s == 0 for track_id in event.track_ids
    )
