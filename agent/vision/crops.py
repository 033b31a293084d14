"""Where a detector for a small square picture looks: the whole frame, four tiles, or crops.

Crops are up to two squares around what moves and what is tracked; at the heartbeat the whole frame
is looked at as well, for what stands still and was never seen. A square that holds a point can be
slid until its left side meets the left of some point and its top the top of some other, so those
places are all that have to be tried. What waits longest to be looked at again weighs most, so that
nothing stays outside for ever.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.model import Box
from agent.vision.boxes import Floats, corners, covered, suppress

WHOLE: Final = Box(0.0, 0.0, 1.0, 1.0)
TILES: Final = tuple(Box(x, y, 0.6, 0.6) for y in (0.0, 0.4) for x in (0.0, 0.4))
MAX_CROPS: Final = 2
SIDES: Final = (0.65, 0.85)  # of the frame's shorter side
MAX_POINTS: Final = 32
CUT_SCORE: Final = 0.5  # what a box that the edge of its crop cuts is worth

_MARGIN: Final = 0.15  # of a point's size, on each side
_MIN_SIDE: Final = 0.1  # of the frame's shorter side: a moving leg is part of somebody
_TOUCH: Final = 0.01  # of the crop: so near to its edge a box is cut
_END: Final = 1 - 1e-6  # of the frame
_PART: Final = 0.6  # of a cut box within a whole one: it is a part of that
_US_PER_S: Final = 1_000_000


class Planner:
    """Chooses the crops of one camera, look by look; for one thread."""

    def __init__(self, heartbeat_s: float) -> None:
        self._heartbeat_us = round(heartbeat_s * _US_PER_S)
        self._whole_us: int | None = None

    def plan(
        self, points: Sequence[Box], weights: Sequence[float], t_us: int, aspect: float
    ) -> tuple[Box, ...]:
        """Give where to look now: crops, the whole frame, or both.

        Args:
            points: what moves or is tracked, in fractions of the frame.
            weights: how much each has to be looked at.
            t_us: stream time.
            aspect: width of the frame over its height.
        """
        crops = around(points, weights, aspect)
        is_due = self._whole_us is None or t_us - self._whole_us >= self._heartbeat_us
        if crops and not is_due and not _has_large(points, aspect):
            return crops
        self._whole_us = t_us
        return (*crops[: MAX_CROPS - 1], WHOLE)


def around(points: Sequence[Box], weights: Sequence[float], aspect: float) -> tuple[Box, ...]:
    """Give up to two squares that hold as much of the points' weight as squares can, greedily.

    Args:
        points: boxes in fractions of the frame.
        weights: of each.
        aspect: width of the frame over its height.

    Returns:
        Squares of pixels as boxes in fractions; none where every point is larger than a square.
    """
    shape = np.array([max(aspect, 1e-3), 1.0])
    shape /= shape.min()  # the frame, its shorter side being one
    heaviest = np.argsort(-np.asarray(weights, dtype=np.float64), kind="stable")[:MAX_POINTS]
    rows = _roomy(corners(points) * np.tile(shape, 2), shape)[heaviest]
    left = np.asarray(weights, dtype=np.float64)[heaviest]
    found: list[Box] = []
    while len(found) < MAX_CROPS and len(rows):
        square = _best_square(rows, left, shape)
        if square is None:
            break
        x, y, side = square
        found.append(Box(x / shape[0], y / shape[1], side / shape[0], side / shape[1]))
        is_out = ~_held(rows, np.array([[x, y]]), side)[0]
        rows, left = rows[is_out], left[is_out]
    return tuple(found)


def _has_large(points: Sequence[Box], aspect: float) -> bool:
    """Whether anything is too large for a crop; the whole frame shows it well."""
    shorter = min(aspect, 1.0)
    return any(max(box.w * aspect, box.h) > max(SIDES) * shorter for box in points)


def placed(rows: Floats, area: Box) -> Floats:
    """Give candidates of an area as candidates of the frame, with a column that says which are cut.

    Args:
        rows: n x 5, left, top, right, bottom in fractions of the area, score.
        area: where in the frame.

    Returns:
        n x 6; the last column is 1 where an edge inside the frame cuts the box, whose score is
        halved, else 0.
    """
    is_inner = np.array([area.x > 0, area.y > 0, area.x + area.w < _END, area.y + area.h < _END])
    is_near = np.column_stack([rows[:, :2] < _TOUCH, rows[:, 2:4] > 1 - _TOUCH])
    is_cut = (is_near & is_inner).any(axis=1)
    boxes = rows[:, :4] * np.tile([area.w, area.h], 2) + np.tile([area.x, area.y], 2)
    return np.column_stack([boxes, np.where(is_cut, CUT_SCORE, 1.0) * rows[:, 4], is_cut])


def merged(pieces: Sequence[Floats], max_iou: float) -> Floats:
    """Give what the areas saw together: overlapping boxes once, and no parts of whole ones.

    Args:
        pieces: n x 6 of each area, as `placed` gives them.
        max_iou: two boxes that overlap more are one.
    """
    rows = np.concatenate(pieces)
    rows = rows[suppress(rows[:, :4], rows[:, 4], max_iou)]
    is_cut = rows[:, 5] > 0
    if not is_cut.any():
        return rows
    held = covered(rows[:, :4], rows[~is_cut, :4])
    return rows[~is_cut | (held < _PART)]


def _roomy(rows: Floats, shape: NDArray[np.float64]) -> Floats:
    """Give points with room around them, as far as the frame goes."""
    size = rows[:, 2:] - rows[:, :2]
    room = np.maximum(size * _MARGIN, (_MIN_SIDE - size) / 2)
    low, high = np.maximum(rows[:, :2] - room, 0.0), np.minimum(rows[:, 2:] + room, shape)
    return np.concatenate([low, high], axis=1)


def _best_square(
    rows: Floats, weights: Floats, shape: NDArray[np.float64]
) -> tuple[float, float, float] | None:
    """Give left, top and side of the square that holds most, a small one rather than a large."""
    best: tuple[float, tuple[float, float, float]] | None = None
    for side in SIDES:
        x, y = np.meshgrid(np.unique(rows[:, 0]), np.unique(rows[:, 1]))
        places = np.column_stack([x.ravel(), y.ravel()])
        places = np.clip(places, 0.0, shape - side)
        held = _held(rows, places, side)
        gains = held @ weights
        index = int(np.argmax(gains))
        if gains[index] > 0 and (best is None or gains[index] > best[0] + 1e-9):
            inside = rows[held[index]]
            middle = (inside[:, :2].min(axis=0) + inside[:, 2:].max(axis=0)) / 2
            place = np.clip(middle - side / 2, 0.0, shape - side)
            best = float(gains[index]), (float(place[0]), float(place[1]), side)
    return None if best is None else best[1]


def _held(rows: Floats, places: Floats, side: float) -> NDArray[np.bool_]:
    """Give which points (columns) the squares at the places (rows) hold as a whole."""
    is_after = (rows[None, :, :2] >= places[:, None] - 1e-6).all(axis=2)
    is_before = (rows[None, :, 2:] <= places[:, None] + side + 1e-6).all(axis=2)
    return np.logical_and(is_after, is_before)
