"""What truly happened in zones: entering, staying, walking on the road, crowds, lanes."""

from collections.abc import Callable
from typing import Final

import numpy as np

from firmware_sim.scenes.pinhole import Floats
from firmware_sim.scenes.shapes import Visit, depth_within, runs, visits
from firmware_sim.scenes.stage import Bools
from firmware_sim.scenes.told import Case, Truth

STRIDE_FRAC: Final = 0.02
CROWD_GRACE_S: Final = 2.0  # somebody hidden for longer is not counted


def zone_enter(case: Case) -> list[Truth]:
    """Every entry; after `min_inside_s`, its start is the entry all the same."""
    needed_s = case.lean.time(case.number("min_inside_s"))
    found = []
    for row, visit in _stays(case):
        told = _seen_from(case, row, visit, visit.entry_s + needed_s)
        if told is not None:
            dwell = {"dwell_s": visit.last_s - visit.entry_s}
            found.append(_one("zone_enter", row, (visit.entry_s, visit.last_s, told), dwell))
    return found


def loiter(case: Case) -> list[Truth]:
    """Every stay of `dwell_s`."""
    return _dwelling(case, "loiter", "dwell_s")


def pedestrian_on_road(case: Case) -> list[Truth]:
    """Every stay of `on_s` in the zone and in none of those taken out."""
    return _dwelling(case, "pedestrian_on_road", "on_s")


def _dwelling(case: Case, kind: str, key: str) -> list[Truth]:
    needed_s = case.lean.time(case.number(key))
    found = []
    for row, visit in _stays(case):
        start_s = visit.entry_s + needed_s
        told = _seen_from(case, row, visit, start_s)
        if told is not None:
            dwell = {"dwell_s": visit.last_s - visit.entry_s}
            found.append(_one(kind, row, (start_s, visit.last_s, told), dwell))
    return found


def crowd(case: Case) -> list[Truth]:
    """At least `min_count` inside for `on_s`, until fewer for `off_s`."""
    t_s = case.seen.t_s
    inside = np.zeros((len(case.seen.labels), len(t_s)), dtype=bool)
    for row, visit in _stays(case, grace_s=case.lean.allowed(CROWD_GRACE_S)):
        inside[row] |= (t_s >= visit.entry_s) & (t_s <= visit.last_s)
    counts = inside.sum(axis=0)
    on_s = case.lean.time(case.number("on_s"))
    off_s = case.lean.allowed(case.number("off_s"))
    found = []
    for start_s, end_s in lasting(t_s, np.asarray(counts >= case.number("min_count")), on_s, off_s):
        during = (t_s >= start_s - on_s) & (t_s <= end_s)
        there = inside[:, int(np.searchsorted(t_s, start_s))]
        objects = tuple(np.flatnonzero(there).tolist())
        most = {"count_max": float(counts[during].max())}
        found.append(Truth("crowd", objects, start_s, end_s, start_s, most))
    return found


def lasting(
    t_s: Floats,
    holds: Bools,
    on_s: float,
    off_s: float,
) -> list[tuple[float, float]]:
    """Give (start, end) of a condition that must hold for `on_s` and fail for `off_s`."""
    found: list[tuple[float, float]] = []
    is_open, until_s = False, 0.0
    for first, last in runs(holds):
        begin_s, end_s = float(t_s[first]), float(t_s[last])
        if is_open and begin_s - until_s < off_s:
            found[-1] = (found[-1][0], end_s)
            until_s = end_s
        elif end_s - begin_s >= on_s:
            found.append((begin_s + on_s, end_s))
            is_open, until_s = True, end_s
        else:
            is_open = False
    return found


def lane_misuse(case: Case) -> list[Truth]:
    """`min_distance_frac` gone inside the zone, in straight strides."""
    needed = case.number("min_distance_frac") + case.lean.frac * 2
    found = []
    for row, visit in _stays(case):
        first, last = visit.looks
        looks = first + np.flatnonzero(case.seen.is_seen[row, first : last + 1])
        gone, anchor, start = 0.0, case.seen.feet[row, first], None
        for look in looks.tolist():
            step = float(np.hypot(*(case.seen.feet[row, look] - anchor)))
            if step >= STRIDE_FRAC:
                gone, anchor = gone + step, case.seen.feet[row, look]
            if start is None and gone >= needed:
                start = float(case.seen.t_s[look])
        if start is not None:
            way = {"distance_frac": gone}
            found.append(_one("lane_misuse", row, (start, visit.last_s, start), way))
    return found


def _stays(case: Case, grace_s: float | None = None) -> list[tuple[int, Visit]]:
    if grace_s is None:
        grace_s = case.lean.allowed(case.number("grace_s"))
    found = []
    for row in case.actors:
        deep = depth_within(case.seen.feet[row], case.zone, case.excluded) - case.lean.frac
        stays = visits(
            case.seen.t_s, deep, case.seen.is_seen[row], case.number("hysteresis_frac"), grace_s
        )
        found += [(row, visit) for visit in stays]
    return found


def _seen_from(case: Case, row: int, visit: Visit, from_s: float) -> float | None:
    """Give when it is first seen inside from a moment on; None if it no longer is."""
    first, last = visit.looks
    looks = first + np.flatnonzero(case.seen.is_seen[row, first : last + 1])
    later = case.seen.t_s[looks] >= from_s - 1e-9
    return float(case.seen.t_s[looks[int(np.argmax(later))]]) if later.any() else None


def _one(
    kind: str, row: int, moments: tuple[float, float, float], measured: dict[str, float]
) -> Truth:
    start_s, end_s, told_s = moments
    return Truth(kind, (row,), start_s, max(start_s, end_s), max(start_s, told_s), measured)


TELLERS: Final[dict[str, Callable[[Case], list[Truth]]]] = {
    "zone_enter": zone_enter,
    "loiter": loiter,
    "pedestrian_on_road": pedestrian_on_road,
    "crowd": crowd,
    "lane_misuse": lane_misuse,
}
