"""How far the whole view has moved since its reference, by the directions of its edges.

Every pixel of a half-size plane becomes its gradient of length 0 to 1 (weak gradients, so noise,
stay near 0), as a complex number; the reference is the slow mean of these, in which what moves
averages out. Their cross-correlation over the Fourier transform peaks at the displacement, and the
height of the peak says how much of the structure it explains: orientation correlation (Fitch et
al., BMVC 2002) with a soft weight. Light and gain change lengths of gradients, not directions.
"""

import math
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.vision.decode import Image

SOFT_GRADIENT: Final = 20.0  # Sobel units, 8 a grey level a pixel: half weight at this length
MIN_STRUCTURE: Final = 0.02  # mean squared weight: below it there is too little to go by
TRUSTED: Final = 0.3  # share of the structure that a displacement must explain to be told
UNKNOWN: Final = 0.12  # below it no displacement explains the picture: another view altogether
ELSEWHERE_FRAC: Final = 1.0  # what is told then,
STEADY: Final = 0.3  # if the look is that much like the one before
RENEW_TAU_S: Final = 1800.0  # the reference follows light and season so slowly
RENEWED_BELOW_FRAC: Final = 0.01  # a view that has moved is not learned

_US_PER_S: Final = 1_000_000
_ZERO_WINS: Final = 0.9  # of the peak: fences and tiles have peaks at every period

_Floats = NDArray[np.float32]


class Shift:
    """Compares planes with the reference that it keeps; for one thread."""

    def __init__(self) -> None:
        self._reference: _Floats = np.empty((0, 0, 2), np.float32)
        self._before = self._reference
        self._looks = 0
        self._last_us = 0

    def step(self, plane: Image, t_us: int) -> float | None:
        """Give the displacement in fractions of the picture, the first look being no reference yet.

        Returns:
            Length of the displacement (each side as its fraction); `ELSEWHERE_FRAC` where none
            explains the picture; None where picture or reference have too little structure, or
            the likeness is too poor to tell.
        """
        edges = _edges(plane)
        if self._reference.shape != edges.shape:
            self._reference, self._looks, self._last_us = np.zeros_like(edges), 0, t_us
            self._before = np.zeros_like(edges)
        found = self._displacement(edges)
        if found == ELSEWHERE_FRAC and _likeness(edges, self._before) < STEADY:
            found = None  # grain, or a camera that is moving now: no view at all
        self._before = edges
        is_learned = self._looks == 0 or (found is not None and found < RENEWED_BELOW_FRAC)
        if is_learned and _energy(edges) >= MIN_STRUCTURE:
            span_s = max(0, t_us - self._last_us) / _US_PER_S
            self._looks += 1
            share = max(1 / self._looks, 1 - math.exp(-span_s / RENEW_TAU_S))
            cv2.accumulateWeighted(edges, self._reference, share)
        self._last_us = t_us
        return found

    def _displacement(self, edges: _Floats) -> float | None:
        energies = _energy(edges), _energy(self._reference)
        if min(energies) < MIN_STRUCTURE:
            return None
        spectrum = cv2.mulSpectrums(cv2.dft(edges), cv2.dft(self._reference), 0, conjB=True)
        match: _Floats = np.ascontiguousarray(cv2.idft(spectrum, flags=cv2.DFT_SCALE)[..., 0])
        _, peak, _, (x, y) = cv2.minMaxLoc(match)
        height, width = match.shape
        score = peak / (width * height * math.sqrt(energies[0] * energies[1]))
        if score < UNKNOWN:
            return ELSEWHERE_FRAC
        if score < TRUSTED:
            return None
        if match[0, 0] >= _ZERO_WINS * peak:
            x = y = 0
        dx = _between(match[y, :], x)
        dy = _between(match[:, x], y)
        return round(math.hypot(dx / width, dy / height), 5)


def _edges(plane: Image) -> _Floats:
    small = cv2.resize(plane, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    across = cv2.Sobel(small, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(small, cv2.CV_32F, 0, 1)
    weight = 1.0 / (cv2.magnitude(across, down) + SOFT_GRADIENT)
    return cast("_Floats", cv2.merge([across * weight, down * weight]))


def _energy(edges: _Floats) -> float:
    """Give the mean squared weight of a pixel."""
    return 2.0 * float(cv2.norm(edges, cv2.NORM_L2SQR)) / edges.size


def _likeness(one: _Floats, other: _Floats) -> float:
    """Give the correlation of two looks as they lie."""
    scale = math.sqrt(_energy(one) * _energy(other)) * one.size / 2
    return float(np.vdot(one, other)) / scale if scale > 0 else 0.0


def _between(line: _Floats, at: int) -> float:
    """Give the place of a peak between its neighbours, by a parabola, wrapped round zero."""
    count = line.shape[0]
    before, here, after = (float(line[(at + step) % count]) for step in (-1, 0, 1))
    bend = before - 2 * here + after
    place: float = at if bend >= 0 else at + 0.5 * (before - after) / bend
    return place - count if place > count / 2 else place
