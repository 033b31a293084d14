"""What truly happened on calibrated ground: speeding and slow traffic.

Speeds are those of an object's middle over the ground, not of its picture. Where the picture's edge
cuts its box nobody can know where it stands: such looks are not measured.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from firmware_sim.scenes.pinhole import Floats
from firmware_sim.scenes.shapes import depth, is_inside
from firmware_sim.scenes.stage import Bools, Ints
from firmware_sim.scenes.told import Case, Truth
from firmware_sim.scenes.truth_zones import lasting

KMH: Final = 3.6
ENDS_BELOW: Final = 0.9  # of the limit

_SHORTEST_S: Final = 0.5  # of a window for the mean speed of traffic


def speed(case: Case) -> list[Truth]:
    """Faster than the limit over the last `window_s` and `min_length_m`."""
    limit = case.number("limit_kmh")
    found = []
    for row in case.actors:
        kmh, length_m, _ = over_window(case, row)
        looks = np.flatnonzero(_is_measured(case, row))
        kmh, times, where = kmh[looks], case.seen.t_s[looks], _in_zone(case, row)[looks]
        is_measured = where & (length_m[looks] >= case.number("min_length_m") * case.lean.speed)
        begins = is_measured & (kmh > limit * case.lean.speed)
        is_lost = np.diff(times, prepend=0.0) > case.lean.allowed(case.number("grace_s"))
        ends = ~where | (kmh < ENDS_BELOW * limit) | is_lost
        first = 0
        while begins[first:].any():
            start = first + int(np.argmax(begins[first:]))
            over = np.flatnonzero(ends[start + 1 :])
            end = start + int(over[0]) if len(over) else len(kmh) - 1
            top = {"speed_kmh": float(kmh[start : end + 1].max())}
            begin_s = float(times[start])
            found.append(Truth("speed", (row,), begin_s, float(times[end]), begin_s, top))
            first = end + 1
    return found


def over_window(case: Case, row: int) -> tuple[Floats, Floats, Floats]:
    """Give km/h and metres of the straight line through the last `window_s`, and its seconds."""
    t_s = case.seen.t_s
    is_seen = _is_measured(case, row)
    seen = is_seen.astype(float)
    begin = np.searchsorted(t_s, t_s - case.number("window_s"))
    count = _sum(seen, begin)
    safe = np.maximum(count, 1.0)
    mean_t = _sum(seen * t_s, begin) / safe
    spread = np.maximum(_sum(seen * t_s**2, begin) / safe - mean_t**2, 1e-9)
    slopes = []
    for axis in (0, 1):
        place = case.seen.ground_m[row, :, axis]
        mean = _sum(seen * place, begin) / safe
        slopes.append((_sum(seen * place * t_s, begin) / safe - mean * mean_t) / spread)
    mps = np.where(count >= 3, np.hypot(*slopes), 0.0)  # noqa: PLR2004 - detections
    first = np.minimum.accumulate(np.where(seen > 0, t_s, np.inf)[::-1])[::-1][begin]
    span = np.where(is_seen, t_s - first, 0.0)
    kmh = np.where(is_seen, mps * KMH, 0.0)
    return kmh, mps * span, span


def congestion(case: Case) -> list[Truth]:
    """At least `min_count` vehicles in the zone, on average slower than the limit."""
    t_s = case.seen.t_s
    total, count = np.zeros(len(t_s)), np.zeros(len(t_s))
    for row in case.actors:
        kmh, _, span = over_window(case, row)
        counted = _in_zone(case, row) & (span >= _SHORTEST_S)
        total += np.where(counted, kmh, 0.0)
        count += counted
    mean = total / np.maximum(count, 1.0)
    limit = case.number("limit_kmh") * (1 - 3 * (case.lean.speed - 1))
    slow = (count >= case.number("min_count")) & (mean < limit)
    on_s = case.lean.time(case.number("on_s"))
    off_s = case.lean.allowed(case.number("off_s"))
    found = []
    for start_s, end_s in lasting(t_s, np.asarray(slow), on_s, off_s):
        during = slow & (t_s >= start_s - on_s) & (t_s <= end_s)
        figures = {"speed_kmh": float(mean[during].min()), "count": float(count[during].max())}
        found.append(Truth("congestion", (), start_s, end_s, start_s, figures))
    return found


def _is_measured(case: Case, row: int) -> Bools:
    is_whole = case.seen.is_whole
    is_seen = case.seen.is_seen[row]
    return np.asarray(is_seen if is_whole is None else is_seen & is_whole[row])


def _in_zone(case: Case, row: int) -> Bools:
    if case.rule.get("zone") is None:
        return np.asarray(case.seen.is_seen[row])
    deep = depth(case.seen.feet[row], case.zone) - case.lean.frac
    return np.asarray(is_inside(deep, case.seen.is_seen[row], 0.0) & case.seen.is_seen[row])


def _sum(values: Floats, begin: Ints) -> Floats:
    """Give sums from `begin` to each sample, both included."""
    summed = np.concatenate(([0.0], np.cumsum(values)))
    return np.asarray(summed[1:] - summed[begin])


TELLERS: Final[dict[str, Callable[[Case], list[Truth]]]] = {
    "speed": speed,
    "congestion": congestion,
}
