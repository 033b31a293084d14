"""Boxes carried from one small plane to the next by the picture's own motion.

Median flow after Kalal, Mikolajczyk and Matas, "Forward-Backward Error: Automatic Detection of
Tracking Failures", 2010: a few corners of each box are followed by the sparse pyramidal method of
Lucas and Kanade (Bouguet, 2000), there and back again; a point that does not come back to where it
started is dropped, and the box moves and grows by the medians of the rest.

It runs in the thread that detects, where the tracks are, on the plane that the reading thread made
for the motion gate: so tracks need no lock, and a picture that the detecting thread passed over is
only a longer step. All boxes go through the method in one call.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.core.model import Box
from agent.vision.decode import Image

MAX_BOXES: Final = 64  # a crowd is followed by what the detector sees of it
MIN_POINTS: Final = 3  # that came back: below it the box is not known

_CORNERS: Final = 12
_QUALITY: Final = 0.05  # of the best corner in the box
_APART_PX: Final = 2
_INNER: Final = 0.1  # of the box's side: its rim is background
_MIN_SIDE_PX: Final = 4
_WINDOW_PX: Final = (9, 9)
_LEVELS: Final = 3
_MAX_RETURN_PX: Final = 1.0
_STOP: Final = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03)
_MAX_GROWTH: Final = 1.1  # a step
_SCALE_POINTS: Final = 6  # fewer tell a shift, no growth

_PAIRS: Final = [np.triu_indices(count, k=1) for count in range(_CORNERS + 1)]

_Points = NDArray[np.float32]


class Flow:
    """Remembers the last plane of one camera; for one thread."""

    def __init__(self) -> None:
        self._before: Image | None = None

    def forget(self) -> None:
        """Begin anew: the next plane has nothing to do with the last."""
        self._before = None

    def step(self, plane: Image, boxes: Sequence[Box]) -> tuple[Box | None, ...]:
        """Give where boxes of the last plane are on this one.

        Args:
            plane: brightness, 180x320; kept until the next one comes.
            boxes: in fractions of the frame, as they were on the last plane.

        Returns:
            As many boxes; None where too few points were found again.
        """
        before, self._before = self._before, plane
        if before is None or before.shape != plane.shape or not boxes:
            return (None,) * len(boxes)
        height, width = plane.shape
        starts = [_corners(before, box) for box in boxes[:MAX_BOXES]]
        counts = [len(points) for points in starts]
        if not sum(counts):
            return (None,) * len(boxes)
        first = np.concatenate(starts)
        second, is_good = _follow(before, plane, first)
        ends = np.cumsum(counts)
        moved = [
            _moved(box, first[rows][is_good[rows]], second[rows][is_good[rows]], (width, height))
            for box, count, end in zip(boxes, counts, ends.tolist(), strict=False)
            for rows in (slice(end - count, end),)
        ]
        return (*moved, *(None,) * (len(boxes) - len(moved)))


def _corners(plane: Image, box: Box) -> _Points:
    """Give up to a dozen corners in the inner part of a box, n x 2, in pixels of the plane."""
    height, width = plane.shape
    left, top = (box.x + box.w * _INNER) * width, (box.y + box.h * _INNER) * height
    right = (box.x + box.w * (1 - _INNER)) * width
    bottom = (box.y + box.h * (1 - _INNER)) * height
    x, y = max(0, round(left)), max(0, round(top))
    part = plane[y : max(y, round(bottom)), x : max(x, round(right))]
    if min(part.shape) < _MIN_SIDE_PX:
        return np.empty((0, 2), np.float32)
    found: Any = cv2.goodFeaturesToTrack(part, _CORNERS, _QUALITY, _APART_PX)
    if found is None:
        return np.empty((0, 2), np.float32)
    points: _Points = found.reshape(-1, 2) + np.array((x, y), np.float32)
    return points


def _follow(before: Image, plane: Image, first: _Points) -> tuple[_Points, NDArray[np.bool_]]:
    """Follow points there and back; gives where they are, and which came back to their start."""
    options = {"winSize": _WINDOW_PX, "maxLevel": _LEVELS, "criteria": _STOP}
    track = cast("Any", cv2.calcOpticalFlowPyrLK)
    second, went, _ = track(before, plane, first, None, **options)
    back, came, _ = track(plane, before, second, None, **options)
    is_near = np.abs(back - first).max(axis=1) <= _MAX_RETURN_PX
    return second, is_near & (went[:, 0] == 1) & (came[:, 0] == 1)


def _moved(box: Box, first: _Points, second: _Points, size: tuple[int, int]) -> Box | None:
    if len(first) < MIN_POINTS:
        return None
    x, y = _median(second - first) / size
    growth = _growth(first, second)
    w, h = box.w * growth, box.h * growth
    return Box(
        float(box.x + x - (w - box.w) / 2), float(box.y + y - (h - box.h) / 2), float(w), float(h)
    )


def _growth(first: _Points, second: _Points) -> float:
    """Give the median ratio of the distances between the points, after to before."""
    if len(first) < _SCALE_POINTS:
        return 1.0
    rows, columns = _PAIRS[len(first)]
    was = np.hypot(*(first[rows] - first[columns]).T)
    now = np.hypot(*(second[rows] - second[columns]).T)
    ratio = float(_median(now / np.maximum(was, 1e-3)))
    return min(max(ratio, 1 / _MAX_GROWTH), _MAX_GROWTH)


def _median(values: _Points) -> _Points:
    """Give the median over the first axis; for a dozen values ten times sooner than numpy's."""
    ranked = np.sort(values, axis=0)
    middle: _Points = (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2
    return middle
