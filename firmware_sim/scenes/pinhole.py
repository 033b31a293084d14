"""A camera over flat ground: focal length, height, tilt, roll and a lens that bends straight lines.

Ground: metres, x to the camera's right, y ahead of it, z up; the camera stands over (0, 0). The
picture is in fractions of its width and height, origin top left. The lens is Brown's first radial
term over the ideal picture in focal lengths: seen = ideal * (1 + k1 * |ideal|^2).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NEAREST_M: Final = 0.3  # in front of the lens; what is nearer or behind has no picture
_ROUNDS: Final = 12  # of fixed-point iteration: below 1e-9 for |k1| up to 0.2


@dataclass(frozen=True, slots=True)
class Camera:
    """Where a camera stands and what it makes of the world."""

    focal_frac: float  # focal length over the picture's width
    height_m: float
    tilt_deg: float  # of the axis, down from the horizon
    roll_deg: float = 0.0  # clockwise, seen from behind the camera
    k1: float = 0.0
    width_px: int = 1280
    height_px: int = 720

    def project(self, places: Floats) -> Floats:
        """Give where points of the world (..., 3) are seen (..., 2).

        Not a number behind the camera, and so far out that the lens would fold the picture back.
        """
        tilt = math.radians(self.tilt_deg)
        x, y, z = places[..., 0], places[..., 1], places[..., 2] - self.height_m
        depth = y * math.cos(tilt) - z * math.sin(tilt)
        depth = np.where(depth > _NEAREST_M, depth, np.nan)
        across, down = x / depth, (-y * math.sin(tilt) - z * math.cos(tilt)) / depth
        roll = math.radians(self.roll_deg)
        across, down = (
            across * math.cos(roll) + down * math.sin(roll),
            down * math.cos(roll) - across * math.sin(roll),
        )
        away = across**2 + down**2
        bent = np.where(1.0 + 3.0 * self.k1 * away > 0, 1.0 + self.k1 * away, np.nan)
        return np.stack(
            (
                0.5 + self.focal_frac * across * bent,
                0.5 + self.focal_frac * down * bent * self.width_px / self.height_px,
            ),
            axis=-1,
        )

    def ground(self, x: float, y: float) -> tuple[float, float]:
        """Give the place on the ground that is seen at (x, y).

        Raises:
            ValueError: nothing of the ground is seen there; it is at or above the horizon.
        """
        seen_x = (x - 0.5) / self.focal_frac
        seen_y = (y - 0.5) / self.focal_frac * self.height_px / self.width_px
        across, down = seen_x, seen_y
        for _ in range(_ROUNDS):
            bent = 1.0 + self.k1 * (across**2 + down**2)
            across, down = seen_x / bent, seen_y / bent
        roll, tilt = math.radians(self.roll_deg), math.radians(self.tilt_deg)
        across, down = (
            across * math.cos(roll) - down * math.sin(roll),
            down * math.cos(roll) + across * math.sin(roll),
        )
        falls = math.sin(tilt) + down * math.cos(tilt)  # metres down for one of depth
        if falls <= 0:
            raise ValueError(f"({x:.3f}, {y:.3f}) is above the horizon; allowed: ground")
        depth = self.height_m / falls
        return depth * across, depth * (math.cos(tilt) - down * math.sin(tilt))
