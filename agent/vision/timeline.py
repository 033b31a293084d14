"""Evidence time of packets: arrival, smoothed, because networks deliver late but never early.

The anchor is the smallest (arrival - pts) of the last minute. It settles at once while a run is
young (cameras send their cached group of pictures in a burst) and is slewed by at most 500 ppm
afterwards, so that the times of a run never jump.
"""

from collections import deque
from dataclasses import dataclass

from agent.core.clock import NS_PER_S

WINDOW_NS = 60 * NS_PER_S
SETTLE_NS = 5 * NS_PER_S
SLEW_PPM = 500
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
        self._first: tuple[int, int] | None = None  # arrival, utc - arrival
        self._last: tuple[int, int, int] | None = None  # media, arrival, utc

    def stamp(self, media_ns: int, arrival_mono_ns: int, utc_ns: int) -> Stamp:
        """Give the time of a packet.

        Args:
            media_ns: its dts on the source's own time line.
            arrival_mono_ns: when it came, monotonic.
            utc_ns: the wall clock at that instant.
        """
        is_break = self._is_break(media_ns, arrival_mono_ns, utc_ns)
        if is_break:
            self._delays.clear()
            self._first = None
        if self._first is None:
            self._first = (arrival_mono_ns, utc_ns - arrival_mono_ns)
            self._anchor_ns = arrival_mono_ns - media_ns
        self._follow(media_ns, arrival_mono_ns)
        stamped = media_ns + self._anchor_ns + self._first[1]
        if self._last is not None and not is_break:
            stamped = max(stamped, self._last[2] + 1)
        self._last = (media_ns, arrival_mono_ns, stamped)
        return Stamp(stamped, is_break)

    def _is_break(self, media_ns: int, arrival_mono_ns: int, utc_ns: int) -> bool:
        if self._last is None or self._first is None:
            return False
        media_step = media_ns - self._last[0]
        arrival_step = arrival_mono_ns - self._last[1]
        is_young = arrival_mono_ns - self._first[0] < SETTLE_NS
        most_ns = SETTLE_NS if is_young else JUMP_NS  # a first burst runs ahead of its arrival
        is_jump = media_step <= 0 or media_step - arrival_step > most_ns
        has_wall_step = abs(utc_ns - arrival_mono_ns - self._first[1]) > JUMP_NS
        # A minute of packets that all came too late or too early for the anchor: the source
        # paused its clock, or the first packets were held up. Slewing would take hours.
        has_strayed = not is_young and abs(self._delays[0][1] - self._anchor_ns) > JUMP_NS
        return is_jump or has_wall_step or has_strayed

    def _follow(self, media_ns: int, arrival_mono_ns: int) -> None:
        delay_ns = arrival_mono_ns - media_ns
        while self._delays and self._delays[-1][1] >= delay_ns:
            self._delays.pop()
        self._delays.append((arrival_mono_ns, delay_ns))
        while self._delays[0][0] < arrival_mono_ns - WINDOW_NS:
            self._delays.popleft()
        best_ns = self._delays[0][1]
        if self._first is not None and arrival_mono_ns - self._first[0] < SETTLE_NS:
            self._anchor_ns = best_ns
            return
        step_ns = 0 if self._last is None else arrival_mono_ns - self._last[1]
        most_ns = step_ns * SLEW_PPM // _PPM
        self._anchor_ns += max(-most_ns, min(most_ns, best_ns - self._anchor_ns))
