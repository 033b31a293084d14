"""A centre without room: how long to keep files from it, and which. Pure but for the dice.

What it refused for want of room waits, and all that is as large; smaller files may still fit. Waits
are what it asks for, at least twice the last one, at most an hour, and jittered: many devices wait
for the same room.
"""

import random

from agent.core.clock import NS_PER_S
from agent.delivery.ledger import ANY_SIZE

MOST_WAIT_S = 3600.0
JITTER_FRAC = 0.25


class Fullness:
    """What one centre has said; used by the thread of the worker."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._least_bytes = ANY_SIZE  # the smallest file it had no room for
        self._until_ns = 0
        self._wait_s = 0.0

    @property
    def is_full(self) -> bool:
        """Whether it has had no room and has taken nothing as large since."""
        return self._least_bytes < ANY_SIZE

    def refused(self, size_bytes: int, retry_after_s: float, now_ns: int) -> int:
        """Note that a file found no room; gives until when to wait.

        What comes during a wait does not make it longer.
        """
        self._least_bytes = min(self._least_bytes, size_bytes)
        if now_ns >= self._until_ns:
            self._wait_s = min(max(retry_after_s, 2 * self._wait_s), MOST_WAIT_S)
            jitter = 1 + JITTER_FRAC * self._dice.random()
            self._until_ns = now_ns + int(self._wait_s * jitter * NS_PER_S)
        return self._until_ns

    def taken(self, size_bytes: int) -> bool:
        """Note that the centre has room for a file; true if it was full until now."""
        if size_bytes < self._least_bytes or not self.is_full:
            return False
        self._least_bytes, self._until_ns, self._wait_s = ANY_SIZE, 0, 0.0
        return True

    def below_bytes(self, now_ns: int) -> int:
        """Give the size from which files are not to be offered now."""
        return self._least_bytes if now_ns < self._until_ns else ANY_SIZE
