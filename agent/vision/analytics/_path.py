"""What is new of a track, and whose memory it takes over."""

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from agent.core.model import Track, TrackPoint


class Remembered(Protocol):
    """Anything that a rule remembers of one track."""

    @property
    def track_id(self) -> int:
        """Which one."""
        ...


T = TypeVar("T", bound=Remembered)


def sights_since(track: Track, t_us: int | None) -> list[TrackPoint]:
    """Give the detected points after an instant, oldest first; all of them for None."""
    found = []
    for point in reversed(track.history):
        if t_us is not None and point.t_us <= t_us:
            break
        if point.is_detected:
            found.append(point)
    return found[::-1]


def by_track(memory: Iterable[T], tracks: Iterable[Track]) -> dict[int, T]:
    """Give what is remembered by track id; a track takes over its predecessor's memory.

    What a successor took is found under its new id only; the item itself still names the old one.
    """
    known = {item.track_id: item for item in memory}
    for track in tracks:
        if track.track_id not in known and track.predecessor in known:
            known[track.track_id] = known.pop(track.predecessor)
    return known


def in_order(known: Mapping[int, T]) -> tuple[T, ...]:
    """Give what is remembered, by track id: the order never depends on a dict's."""
    return tuple(known[track_id] for track_id in sorted(known))
