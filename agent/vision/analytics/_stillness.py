"""Whether a camera shows one picture again and again: stiller than any scene, for how long.

An encoder that is fed one picture does not repeat it bit by bit: at each key frame it is coded
anew, a little otherwise all over, and refined for some pictures. So most looks must be the same
but for rounding, and in none may a single pixel change much: a clock that is written into the
picture does that every second, and so does whoever walks.
"""

import math
from dataclasses import dataclass
from typing import Final

from agent.core.model import Picture

SAME_LEVELS: Final = 0.004  # grey levels of mean change: rounding
STIRRED_LEVELS: Final = 30.0  # grey levels of one pixel: the coarsest coding stays below it
MIN_SHARE: Final = 0.4  # of the looks must be the same
MIN_LOOKS: Final = 3
TAU_S: Final = 10.0  # over which the share is told

_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Stillness:
    """Since when nothing has stirred, and how many looks were the same since."""

    since_us: int | None = None
    last_us: int = 0
    looks: int = 0
    share: float = 0.0

    @property
    def is_frozen(self) -> bool:
        """Whether it looks like one picture; for how long it must is for the rule to say."""
        return self.looks >= MIN_LOOKS and self.share >= MIN_SHARE


UNKNOWN: Final = Stillness()


def advance(before: Stillness, picture: Picture, t_us: int, *, is_break: bool) -> Stillness:
    """Take one look.

    Args:
        before: up to now.
        picture: its changes are those since the look before.
        t_us: of the look.
        is_break: the look before was long ago.
    """
    if before.since_us is None or is_break or picture.change_max > STIRRED_LEVELS:
        return Stillness(t_us, t_us)
    span_s = (t_us - before.last_us) / _US_PER_S
    is_same = picture.change <= SAME_LEVELS
    share = before.share + (1 - math.exp(-span_s / TAU_S)) * (is_same - before.share)
    return Stillness(before.since_us, t_us, before.looks + is_same, share)
