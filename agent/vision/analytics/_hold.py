"""A condition with a time: on after `on_s`, off after `off_s`, blind to short dips."""

from dataclasses import dataclass, replace
from typing import Final

DIP_US: Final = 1_000_000  # shorter interruptions do not start the time anew

_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Hold:
    """How long the condition has held, or has not."""

    since_us: int | None = None
    off_us: int | None = None  # not true since then
    is_told: bool = False


NONE: Final = Hold()


@dataclass(frozen=True, slots=True)
class Change:
    """What one look changed: the instant at which the event began or ended."""

    began_us: int | None = None
    ended_us: int | None = None


def advance(
    hold: Hold,
    t_us: int,
    *,
    is_true: bool,
    on_s: float,
    off_s: float,
    armed_since_us: int | None,
) -> tuple[Hold, Change]:
    """Take one look at the condition."""
    if armed_since_us is None:
        hold = replace(hold, is_told=False)
    if is_true:
        since_us = t_us if hold.since_us is None else hold.since_us
        hold = replace(hold, since_us=since_us, off_us=None)
        if hold.is_told or armed_since_us is None:
            return hold, Change()
        due_us = max(since_us, armed_since_us) + round(on_s * _US_PER_S)
        if t_us < due_us:
            return hold, Change()
        return replace(hold, is_told=True), Change(began_us=due_us)
    off_us = t_us if hold.off_us is None else hold.off_us
    hold = replace(hold, off_us=off_us)
    patience_us = (
        round(off_s * _US_PER_S) if hold.is_told else min(DIP_US, round(off_s * _US_PER_S))
    )
    if hold.since_us is None or t_us - off_us < patience_us:
        return hold, Change()
    return Hold(), Change(ended_us=off_us if hold.is_told else None)
