"""Arithmetic on many boxes at once. Boxes are rows of left, top, right, bottom, any one unit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.core.model import Box

Floats = NDArray[np.float64]


def iou(first: Floats, second: Floats) -> Floats:
    """Give the intersection over union of every box of `first` (n x 4) with `second` (m x 4)."""
    shared = _shared(first, second)
    union = areas(first)[:, None] + areas(second)[None, :] - shared
    ratio: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def corners(boxes: Sequence[Box]) -> Floats:
    """Give boxes of left, top, width, height as rows."""
    rows: Floats = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    rows[:, 2:] += rows[:, :2]
    return rows


def covered(boxes: Floats, covers: Floats) -> Floats:
    """Give how much of the area of each box the one of `covers` holds that holds most, 0..1."""
    if not len(covers):
        return np.zeros(len(boxes))
    share: Floats = _shared(boxes, covers).max(axis=1) / np.maximum(areas(boxes), 1e-12)
    return share


def areas(boxes: Floats) -> Floats:
    """Give the area of each box."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    found: Floats = sides[:, 0] * sides[:, 1]
    return found


def grown(boxes: Floats, share: float) -> Floats:
    """Give the boxes with `share` of their width and height added on each side."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * share
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)


def suppress(boxes: Floats, scores: Floats, max_iou: float) -> NDArray[np.intp]:
    """Give the rows to keep, best score first: greedy non-maximum suppression."""
    order = np.argsort(-scores, kind="stable")
    overlap = iou(boxes[order], boxes[order]) > max_iou
    np.fill_diagonal(overlap, val=False)
    is_kept = np.ones(len(order), dtype=bool)
    for row in np.flatnonzero(overlap.any(axis=1)).tolist():
        if is_kept[row]:
            is_kept[row + 1 :] &= ~overlap[row, row + 1 :]
    kept: NDArray[np.intp] = order[is_kept]
    return kept


def _shared(first: Floats, second: Floats) -> Floats:
    """Give the area that every box of `first` (n x 4) has in common with `second` (m x 4)."""
    sides = np.minimum(first[:, None, 2:], second[:, 2:])
    sides -= np.maximum(first[:, None, :2], second[:, :2])
    np.maximum(sides, 0.0, out=sides)
    common: Floats = sides[..., 0] * sides[..., 1]
    return common
