"""Speed on calibrated ground: a straight line through places in time, with its 95 % error.

Weighted least squares of both coordinates over time; the error is the larger of what the known
errors of the places give and of what their scatter about the line shows (Bevington, Robinson:
"Data Reduction and Error Analysis for the Physical Sciences", 2003, chapter 6), together with the
calibration's own error of a length.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.core.model import Box, Track
from agent.vision.analytics._ground import Ground, Spot
from agent.vision.analytics._path import sights_since

KMH_PER_MPS: Final = 3.6

_US_PER_S: Final = 1_000_000
_SIGMAS: Final = 1.96  # of 95 %
_LEAST: Final = 3  # places of a line
_EDGE: Final = 0.005  # of the picture


_FOOT_SHARE: Final = 0.045  # of the speed; most that was seen on made vehicles of true shape


@dataclass(frozen=True, slots=True)
class Velocity:
    """How an object moves over the ground."""

    speed_kmh: float
    error_kmh: float  # half of the 95 % interval, from the looks and the calibration
    length_m: float  # covered while it was measured
    samples: int
    spot: Spot  # the newest

    @property
    def told_error_kmh(self) -> float:
        """The error with what no look shows: the foot of a box wanders over a passing vehicle."""
        return math.hypot(self.error_kmh, _FOOT_SHARE * self.speed_kmh)


def velocity(track: Track, ground: Ground, t_us: int, window_s: float) -> Velocity | None:
    """Give the velocity over the last seconds; None for fewer than three known places."""
    placed = [
        (point.t_us / _US_PER_S, spot)
        for point in sights_since(track, t_us - round(window_s * _US_PER_S) - 1)
        if _is_whole(point.box) and (spot := ground.locate(*point.box.foot)) is not None
    ]
    if len(placed) < _LEAST:
        return None
    weights = [1.0 / max(1e-6, spot.sd_m) ** 2 for _, spot in placed]
    total = sum(weights)
    middle_s = sum(w * t for w, (t, _) in zip(weights, placed, strict=True)) / total
    spread = sum(w * (t - middle_s) ** 2 for w, (t, _) in zip(weights, placed, strict=True))
    if spread <= 0:
        return None
    shares = [w * (t - middle_s) / spread for w, (t, _) in zip(weights, placed, strict=True)]
    vx = sum(share * spot.x_m for share, (_, spot) in zip(shares, placed, strict=True))
    vy = sum(share * spot.y_m for share, (_, spot) in zip(shares, placed, strict=True))
    known = math.sqrt(
        sum(
            (share * ground.sd_along(spot, vx, vy)) ** 2
            for share, (_, spot) in zip(shares, placed, strict=True)
        )
    )
    shown = known * math.sqrt(_scatter(placed, weights, (vx, vy), middle_s))
    speed = math.hypot(vx, vy)
    sd_mps = math.hypot(max(known, shown), speed * ground.scale_sd_frac)
    return Velocity(
        speed_kmh=speed * KMH_PER_MPS,
        error_kmh=_SIGMAS * sd_mps * KMH_PER_MPS,
        length_m=speed * (placed[-1][0] - placed[0][0]),
        samples=len(placed),
        spot=placed[-1][1],
    )


def _is_whole(box: Box) -> bool:
    """Whether the picture's edge does not cut a box: of one that it cuts the foot is not seen."""
    return box.x > _EDGE and box.x + box.w < 1 - _EDGE and box.y + box.h < 1 - _EDGE


def _scatter(
    placed: Sequence[tuple[float, Spot]],
    weights: Sequence[float],
    speed: tuple[float, float],
    middle_s: float,
) -> float:
    """Give the reduced chi-square of the places about the line."""
    total = sum(weights)
    mean_x = sum(w * spot.x_m for w, (_, spot) in zip(weights, placed, strict=True)) / total
    mean_y = sum(w * spot.y_m for w, (_, spot) in zip(weights, placed, strict=True)) / total
    chi2 = sum(
        w
        * (
            (spot.x_m - mean_x - speed[0] * (t - middle_s)) ** 2
            + (spot.y_m - mean_y - speed[1] * (t - middle_s)) ** 2
        )
        for w, (t, spot) in zip(weights, placed, strict=True)
    )
    return chi2 / (2 * (len(placed) - 2))
