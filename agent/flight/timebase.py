"""The vehicle's own UTC for what is heard of it, from its SYSTEM_TIME.

Each SYSTEM_TIME pairs UTC, as its satellites give it, with the time since its start. What carries
the time since start gets its UTC by that, free of the link's delay; anything else by how far the
vehicle's clock is from the logger's. A boot clock that falls is a restart: another time base.
"""

from collections import deque
from dataclasses import replace
from statistics import median

from agent.core.clock import NS_PER_MS, NS_PER_S
from agent.core.vehicle import Heard
from agent.flight.model import TimeQuality

NS_PER_US = 1_000
EARLIEST_UTC_NS = 1_262_304_000 * NS_PER_S  # 2010: what is earlier is no satellite's time
LATEST_UTC_NS = 4_102_444_800 * NS_PER_S  # 2100
REBOOT_NS = 2 * NS_PER_S
PAIRS = 31  # of which the median counts: one wrong time changes nothing
BOOT_TIMED = frozenset(
    {
        "ATTITUDE",
        "ATTITUDE_QUATERNION",
        "GLOBAL_POSITION_INT",
        "LOCAL_POSITION_NED",
        "GIMBAL_DEVICE_ATTITUDE_STATUS",
        "CAMERA_IMAGE_CAPTURED",
    }
)


class TimeBase:
    """The clock of one vehicle."""

    def __init__(self) -> None:
        self._starts: deque[int] = deque(maxlen=PAIRS)  # UTC at which it started, by each pair
        self._ahead: deque[int] = deque(maxlen=PAIRS)  # vehicle's UTC minus the logger's
        self._start_ns: int | None = None
        self._ahead_ns: int | None = None
        self._boot_ns = 0
        self._every: list[int] = []

    def take(self, heard: Heard) -> None:
        """Learn from a SYSTEM_TIME."""
        boot_ns = heard.said.time_boot_ms * NS_PER_MS
        if boot_ns < self._boot_ns - REBOOT_NS:
            self._starts.clear()
            self._start_ns = None
        self._boot_ns = boot_ns
        utc_ns = heard.said.time_unix_usec * NS_PER_US
        if not EARLIEST_UTC_NS < utc_ns < LATEST_UTC_NS:
            return
        self._starts.append(utc_ns - boot_ns)
        self._ahead.append(utc_ns - heard.utc_ns)
        self._every.append(utc_ns - heard.utc_ns)
        self._start_ns = round(median(self._starts))
        self._ahead_ns = round(median(self._ahead))

    def utc_ns(self, heard: Heard) -> int:
        """Give the vehicle's UTC of a message; the logger's while nothing better is known."""
        if self._start_ns is not None and heard.name in BOOT_TIMED:
            boot_ns = int(heard.said.time_boot_ms) * NS_PER_MS
            if boot_ns >= self._boot_ns - REBOOT_NS:
                return self._start_ns + boot_ns
        return heard.utc_ns if self._ahead_ns is None else heard.utc_ns + self._ahead_ns

    def timed(self, heard: Heard) -> Heard:
        """Give a message with the vehicle's UTC."""
        return replace(heard, utc_ns=self.utc_ns(heard))

    def quality(self) -> TimeQuality:
        """Say where the times come from."""
        if not self._every:
            return TimeQuality("logger", 0.0, 0.0, 0)
        every = self._every
        spread_s = (max(every) - min(every)) / NS_PER_S
        return TimeQuality("gps", median(every) / NS_PER_S, spread_s, len(every))
