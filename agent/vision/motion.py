"""What moves, on a small plane of brightness.

Motion is a running average with a noise level of its own for every pixel: sensor noise and foliage
raise the threshold where they are, so that a small object still shows elsewhere. Faint changes
count in patches only, from which single pixels are taken away; clear ones count by the pixel.
"""

import math
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from agent.core.model import Box, Picture
from agent.vision.config import MotionConfig
from agent.vision.decode import Image

MIN_CHANGE: Final = 6.0  # grey levels of 255: less is compression, whatever the noise level says
MEAN_TAU_S: Final = 8.0  # memory of the background
NOISE_TAU_S: Final = 12.0  # memory of the noise level
FIRST_NOISE: Final = 4.0  # grey levels, before anything is known
SCENE_FRAC: Final = 0.6  # above this share it is the light or the camera: learn it all anew
MAX_BOXES: Final = 32
CLEAR: Final = 2.0  # times the threshold: a clear change, of which a few pixels are enough
MIN_CLEAR: Final = 15.0  # grey levels
CLEAR_SHARE: Final = 1 / 12  # of the smallest patch: so much of it, if it changes clearly

_LEARN_MOVING: Final = 0.25  # what moves is learned this much slower, or a walker becomes noise
_US_PER_S: Final = 1_000_000
_KERNEL: Final = np.ones((3, 3), np.uint8)

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MotionResult:
    """What moved between two looks; boxes in fractions of the frame, largest first."""

    is_moving: bool
    area_frac: float
    boxes: tuple[Box, ...] = ()
    picture: Picture | None = None  # figures of the plane, for rules that ask for them


STILL: Final = MotionResult(is_moving=False, area_frac=0.0)


class Motion:
    """Learns a scene and says what moves in it; for one thread."""

    def __init__(self, config: MotionConfig) -> None:
        self._factor = np.float32(config.noise_factor)
        self._min_area_frac = config.min_area_frac
        self._mean: _Floats = np.empty((0, 0), np.float32)
        self._noise: _Floats = self._mean
        self._last_us = 0

    def step(self, luma: Image, t_us: int) -> MotionResult:
        """Compare a plane with what is usual there, and learn from it."""
        plane: _Floats = luma.astype(np.float32)
        if self._mean.shape != plane.shape:
            self._mean, self._last_us = plane, t_us
            self._noise = np.full(plane.shape, FIRST_NOISE, np.float32)
            return STILL
        change = _floats(cv2.absdiff(plane, self._mean))
        limit = np.maximum(self._noise * self._factor, np.float32(MIN_CHANGE))
        faint = cv2.morphologyEx(cv2.compare(change, limit, cv2.CMP_GT), cv2.MORPH_OPEN, _KERNEL)
        clear = cv2.compare(change, np.maximum(limit * CLEAR, MIN_CLEAR), cv2.CMP_GT)
        moving = _bytes(cv2.bitwise_or(faint, clear))
        result = self._result(moving, _bytes(clear))
        if result.area_frac > SCENE_FRAC:
            self._mean = plane
        else:
            self._learn(plane, change, moving, max(0, t_us - self._last_us) / _US_PER_S)
        self._last_us = t_us
        return result

    def _learn(self, plane: _Floats, change: _Floats, moving: Image, span_s: float) -> None:
        still = _bytes(cv2.bitwise_not(moving))
        for seen, known, tau_s in (
            (plane, self._mean, MEAN_TAU_S),
            (change, self._noise, NOISE_TAU_S),
        ):
            share = 1.0 - math.exp(-span_s / tau_s)
            cv2.accumulateWeighted(seen, known, share, still)
            cv2.accumulateWeighted(seen, known, share * _LEARN_MOVING, moving)

    def _result(self, moving: Image, clear: Image) -> MotionResult:
        height, width = moving.shape
        least = self._min_area_frac * width * height
        outlines, _ = cv2.findContours(moving, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        found = []
        for outline in outlines:
            pixels, (x, y, w, h) = _pixels(outline), cv2.boundingRect(outline)
            part = clear[y : y + h, x : x + w]
            if pixels >= least or cv2.countNonZero(part) >= least * CLEAR_SHARE:
                found.append((pixels, Box(x / width, y / height, w / width, h / height)))
        found.sort(key=lambda item: -item[0])
        area = cv2.countNonZero(moving) if found else 0
        boxes = tuple(box for _, box in found[:MAX_BOXES])
        return MotionResult(bool(found), round(area / (width * height), 6), boxes)


def _pixels(outline: MatLike) -> int:
    """Give the pixels of a patch and what it encloses, by its outline (Pick's theorem)."""
    return round(cv2.contourArea(outline) + len(outline) / 2 + 1)


def _floats(plane: object) -> _Floats:
    return cast("_Floats", plane)


def _bytes(plane: object) -> Image:
    return cast("Image", plane)
