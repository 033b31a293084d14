"""Time and ids as parameters: the only module that reads the machine's clocks."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from agent.core import log

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
ID_BYTES = 16
_ID_TIME_BYTES = 6

_log = log.get(__name__)


class Clock(Protocol):
    """Wall time, monotonic time, waiting and ids."""

    def utc_ns(self) -> int:
        """Wall time in nanoseconds since 1970; may jump."""
        ...

    def mono_ns(self) -> int:
        """Monotonic nanoseconds since some start; never jumps."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for `event` at most `timeout_s`; true if it is set."""
        ...

    def new_id(self) -> str:
        """Give 16 fresh bytes as 32 hex digits, sortable by time of making."""
        ...


class RealClock:
    """The machine's clocks."""

    def utc_ns(self) -> int:
        """Wall time in nanoseconds since 1970."""
        return time.time_ns()

    def mono_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait in real time."""
        return event.wait(max(0.0, timeout_s))

    def new_id(self) -> str:
        """Milliseconds since 1970 in 6 bytes, then 10 random bytes (the order of a ULID)."""
        return _id(self.utc_ns(), os.urandom(ID_BYTES - _ID_TIME_BYTES))


class SimClock:
    """A clock that moves only when told: `wait` advances it, so hours take milliseconds."""

    def __init__(self, utc_ns: int = 1_700_000_000 * NS_PER_S, seed: int = 0) -> None:
        self._utc_ns = utc_ns
        self._mono_ns = 0
        self._random = random.Random(seed)  # noqa: S311 - reproducible ids for tests and replay
        self._lock = threading.Lock()

    def utc_ns(self) -> int:
        """Simulated wall time."""
        return self._utc_ns

    def mono_ns(self) -> int:
        """Simulated monotonic time."""
        return self._mono_ns

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        with self._lock:
            step_ns = round(seconds * NS_PER_S)
            self._utc_ns += step_ns
            self._mono_ns += step_ns

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as NTP or a hand would."""
        with self._lock:
            self._utc_ns += round(seconds * NS_PER_S)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Advance by `timeout_s` unless the event is set already."""
        if not event.is_set():
            self.advance(max(0.0, timeout_s))
        return event.is_set()

    def new_id(self) -> str:
        """Seeded ids in the real layout."""
        with self._lock:
            return _id(self._utc_ns, self._random.randbytes(ID_BYTES - _ID_TIME_BYTES))


@contextmanager
def watch(clock: Clock, step: str, limit_s: float) -> Iterator[None]:
    """Warn when the guarded step takes longer than `limit_s`."""
    begun_ns = clock.mono_ns()
    try:
        yield
    finally:
        took_s = (clock.mono_ns() - begun_ns) / NS_PER_S
        if took_s > limit_s:
            _log.warning("slow step", step=step, took_s=round(took_s, 3), limit_s=limit_s)


def _id(utc_ns: int, tail: bytes) -> str:
    utc_ms = max(0, utc_ns // NS_PER_MS) & ((1 << (8 * _ID_TIME_BYTES)) - 1)
    return utc_ms.to_bytes(_ID_TIME_BYTES, "big").hex() + tail.hex()
