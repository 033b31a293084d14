"""When a camera deserves a detection, and whether the box can afford it now.

A gate a camera says how much a picture needs one; the budget over all cameras is milliseconds of
inference a second, a token bucket that may go into debt by one detection, shared out by stride
scheduling (Waldspurger and Weihl, "Stride Scheduling", 1995): whoever had least for his weight is
next, so that moving cameras get more than quiet ones and nobody starves. What the next in turn
will cost is set aside for him, so that a camera whose pictures are rare finds it when he comes.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from agent.vision.config import MotionConfig

RESTING_RATE_PER_S: Final = 1.0  # of detections where tracks are alive and nothing moves
BURST_RATE_PER_S: Final = 5.0  # while something new is in view and credit lasts
MAX_CREDIT: Final = 5.0  # detections that quiet times save up for that

_US_PER_S: Final = 1_000_000
_ASKED_US: Final = 5_000_000  # who has not asked for so long gives up his turn
_SAVED_S: Final = 1.0  # of budget that quiet times save up


class Need(IntEnum):
    """How much a picture deserves a detection."""

    NONE = 0
    HEARTBEAT = 1
    RESTING = 2  # tracks are alive, nothing moves
    MOVING = 3
    NEW = 4  # something moves that is not tracked yet


WEIGHTS: Final = {Need.HEARTBEAT: 1.0, Need.RESTING: 2.0, Need.MOVING: 4.0, Need.NEW: 4.0}


class Pace:
    """Lets instants of stream time through at a rate, on average and without bursts."""

    def __init__(self, rate_per_s: float) -> None:
        self._interval_us = round(_US_PER_S / rate_per_s)
        self._due_us: int | None = None

    def is_due(self, t_us: int) -> bool:
        """Whether the next one may be now."""
        return self._due_us is None or t_us >= self._due_us

    def took(self, t_us: int) -> None:
        """Say that this instant was let through."""
        due_us = t_us if self._due_us is None else self._due_us
        self._due_us = max(due_us, t_us - self._interval_us // 2) + self._interval_us


class Gate:
    """Decides on a detection by what the picture shows; may only skip work, never end a track.

    Every `heartbeat_s` when nothing moves, at `RESTING_RATE_PER_S` while tracks are alive, at the
    camera's full rate while something moves, always so on a moving camera, and above it while
    something new is in view, as long as what was saved in quiet times lasts. Never more often than
    `max_rate_per_s` on average.
    """

    def __init__(self, config: MotionConfig, max_rate_per_s: float) -> None:
        self._is_moving_camera = config.is_moving_camera
        self._heartbeat_us = round(config.heartbeat_s * _US_PER_S)
        self._resting_us = round(_US_PER_S / RESTING_RATE_PER_S)
        self._burst_us = round(_US_PER_S / BURST_RATE_PER_S)
        self._rate_per_s = max_rate_per_s
        self._pace = Pace(max_rate_per_s)
        self._last_us: int | None = None
        self._regular_us: int | None = None  # of the last one that needed no credit
        self._credit = 0.0

    def need(self, t_us: int, *, is_moving: bool, has_tracks: bool, has_new: bool = False) -> Need:
        """Say how much this instant of stream time deserves a detection.

        Args:
            t_us: the instant.
            is_moving: something moves.
            has_tracks: something is tracked, be it hidden at the moment.
            has_new: something moves that is not tracked, or was seen only once.
        """
        if self._last_us is None:
            return Need.NEW
        since_us = t_us - self._last_us
        if has_new and self._credit >= 1.0 and since_us >= self._burst_us:
            return Need.NEW
        if not self._pace.is_due(t_us):
            return Need.NONE
        if is_moving or has_new or self._is_moving_camera:
            return Need.NEW if has_new else Need.MOVING
        if has_tracks and since_us >= self._resting_us:
            return Need.RESTING
        return Need.HEARTBEAT if since_us >= self._heartbeat_us else Need.NONE

    def took(self, t_us: int) -> None:
        """Say that a detection was made at this instant."""
        self._last_us = t_us
        if not self._pace.is_due(t_us):
            self._credit -= 1.0
            return
        if self._regular_us is not None:
            saved = (t_us - self._regular_us) / _US_PER_S * self._rate_per_s - 1.0
            self._credit = min(max(0.0, self._credit + saved), MAX_CREDIT)
        self._regular_us = t_us
        self._pace.took(t_us)


@dataclass(slots=True)
class _Account:
    spent_ms: float = 0.0  # by its weight
    asked_us: int = 0


class Budget:
    """Milliseconds of inference a second over all cameras; for one thread, in monotonic time."""

    def __init__(self, ms_per_s: float) -> None:
        self._ms_per_s = ms_per_s
        self._level_ms = 0.0
        self._level_us: int | None = None
        self._reserve_ms = 0.0  # what one detection costs
        self._accounts: dict[str, _Account] = {}

    def grants(self, camera: str, now_us: int) -> bool:
        """Say whether a camera that asks may have its detection now."""
        self._fill(now_us)
        account = self._join(camera, now_us)
        least = min(other.spent_ms for other in self._waiting(now_us))
        reserve_ms = 0.0 if account.spent_ms <= least else self._reserve_ms
        return self._level_ms >= reserve_ms

    def spent(self, camera: str, need: Need, cost_ms: float) -> None:
        """Say what the detection that was granted cost."""
        self._level_ms -= cost_ms
        self._reserve_ms = cost_ms
        self._accounts[camera].spent_ms += cost_ms / WEIGHTS[need]

    def _fill(self, now_us: int) -> None:
        passed_us = 0 if self._level_us is None else now_us - self._level_us
        self._level_us = now_us
        filled_ms = self._level_ms + passed_us / _US_PER_S * self._ms_per_s
        self._level_ms = min(filled_ms, max(self._ms_per_s * _SAVED_S, 2 * self._reserve_ms))

    def _join(self, camera: str, now_us: int) -> _Account:
        """Note who asks; one who was away for long saved nothing up."""
        account = self._accounts.get(camera)
        if account is None or now_us - account.asked_us > _ASKED_US:
            others = [other.spent_ms for other in self._waiting(now_us)]
            known_ms = 0.0 if account is None else account.spent_ms
            account = _Account(max(known_ms, min(others, default=0.0)))
            self._accounts[camera] = account
        account.asked_us = now_us
        return account

    def _waiting(self, now_us: int) -> list[_Account]:
        return [item for item in self._accounts.values() if now_us - item.asked_us <= _ASKED_US]
