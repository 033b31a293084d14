"""A track log through a camera's rules: the events that live made of it, or would have made.

Rules see what they saw then, so the same rules say the same, to the nanosecond; only the ids of
events are new, and pictures there are none.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent.core.clock import NS_PER_MS, Clock
from agent.core.model import Box, Detection, Event, EventState
from agent.vision import lines
from agent.vision.analytics import Ground
from agent.vision.config import CameraConfig
from agent.vision.decode import Frame
from agent.vision.pipeline import Pipeline
from agent.vision.tracklog import Break, Damage, Item, Seen, Session

RESUMED: Final = "agent restarted"
END_OF_LOG: Final = "end of log"
SAME_WITHIN_NS: Final = 60_000 * NS_PER_MS  # two configurations' events about one object

_LONGEST_US: Final = 10_000_000  # between two views: more is time in which nobody looked
_US_PER_S: Final = 1_000_000


@dataclass(slots=True)
class Extent:
    """What a log covers."""

    views: int = 0
    seen_us: int = 0  # stream time that was looked at
    first_utc_ns: int | None = None
    last_utc_ns: int = 0
    damaged: list[Damage] = field(default_factory=list)
    _last_us: int | None = None

    @property
    def hours(self) -> float:
        """How long was looked."""
        return self.seen_us / _US_PER_S / 3600

    def take(self, item: Item) -> None:
        """Count an item."""
        if isinstance(item, Damage):
            self.damaged.append(item)
        if isinstance(item, Session) and item.goes_on:
            return
        if not isinstance(item, Seen):
            self._last_us = None
            return
        view = item.view
        self.views += 1
        if self._last_us is not None and 0 < view.t_us - self._last_us <= _LONGEST_US:
            self.seen_us += view.t_us - self._last_us
        self._last_us = view.t_us
        self.first_utc_ns = item.utc_ns if self.first_utc_ns is None else self.first_utc_ns
        self.last_utc_ns = item.utc_ns


class Replay:
    """A camera's rules over a log.

    Args:
        camera: whose rules.
        ground: its calibration, if it has one.
        clock: ids of events.
    """

    def __init__(self, camera: CameraConfig, ground: Ground | None, clock: Clock) -> None:
        self._camera = camera
        self._ground = ground
        self._clock = _Timeless(clock)
        self._pipeline = self._begin("")
        self.extent = Extent()

    def events(self, items: Iterable[Item]) -> Iterator[Event]:
        """Give the events, opened and closed, as they come about."""
        for item in items:
            self.extent.take(item)
            if isinstance(item, Seen):
                yield from self._pipeline.apply(item.view, item.utc_ns).events
            elif isinstance(item, Break):
                yield from self._pipeline.break_off(item.reason)
            elif isinstance(item, Session) and not (item.goes_on and self.extent.views):
                yield from self._pipeline.break_off(RESUMED)
                self._pipeline = self._begin(item.model)
        yield from self._pipeline.break_off(END_OF_LOG)

    def _begin(self, model: str) -> Pipeline:
        eye = _Past(model) if model else None
        return Pipeline(self._camera, eye, 0.0, self._clock, self._ground)


@dataclass(frozen=True, slots=True)
class Difference:
    """What another configuration makes of the same log."""

    both: int
    changed: Sequence[tuple[Event, Event]]  # same rule and object, other times
    only_first: Sequence[Event]
    only_second: Sequence[Event]


def compare(first: Iterable[Event], second: Iterable[Event]) -> Difference:
    """Compare the events of two configurations by rule, object and time; each is told once."""
    both, changed, only_first = 0, [], []
    others: dict[tuple[str, str], list[Event]] = {}
    for event in _closed(second):
        others.setdefault((event.kind, event.rule), []).append(event)
    for one in _closed(first):
        rest = others.get((one.kind, one.rule), [])
        other = min(
            (other for other in rest if _is_about_the_same(one, other)),
            key=_away(one),
            default=None,
        )
        if other is None:
            only_first.append(one)
            continue
        rest.remove(other)
        if _span(one) == _span(other):
            both += 1
        else:
            changed.append((one, other))
    only_second = [event for rest in others.values() for event in rest]
    return Difference(both, changed, only_first, sorted(only_second, key=_span))


def event_line(event: Event) -> dict[str, Any]:
    """Give an event as `outpost analyse` prints it; its times are those of the log."""
    return {"event": lines.event_body(event), "path": event.path}


class _Timeless:
    """A clock whose monotonic time stands: a rule that is slow here is asked all the same."""

    def __init__(self, clock: Clock) -> None:
        self.utc_ns = clock.utc_ns
        self.wait = clock.wait
        self.new_id = clock.new_id

    def mono_ns(self) -> int:
        """Give always the same."""
        return 0


class _Past:
    """The detector that was there when the log was written; it looks no more."""

    def __init__(self, model: str) -> None:
        self.model_id = model
        self.is_cropping = False

    def detect(self, frame: Frame, areas: Sequence[Box] = ()) -> tuple[Detection, ...]:
        """See nothing."""
        del frame, areas
        return ()


def _closed(events: Iterable[Event]) -> list[Event]:
    """Give each event once, as it was closed."""
    return [event for event in events if event.state is EventState.CLOSED]


def _span(event: Event) -> tuple[int, int]:
    return event.start_utc_ns, event.end_utc_ns or event.start_utc_ns


def _away(one: Event) -> Callable[[Event], int]:
    return lambda other: abs(other.start_utc_ns - one.start_utc_ns)


def _is_about_the_same(one: Event, other: Event) -> bool:
    is_shared = set(one.track_ids) & set(other.track_ids) or one.track_ids == other.track_ids
    return bool(is_shared) and _away(one)(other) <= SAME_WITHIN_NS
