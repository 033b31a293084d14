"""The flights of a recording of messages, each with its track."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.core.clock import NS_PER_S
from agent.core.vehicle import Heard
from agent.flight.fleet import Fleet, Vehicle
from agent.flight.model import Flight, Phase, Track
from agent.flight.session import ARMED, Change
from agent.flight.track import TrackMaker

AFTER_NS = 5 * NS_PER_S  # what a track has besides


@dataclass(slots=True)
class _Open:
    maker: TrackMaker
    flight: Flight
    until_ns: int | None = None  # mono; None: it is going on


def flights(messages: Iterable[Heard]) -> Sequence[Flight]:
    """Give every arm cycle of every vehicle, by its start."""
    return [flight for flight, _ in tracks(messages, lambda _: False)]


def tracks(
    messages: Iterable[Heard], is_wanted: Callable[[Flight], bool] = lambda _: True
) -> Sequence[tuple[Flight, Track]]:
    """Give every arm cycle with its track, by its start; one pass over the messages.

    Args:
        messages: of one link or file, oldest first.
        is_wanted: whether a track is needed; asked with what is known so far.
    """
    pass_ = _Pass(is_wanted)
    for heard in messages:
        pass_.take(heard)
    return sorted(pass_.finish(), key=lambda item: item[0].start_utc_ns)


class _Pass:
    """One pass over the messages of a recording."""

    def __init__(self, is_wanted: Callable[[Flight], bool]) -> None:
        self._is_wanted = is_wanted
        self._fleet = Fleet()
        self._opened: dict[str, _Open] = {}
        self._found: list[tuple[Flight, Track]] = []

    def take(self, heard: Heard) -> None:
        vehicle, timed, changes = self._fleet.take(heard)
        if vehicle is None:
            return
        self._follow(vehicle, changes, heard.mono_ns)
        current = self._opened.get(vehicle.name)
        if current is None:
            return
        if current.until_ns is not None and heard.mono_ns > current.until_ns:
            self._close(vehicle)
        elif self._is_wanted(current.flight):
            current.maker.take(timed)

    def finish(self) -> Sequence[tuple[Flight, Track]]:
        for vehicle in self._fleet.vehicles:
            self._follow(vehicle, vehicle.sessions.finish(), 0)
            self._close(vehicle)
        return self._found

    def _follow(self, vehicle: Vehicle, changes: Sequence[Change], mono_ns: int) -> None:
        for change in changes:
            if change.what == ARMED:
                self._close(vehicle)
                self._opened[vehicle.name] = _Open(TrackMaker(), change.flight)
            current = self._opened.get(vehicle.name)
            if current is None:
                continue
            current.flight = change.flight
            if change.phase == Phase.DISARMED:
                current.until_ns = mono_ns + AFTER_NS

    def _close(self, vehicle: Vehicle) -> None:
        if done := self._opened.pop(vehicle.name, None):
            self._found.append((done.flight, done.maker.track(vehicle.times.quality())))
