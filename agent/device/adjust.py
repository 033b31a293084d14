"""When what was stamped has to be restamped: pure, over one start's monotonic time.

Messages that were made before the clock was known to be right, or around a step of it, get an
adjustment once true time is known: the span of monotonic time they were made in, and what true UTC
was beside it. The device never rewrites a message; the centre keeps both times.
"""

from dataclasses import dataclass

from agent.core.clock import NS_PER_S

STEP_NS = NS_PER_S // 2
RIGHT_NS = NS_PER_S  # a clock no further off than this is called right
MARGIN_NS = NS_PER_S  # between reading a clock and asking how good it is
EVERY_NS = 600 * NS_PER_S  # while true time is known and the clock stays wrong


@dataclass(frozen=True, slots=True)
class Known:
    """True time, as a source knows it."""

    offset_ns: int  # UTC minus monotonic
    error_ms: int
    source: str


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Messages made in [from_mono_ns, to_mono_ns) were made at monotonic time plus the offset."""

    from_mono_ns: int
    to_mono_ns: int
    known: Known
    why: str


class Adjuster:
    """Follows one start; used by one thread but for `doubt`."""

    def __init__(self) -> None:
        self._good_ns: int | None = None  # up to here all stamps are right or adjusted
        self._wall_ns: int | None = None  # wall clock minus monotonic, at the last look
        self._is_doubtful = False

    def doubt(self) -> None:
        """Note that a message is being stamped without a right clock; safe from any thread."""
        self._is_doubtful = True

    def look(self, mono_ns: int, wall_ns: int, known: Known | None) -> Adjustment | None:
        """Take a look at the clock; gives an adjustment that is due.

        Args:
            mono_ns: monotonic time.
            wall_ns: the wall clock minus monotonic time.
            known: true time, or None while nobody knows it.
        """
        has_stepped = self._wall_ns is not None and abs(wall_ns - self._wall_ns) > STEP_NS
        self._wall_ns = wall_ns
        is_right = known is not None and abs(wall_ns - known.offset_ns) <= RIGHT_NS
        self._is_doubtful = self._is_doubtful or has_stepped or not is_right
        if not self._is_doubtful:
            self._good_ns = mono_ns
            return None
        begun_ns = self._good_ns
        is_due = is_right or begun_ns is None or mono_ns - begun_ns >= EVERY_NS
        if known is None or not is_due:
            return None
        self._good_ns = mono_ns
        self._is_doubtful = not is_right
        if begun_ns is None:
            return Adjustment(0, mono_ns, known, "first sync")
        why = "stepped" if has_stepped or is_right else "clock is off"
        return Adjustment(max(0, begun_ns - MARGIN_NS), mono_ns, known, why)
