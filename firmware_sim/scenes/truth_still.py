"""What truly happened to vehicles that stand: stopped ones, queues, parking.

At a moment an object has stood since it was last further than `still_frac` from where it is then.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from firmware_sim.scenes.pinhole import Floats
from firmware_sim.scenes.shapes import Visit, depth, visits
from firmware_sim.scenes.told import Case, Truth

_EVERY: Final = 5  # samples: ten a second are compared with each other
_QUEUES_S: Final = 1.0  # so long one has stood before it is part of a queue


def stopped_vehicle(case: Case) -> list[Truth]:
    """Standing for `stop_s` since the last queue."""
    t_s = case.seen.t_s
    stays = _stays(case)
    standing = np.zeros((len(case.seen.labels), len(t_s)), dtype=bool)
    for row, visit in stays:
        times, since = _standing_since(case, row, visit)
        holds = np.interp(t_s, times, times - since, left=-1.0, right=-1.0) >= _QUEUES_S
        standing[row] |= holds & (t_s >= visit.entry_s) & (t_s <= visit.last_s)
    counts = standing.sum(axis=0)
    is_queue = counts >= case.number("queue_from")
    last = np.maximum.accumulate(np.where(is_queue, np.arange(len(t_s)), -1))
    queue_s = np.where(last >= 0, t_s[np.maximum(last, 0)], -np.inf)
    return _standing(case, "stopped_vehicle", case.number("stop_s"), queue_s)


def parking(case: Case) -> list[Truth]:
    """Standing for `limit_s`."""
    never = np.full(len(case.seen.t_s), -np.inf)
    return _standing(case, "parking", case.number("limit_s"), never)


def _standing(case: Case, kind: str, needed_s: float, queue_s: Floats) -> list[Truth]:
    needed_s = case.lean.time(needed_s)
    still = case.number("still_frac")
    found = []
    for row, visit in _stays(case):
        times, since = _standing_since(case, row, visit)
        looks = np.searchsorted(case.seen.t_s, times)
        counted = times - np.maximum(since, queue_s[looks])
        feet = case.seen.feet[row, looks]
        first = 0
        while first < len(times):
            held = np.flatnonzero(counted[first:] >= needed_s)
            if not len(held):
                break
            start = first + int(held[0])
            away = np.hypot(*(feet[start:] - feet[start]).T) > 2 * still
            gone = np.flatnonzero(away)
            end_s = float(times[start + int(gone[0])]) if len(gone) else visit.last_s
            dwell = {"dwell_s": end_s - float(since[start])}
            start_s = float(max(since[start], queue_s[looks[start]])) + needed_s
            found.append(Truth(kind, (row,), start_s, end_s, float(times[start]), dwell))
            if not len(gone):
                break
            first = start + int(gone[0])
    return found


def _standing_since(case: Case, row: int, visit: Visit) -> tuple[Floats, Floats]:
    """Give moments at which it is seen inside, and since when it has stood where it then is."""
    first, last = visit.looks
    looks = (first + np.flatnonzero(case.seen.is_seen[row, first : last + 1]))[::_EVERY]
    times, feet = case.seen.t_s[looks], case.seen.feet[row, looks]
    away = np.hypot(feet[:, None, 0] - feet[None, :, 0], feet[:, None, 1] - feet[None, :, 1])
    number = np.arange(len(looks))
    is_earlier = number[None, :] < number[:, None]
    moved = np.where((away > case.number("still_frac")) & is_earlier, number[None, :], -1)
    after = np.minimum(moved.max(axis=1) + 1, number)
    return times, np.maximum(times[after], visit.entry_s)


def _stays(case: Case) -> list[tuple[int, Visit]]:
    grace_s = case.lean.allowed(case.number("grace_s"))
    found = []
    for row in case.actors:
        deep = depth(case.seen.feet[row], case.zone) - case.lean.frac
        seen = case.seen.is_seen[row]
        stays = visits(case.seen.t_s, deep, seen, case.number("hysteresis_frac"), grace_s)
        found += [(row, visit) for visit in stays]
    return found


TELLERS: Final[dict[str, Callable[[Case], list[Truth]]]] = {
    "stopped_vehicle": stopped_vehicle,
    "parking": parking,
}
