"""Cameras of known height, tilt, roll and lens over flat ground: where a place is seen."""

import math
from dataclasses import dataclass

import numpy as np

from agent.vision.calibration import Mark
from agent.vision.survey import Survey


@dataclass(frozen=True)
class Pose:
    """A pinhole with one radial term; X to the right, Y ahead of its foot, in metres."""

    height_m: float = 6.0
    tilt_deg: float = 24.0
    focal: float = 0.9  # picture widths
    roll_deg: float = 2.0
    k1: float = 0.0
    size: tuple[int, int] = (1920, 1080)

    def see(self, places) -> np.ndarray:
        """Picture fractions, N x 2, of places on the ground, N x 2; each in front of the camera."""
        places = np.asarray(places, dtype=float).reshape(-1, 2)
        s, c = math.sin(math.radians(self.tilt_deg)), math.cos(math.radians(self.tilt_deg))
        depth = places[:, 1] * c + self.height_m * s
        assert (depth > 0).all()
        u = self.focal * places[:, 0] / depth
        v = self.focal * (self.height_m * c - places[:, 1] * s) / depth
        cr, sr = math.cos(math.radians(self.roll_deg)), math.sin(math.radians(self.roll_deg))
        u, v = cr * u - sr * v, sr * u + cr * v
        bent = 1 + self.k1 * (u * u + v * v)
        return np.column_stack((0.5 + u * bent, 0.5 + v * bent * self.size[0] / self.size[1]))

    def survey(self, places, noise_px: float = 0.0, seed: int = 0, straights=()) -> Survey:
        """A survey of these places, each seen with an error of `noise_px`."""
        dice = np.random.default_rng(seed)
        seen = self.see(places) + dice.normal(0, noise_px, (len(places), 2)) / np.array(self.size)
        marks = tuple(
            Mark(f"p{number}", float(x), float(y), float(x_m), float(y_m))
            for number, ((x, y), (x_m, y_m)) in enumerate(zip(seen, places, strict=True))
        )
        lines = tuple(tuple(map(tuple, self.see(line).tolist())) for line in straights)
        return Survey(*self.size, marks, lines)


YARD = ((-4, 8), (4, 8), (-5, 14), (5, 14), (-6, 22), (6, 22), (0, 11), (0, 30))
"""Eight places that the default pose sees well."""
