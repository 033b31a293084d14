"""Evidence time of packets: arrival, smoothed, because networks deliver late but never early.

The anchor is the smallest (arrival - pts) of the last minute. It settles at once while a run is
young (cameras send their cached group of pictures in a burst) and is slewed afterwards, so that the
times of a run never jump: by at most 500 ppm to later ones, and by a tenth to earlier ones, because
a picture that came before its time proves that the anchor is late. A wall clock that was set by
less than a second is followed by slewing too.
"""

from collections import deque
from dataclasses import dataclass

from agent.core.clock import NS_PER_S

WINDOW_NS = 60 * NS_PER_S
SETTLE_NS = 5 * NS_PER_S
SLEW_PPM = 500
FALL_PPM = 100_000
JUMP_NS = NS_PER_S
_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """Evidence time of one packet; `is_break` tells that a new run must begin with it."""

    utc_ns: int
    is_break: bool


class Timeline:
    """Stamps the packets of one source in decode order; a new object for each session."""

    def __init__(self) -> None:
        self._delays: deque[tuple[int, int]] = deque()  # arrival, arrival - media; delays rising
        self._anchor_ns = 0
        self._first_ns: int | None = None  # arrival of the run's first packet
        self._wall_ns = 0  # utc - arrival, slewed
        self._last: tuple[int, int, int] | None = None  # media, arrival, utc

    def stamp(
        self, media_ns: int, arrival_mono_ns: int, utc_ns: int, *, is_key: bool = True
    ) -> Stamp:
        """Give the time of a packet.

        Args:
            media_ns: its dts on the source's own time line.
            arrival_mono_ns: when it came, monotonic.
            utc_ns: the wall clock at that instant.
            is_key: whether a run can begin with it. A clock that was set breaks no stream: that
                waits for a key frame, and costs no picture.
        """
        is_break = self._is_jump(media_ns, arrival_mono_ns) or (
            is_key and self._has_wrong_time(arrival_mono_ns, utc_ns)
        )
        if is_break:
            self._delays.clear()
            self._first_ns = None
        if self._first_ns is None:
            self._first_ns = arrival_mono_ns
            self._wall_ns = utc_ns - arrival_mono_ns
            self._anchor_ns = arrival_mono_ns - media_ns
        step_ns = 0 if self._last is None else arrival_mono_ns - self._last[1]
        self._follow(media_ns, arrival_mono_ns, step_ns)
        turned_ns = utc_ns - arrival_mono_ns - self._wall_ns
        if abs(turned_ns) <= JUMP_NS:  # else a new run is due
            self._wall_ns += _slewed(turned_ns, step_ns, SLEW_PPM)
        stamped = media_ns + self._anchor_ns + self._wall_ns
        if self._last is not None and not is_break:
            stamped = max(stamped, self._last[2] + 1)
        self._last = (media_ns, arrival_mono_ns, stamped)
        return Stamp(stamped, is_break)

    def _is_jump(self, media_ns: int, arrival_mono_ns: int) -> bool:
        if self._last is None:
            return False
        media_step = media_ns - self._last[0]
        arrival_step = arrival_mono_ns - self._last[1]
        # A first burst runs ahead of its arrival.
        most_ns = SETTLE_NS if self._is_young(arrival_mono_ns) else JUMP_NS
        return media_step <= 0 or media_step - arrival_step > most_ns

    def _has_wrong_time(self, arrival_mono_ns: int, utc_ns: int) -> bool:
        if self._first_ns is None:
            return False
        if abs(utc_ns - arrival_mono_ns - self._wall_ns) > JUMP_NS:
            return True
        # A minute of packets that all came too late or too early for the anchor: the source
        # paused its clock, or the first packets were held up. Slewing would take hours.
        has_strayed = abs(self._delays[0][1] - self._anchor_ns) > JUMP_NS
        return has_strayed and not self._is_young(arrival_mono_ns)

    def _is_young(self, arrival_mono_ns: int) -> bool:
        return self._first_ns is not None and arrival_mono_ns - self._first_ns < SETTLE_NS

    def _follow(self, media_ns: int, arrival_mono_ns: int, step_ns: int) -> None:
        delay_ns = arrival_mono_ns - media_ns
        while self._delays and self._delays[-1][1] >= delay_ns:
            self._delays.pop()
        self._delays.append((arrival_mono_ns, delay_ns))
        while self._delays[0][0] < arrival_mono_ns - WINDOW_NS:
            self._delays.popleft()
        best_ns = self._delays[0][1]
        if self._is_young(arrival_mono_ns):
            self._anchor_ns = best_ns
            return
        wanted_ns = best_ns - self._anchor_ns
        self._anchor_ns += _slewed(wanted_ns, step_ns, FALL_PPM if wanted_ns < 0 else SLEW_PPM)


def _slewed(wanted_ns: int, step_ns: int, ppm: int) -> int:
    """Give the part of a correction that may be made in a step of time."""
    most_ns = step_ns * ppm // _PPM
    return max(-most_ns, min(most_ns, wanted_ns))
