"""How like its reference a zone looks, whatever the light: normalised correlation."""

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.core.model import Point
from agent.vision.decode import Image

SETTLE_S: Final = 20.0  # the reference is the plain mean of so much before anything is told
RENEW_TAU_S: Final = 600.0  # light and weather are followed so slowly
RENEWED_FROM: Final = 0.9  # what looks otherwise is not learned
FAST_TAU_S: Final = 1.0
MIN_STRUCTURE: Final = 2.0  # grey levels: below it correlation is that of noise

_US_PER_S: Final = 1_000_000
_DIGITS: Final = 4

_Floats = NDArray[np.float32]


class Likeness:
    """Keeps one zone's reference; for one thread.

    Args:
        points: the zone, in fractions of the picture.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        self._shape: tuple[int, ...] = ()
        self._part = np.s_[0:0, 0:0]
        self._inside: NDArray[np.bool_] = np.empty((0, 0), bool)
        self._reference: _Floats = np.empty((0, 0), np.float32)
        self._fast = self._reference
        self._looks = 0
        self._begun_us = self._last_us = 0

    def step(self, plane: Image, t_us: int) -> float | None:
        """Give the correlation, -1..1; None while it learns, and where there is nothing to see."""
        if self._shape != plane.shape:
            self._begin(plane, t_us)
            return None
        span_s = max(0, t_us - self._last_us) / _US_PER_S
        self._last_us = t_us
        part = plane[self._part]
        cv2.accumulateWeighted(part, self._fast, 1 - math.exp(-span_s / FAST_TAU_S))
        if t_us - self._begun_us < SETTLE_S * _US_PER_S:
            self._looks += 1
            cv2.accumulateWeighted(part, self._reference, 1 / self._looks)
            return None
        now, then = self._fast[self._inside], self._reference[self._inside]
        if float(then.std()) < MIN_STRUCTURE:
            return None
        spread = float(now.std()) * float(then.std())
        together = float(((now - now.mean()) * (then - then.mean())).mean())
        likeness = together / spread if spread > 0 else 0.0
        if likeness >= RENEWED_FROM:
            share = 1 - math.exp(-span_s / RENEW_TAU_S)
            cv2.accumulateWeighted(self._fast, self._reference, share)
        return round(likeness, _DIGITS)

    def _begin(self, plane: Image, t_us: int) -> None:
        height, width = plane.shape
        corners = np.array([(x * width, y * height) for x, y in self._points])
        left, top = np.floor(corners.min(axis=0)).astype(int)
        right, bottom = np.ceil(corners.max(axis=0)).astype(int)
        self._part = np.s_[top : bottom + 1, left : right + 1]
        mask = np.zeros(plane.shape, np.uint8)
        cv2.fillPoly(mask, [np.round(corners - 0.5).astype(np.int32)], 1)
        self._shape, self._inside = plane.shape, mask[self._part].astype(bool)
        self._reference = plane[self._part].astype(np.float32)
        self._fast = self._reference.copy()
        self._looks, self._begun_us, self._last_us = 1, t_us, t_us
