"""Boxes out of the raw outputs of the SSD MobileNetV2 with six feature maps on 300x300 pixels.

Liu et al., "SSD: Single Shot MultiBox Detector", 2016, in the anchor layout and box coding of the
TensorFlow Object Detection API (`ssd_anchor_generator`, `faster_rcnn_box_coder`).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.model import Box, Detection
from agent.vision.boxes import Floats

GRIDS: Final = (19, 10, 5, 3, 2, 1)
ANCHORS: Final = 1917
MAX_CANDIDATES: Final = 200  # a label, best first: bounds the suppression on a noisy picture
NMS_IOU: Final = 0.5

_SCALES: Final = tuple(0.2 + index * 0.15 for index in range(6))
_RATIOS: Final = (1.0, 2.0, 0.5, 3.0, 0.3333)
_CENTRE_VARIANCE: Final = 10.0
_SIZE_VARIANCE: Final = 5.0

Raw = NDArray[np.float32]


@cache
def anchors() -> Floats:
    """Give the anchors, 1917 x 4: centre y, centre x, height, width in fractions."""
    layers = [_layer(grid, _shapes(index, _SCALES[index])) for index, grid in enumerate(GRIDS)]
    return np.concatenate(layers)


def columns(labels: Sequence[str], label_map: Mapping[str, str]) -> dict[str, list[int]]:
    """Give the class columns of every label that we report; all others are dropped."""
    found: dict[str, list[int]] = {}
    for column, label in enumerate(labels):
        if label in label_map:
            found.setdefault(label_map[label], []).append(column)
    return found


def candidates(
    encodings: Raw, logits: Raw, label_columns: Mapping[str, list[int]], min_score: float
) -> dict[str, Floats]:
    """Give what stands above `min_score`, n x 5 a label: left, top, right, bottom, score.

    Args:
        encodings: 1917 x 4, y x h w relative to the anchors.
        logits: 1917 x classes, before the sigmoid.
        label_columns: reported label to its class columns; the highest counts.
        min_score: 0..1, exclusive.
    """
    floor = float(np.log(min_score / (1.0 - min_score)))
    found = {}
    for label, wanted in label_columns.items():
        best = logits[:, wanted].max(axis=1)
        rows = np.flatnonzero(best > floor)
        rows = rows[np.argsort(-best[rows], kind="stable")][:MAX_CANDIDATES]
        if len(rows):
            scores = 1.0 / (1.0 + np.exp(-best[rows].astype(np.float64)))
            found[label] = np.column_stack([_boxes(encodings[rows], rows), scores])
    return found


def detections(found: Mapping[str, Floats]) -> tuple[Detection, ...]:
    """Give candidates of each label, overlapping ones merged before, best score first."""
    result = [
        Detection(label, round(score, 4), _box(*edges))
        for label, rows in found.items()
        for *edges, score in rows[:, :5].tolist()
    ]
    return tuple(sorted(result, key=lambda item: -item.score))


def _shapes(index: int, scale: float) -> list[tuple[float, float]]:
    if index == 0:
        return [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
    following = _SCALES[index + 1] if index + 1 < len(_SCALES) else 1.0
    return [*((scale, ratio) for ratio in _RATIOS), (float(np.sqrt(scale * following)), 1.0)]


def _layer(grid: int, shapes: Sequence[tuple[float, float]]) -> Floats:
    centres = (np.arange(grid) + 0.5) / grid
    y, x = np.meshgrid(centres, centres, indexing="ij")
    sizes = np.array([(scale / np.sqrt(ratio), scale * np.sqrt(ratio)) for scale, ratio in shapes])
    layer: Floats = np.empty((grid * grid, len(shapes), 4))
    layer[:, :, 0], layer[:, :, 1] = y.reshape(-1, 1), x.reshape(-1, 1)
    layer[:, :, 2:] = sizes
    rows: Floats = layer.reshape(-1, 4)
    return rows


def _boxes(encodings: Raw, rows: NDArray[np.intp]) -> Floats:
    anchor = anchors()[rows]
    coded = encodings.astype(np.float64)
    centre = coded[:, :2] / _CENTRE_VARIANCE * anchor[:, 2:] + anchor[:, :2]
    size = np.exp(np.minimum(coded[:, 2:] / _SIZE_VARIANCE, 4.0)) * anchor[:, 2:]
    top_left, bottom_right = centre - size / 2, centre + size / 2
    edges = np.concatenate([top_left[:, ::-1], bottom_right[:, ::-1]], axis=1)
    clipped: Floats = np.clip(edges, 0.0, 1.0)
    return clipped


def _box(left: float, top: float, right: float, bottom: float) -> Box:
    return Box(round(left, 5), round(top, 5), round(right - left, 5), round(bottom - top, 5))
