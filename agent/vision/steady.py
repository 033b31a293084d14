"""Whether the clock may be believed: one that was just set may be set again."""

from agent.core import log
from agent.core.clock import NS_PER_S, Clock

STEADY_NS = 3600 * NS_PER_S  # the clock must have run on for so long before its days count
STEP_NS = 60 * NS_PER_S

_log = log.get(__name__)


class Steadiness:
    """Watches a clock; used by one thread.

    A box without a clock of its own starts in the past, and a slip of a hand is years: neither may
    cost what was recorded.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_ns = clock.mono_ns()
        self._offset_ns = clock.utc_ns() - clock.mono_ns()

    def look(self) -> bool:
        """Say whether it has run on for an hour without being set."""
        now_ns = self._clock.mono_ns()
        offset_ns = self._clock.utc_ns() - now_ns
        if abs(offset_ns - self._offset_ns) > STEP_NS:
            _log.warning("clock was set, nothing goes for an hour whatever its days")
            self._since_ns, self._offset_ns = now_ns, offset_ns
        return now_ns - self._since_ns >= STEADY_NS
