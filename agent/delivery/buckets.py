"""Who goes next and how fast: shares of the lanes, and a bucket that holds a byte rate.

The urgent goes first, always, with one exception: what an urgent lane sends while another waits
pays a little into the other's bucket, and a bucket that can pay for its next message goes before
the urgent. So an alarm that comes alone waits for nobody, and a storm of alarms starves nobody.
The bucket is the surplus of deficit round robin (Shreedhar and Varghese, "Efficient fair queuing
using deficit round robin", 1996), counted in bytes, so that long messages take no more than short
ones. Pure: instants are parameters, in monotonic nanoseconds.
"""

from collections.abc import Mapping
from typing import Final

from agent.core.clock import NS_PER_S
from agent.core.model import Lane

SHARES: Final[Mapping[Lane, float]] = {
    # Urgent first. Alarms keep the greater part of a storm of theirs; a fifth is far more than
    # states ever need and brings `state/…` within seconds; live telemetry is a few rows a second;
    # backfill has waited for an hour already: a twentieth only shows that it moves.
    Lane.ALARM: 0.60,
    Lane.STATE: 0.20,
    Lane.TELEMETRY: 0.15,
    Lane.BACKFILL: 0.05,
}
PATIENCE_NS: Final = 60 * NS_PER_S  # a lane that got nothing for so long goes before all others
DEPTH_S: Final = 0.25  # of a rate: the longest burst
LEAST_DEPTH_BYTES: Final = 1024
MOST_DEBT_S: Final = 10.0  # of a rate: what alarms may take in advance


class Shares:
    """Chooses between lanes that wait; every share is a lower bound while all of them wait."""

    def __init__(self, shares: Mapping[Lane, float] = SHARES) -> None:
        self._earned: dict[Lane, float] = {}  # by a lane for each byte sent before it
        urgent = 0.0
        for lane, share in shares.items():
            self._earned[lane] = share / urgent if urgent else 0.0
            urgent += share
        self._purses = dict.fromkeys(shares, 0.0)
        self._since_ns: dict[Lane, int] = {}  # waits, and got nothing since

    def choose(self, waiting: Mapping[Lane, int], now_ns: int) -> Lane:
        """Choose, and note it as sent.

        Args:
            waiting: size of the first message of each lane that waits; at least one.
            now_ns: now.
        """
        if len(waiting) == 1 and waiting.keys() == self._since_ns.keys():  # a backlog, mostly
            (chosen,) = waiting
            self._since_ns[chosen] = now_ns
            return chosen
        urgent = next(lane for lane in self._purses if lane in waiting)
        is_alone = urgent not in self._since_ns  # it did not wait before: it stands for no storm
        for lane in self._purses:
            if lane not in waiting:
                self._purses[lane] = 0.0
                self._since_ns.pop(lane, None)
            else:
                self._since_ns.setdefault(lane, now_ns)
        chosen = urgent if is_alone else self._next(urgent, waiting, now_ns)
        self._pay(chosen, waiting)
        self._since_ns[chosen] = now_ns
        return chosen

    def _next(self, urgent: Lane, waiting: Mapping[Lane, int], now_ns: int) -> Lane:
        longest = min(waiting, key=self._since_ns.__getitem__)
        if now_ns - self._since_ns[longest] >= PATIENCE_NS:
            return longest
        for lane, size_bytes in waiting.items():
            if self._purses[lane] >= size_bytes:
                return lane
        return urgent

    def _pay(self, chosen: Lane, waiting: Mapping[Lane, int]) -> None:
        size_bytes = waiting[chosen]
        self._purses[chosen] = max(0.0, self._purses[chosen] - size_bytes)
        is_behind = False
        for lane, purse in self._purses.items():
            if is_behind and lane in waiting:
                self._purses[lane] = purse + size_bytes * self._earned[lane]
            is_behind = is_behind or lane is chosen


class ByteBucket:
    """Holds a rate: over any span no more than rate times span and one burst, or one message."""

    def __init__(self) -> None:
        self._rate_bytes_per_s = 0.0
        self._level_bytes = 0.0
        self._at_ns = 0

    @property
    def depth_bytes(self) -> float:
        """The longest burst."""
        return max(DEPTH_S * self._rate_bytes_per_s, LEAST_DEPTH_BYTES)

    def set_rate(self, rate_bytes_per_s: float, now_ns: int) -> None:
        """Change the rate; 0: none, everything goes."""
        if rate_bytes_per_s != self._rate_bytes_per_s:
            self._fill(now_ns)
            self._rate_bytes_per_s = rate_bytes_per_s
            self._level_bytes = min(self._level_bytes, self.depth_bytes)

    def may(self, size_bytes: int, now_ns: int) -> bool:
        """Say whether so much may go now; more than a burst needs a full bucket."""
        if not self._rate_bytes_per_s:
            return True
        self._fill(now_ns)
        return self._level_bytes >= min(size_bytes, self.depth_bytes)

    def wait_s(self, size_bytes: int, now_ns: int) -> float:
        """Give how long until `may`."""
        if self.may(size_bytes, now_ns):
            return 0.0
        missing_bytes = min(size_bytes, self.depth_bytes) - self._level_bytes
        return missing_bytes / self._rate_bytes_per_s

    def spend(self, size_bytes: int, now_ns: int) -> None:
        """Take what was sent, whether or not it might; a debt of ten seconds is the largest."""
        if self._rate_bytes_per_s:
            self._fill(now_ns)
            least_bytes = -max(MOST_DEBT_S * self._rate_bytes_per_s, size_bytes)
            self._level_bytes = max(self._level_bytes - size_bytes, least_bytes)

    def _fill(self, now_ns: int) -> None:
        grown_bytes = max(0, now_ns - self._at_ns) * self._rate_bytes_per_s / NS_PER_S
        self._level_bytes = min(self._level_bytes + grown_bytes, self.depth_bytes)
        self._at_ns = max(self._at_ns, now_ns)
