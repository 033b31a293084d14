"""Places in the picture as places on flat ground, in metres, with their error.

A point is freed of the lens's first radial term, then mapped by a homography (Hartley, Zisserman:
"Multiple View Geometry", 2004, chapter 2). Lengths in the picture are counted in its widths, from
its middle, so that the numbers hold for every stream of a camera. Pure Python: rules may use it.
"""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_METRES_PER_PX: Final = 0.5  # further away the ground cannot be told any more

_ROUNDS: Final = 8  # of the fixed-point inversion of the lens; converges for |k1| r^2 < 0.3


class Spot(NamedTuple):
    """A place on the ground."""

    x_m: float
    y_m: float
    sd_m: float  # in the direction where it is known worst
    jacobian: tuple[float, float, float, float]  # metres a picture width: dX/du dX/dv dY/du dY/dv


@dataclass(frozen=True, slots=True)
class Ground:
    """A calibrated camera's ground plane.

    `matrix` maps (u, v, 1) to (X, Y, W) row by row, where u and v are picture widths from the
    middle, y down, without the lens's distortion; W is positive below the horizon.
    `k1` is the lens: distorted radius = r (1 + k1 r^2). `sd_px` is how well a foot is known,
    `scale_sd_frac` how well the calibration knows a length, as a share of it.
    """

    calibration_id: str
    matrix: tuple[float, ...]
    k1: float
    width_px: int
    height_px: int
    sd_px: float
    scale_sd_frac: float = 0.0

    def project(self, x: float, y: float) -> tuple[float, float] | None:
        """Give the place of a point of the picture in metres, however far; None in the sky."""
        u, v = self.undistorted(x - 0.5, (y - 0.5) * self.height_px / self.width_px)
        a, b, c, d, e, f, g, h, i = self.matrix
        w = g * u + h * v + i
        return None if w <= 0 else ((a * u + b * v + c) / w, (d * u + e * v + f) / w)

    def locate(self, x: float, y: float) -> Spot | None:
        """Give the place of a point of the picture, in fractions; None where it is not known."""
        u, v = self.undistorted(x - 0.5, (y - 0.5) * self.height_px / self.width_px)
        a, b, c, d, e, f, g, h, i = self.matrix
        w = g * u + h * v + i
        if w <= 0:
            return None
        x_m, y_m = (a * u + b * v + c) / w, (d * u + e * v + f) / w
        jacobian = ((a - g * x_m) / w, (b - h * x_m) / w, (d - g * y_m) / w, (e - h * y_m) / w)
        metres_per_px = _largest_stretch(*jacobian) / self.width_px
        if metres_per_px > MAX_METRES_PER_PX:
            return None
        return Spot(x_m, y_m, metres_per_px * self.sd_px, jacobian)

    def sd_along(self, spot: Spot, dx_m: float, dy_m: float) -> float:
        """Give the standard deviation of a place along a direction on the ground, in metres."""
        length = math.hypot(dx_m, dy_m)
        if length == 0:
            return spot.sd_m
        a, b, c, d = spot.jacobian
        along = math.hypot(a * dx_m + c * dy_m, b * dx_m + d * dy_m) / length
        return along * self.sd_px / self.width_px

    def undistorted(self, u: float, v: float) -> tuple[float, float]:
        """Take the lens's distortion out of a point, both in picture widths from the middle."""
        free_u, free_v = u, v
        for _ in range(_ROUNDS if self.k1 else 0):
            scale = 1.0 + self.k1 * (free_u * free_u + free_v * free_v)
            free_u, free_v = u / scale, v / scale
        return free_u, free_v


def _largest_stretch(a: float, b: float, c: float, d: float) -> float:
    """Give the larger singular value of a 2 x 2 matrix."""
    total = a * a + b * b + c * c + d * d
    determinant = a * d - b * c
    return math.sqrt((total + math.sqrt(max(0.0, total * total - 4 * determinant**2))) / 2)
