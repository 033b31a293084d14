"""Distances to borders and lines, and the visits of an object to an area; for the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from firmware_sim.scenes.pinhole import Floats
from firmware_sim.scenes.stage import Bools, Polygon, Segment


@dataclass(frozen=True, slots=True)
class Visit:
    """A stay of an object in an area, from its entry to the last moment it is seen there."""

    entry_s: float
    last_s: float
    looks: tuple[int, int]  # first and last sample inside
    has_left: bool  # seen outside at once afterwards; else it was lost


def depth(feet: Floats, polygon: Polygon) -> Floats:
    """Give how far within the border points (n, 2) lie, negative outside; in fractions."""
    corners = np.asarray(polygon, dtype=np.float64)
    away = np.full(len(feet), np.inf)
    odd = np.zeros(len(feet), dtype=bool)
    x, y = feet[:, 0], feet[:, 1]
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = x1 - x0, y1 - y0
        share = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        away = np.minimum(away, np.hypot(x - x0 - share * dx, y - y0 - share * dy))
        if dy:
            odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * dx / dy)
    return np.where(odd, away, -away)


def depth_within(feet: Floats, zone: Polygon, excluded: Sequence[Polygon]) -> Floats:
    """Give the same for a zone without those taken out of it."""
    found = depth(feet, zone)
    for polygon in excluded:
        found = np.minimum(found, -depth(feet, polygon))
    return found


def is_inside(deep: Floats, is_seen: Bools, hysteresis_frac: float) -> Bools:
    """Tell for each sample whether it is inside, as it last clearly was; at first outside."""
    clear = np.where(deep >= hysteresis_frac, 1, np.where(deep <= -hysteresis_frac, -1, 0))
    clear[~is_seen] = 0
    last = np.maximum.accumulate(np.where(clear != 0, np.arange(len(clear)), -1))
    return np.asarray((last >= 0) & (clear[np.maximum(last, 0)] == 1))


def visits(
    t_s: Floats, deep: Floats, is_seen: Bools, hysteresis_frac: float, grace_s: float
) -> list[Visit]:
    """Give the stays in an area; unseen for up to `grace_s`, it is where it was last seen."""
    looks = np.flatnonzero(is_seen)
    if not len(looks):
        return []
    found = []
    for piece in np.split(looks, np.flatnonzero(np.diff(t_s[looks]) > grace_s) + 1):
        inside = is_inside(deep[piece], np.ones(len(piece), dtype=bool), hysteresis_frac)
        edges = np.diff(np.concatenate(([False], inside, [False])).astype(int))
        begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            entry_s = float(t_s[piece[begin]])
            if begin:
                entry_s = _moment(t_s, deep - hysteresis_frac, piece[begin - 1], piece[begin])
            last_s, has_left = float(t_s[piece[end]]), end + 1 < len(piece)
            found.append(Visit(entry_s, last_s, (int(piece[begin]), int(piece[end])), has_left))
    return found


def sides(feet: Floats, segment: Segment) -> tuple[Floats, Floats]:
    """Give distances from a line, positive to its right, and places along it, 0 start, 1 end."""
    (x0, y0), (x1, y1) = segment
    dx, dy = x1 - x0, y1 - y0
    length = np.hypot(dx, dy)
    right = (dx * (feet[:, 1] - y0) - dy * (feet[:, 0] - x0)) / length
    along = (dx * (feet[:, 0] - x0) + dy * (feet[:, 1] - y0)) / length**2
    return right, along


def runs(holds: Bools) -> list[tuple[int, int]]:
    """Give first and last sample of each stretch in which something holds."""
    edges = np.diff(np.concatenate(([False], holds, [False])).astype(int))
    return list(
        zip(
            np.flatnonzero(edges == 1).tolist(),
            (np.flatnonzero(edges == -1) - 1).tolist(),
            strict=True,
        )
    )


def _moment(t_s: Floats, height: Floats, before: int, after: int) -> float:
    """Give when a value passed zero between two samples."""
    low, high = float(height[before]), float(height[after])
    share = min(max(-low / (high - low), 0.0), 1.0) if high != low else 1.0
    return float(t_s[before] + share * (t_s[after] - t_s[before]))
