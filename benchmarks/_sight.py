"""How well something saw: boxes against a reference."""

from collections.abc import Mapping, Sequence
from typing import Final

from agent.core.model import Box
from agent.vision.boxes import corners, iou

SAME_OBJECT_IOU: Final = 0.3

Boxes = Mapping[int, Sequence[Box]]  # by picture number
Scored = Mapping[int, Sequence[tuple[float, Box]]]  # the same with a score each


def pairs(first: Sequence[Box], second: Sequence[Box], min_iou: float) -> list[tuple[int, int]]:
    """Join two sets of boxes one to one, best overlap first."""
    if not first or not second:
        return []
    overlap = iou(corners(first), corners(second))
    found: list[tuple[int, int]] = []
    while float(overlap.max()) >= min_iou:
        row, column = divmod(int(overlap.argmax()), overlap.shape[1])
        found.append((row, column))
        overlap[row, :] = overlap[:, column] = 0.0
    return found


def recall_and_precision(
    reference: Boxes, seen: Boxes, min_iou: float = SAME_OBJECT_IOU
) -> tuple[float, float]:
    """Give what share of the reference was seen, and what share of what was seen is in it."""
    hits = wanted = given = 0
    for number, boxes in reference.items():
        mine = seen.get(number, ())
        hits += len(pairs(boxes, mine, min_iou))
        wanted += len(boxes)
        given += len(mine)
    return hits / max(1, wanted), hits / max(1, given)


def average_precision(truth: Boxes, seen: Scored, min_iou: float) -> float:
    """Give the area under the interpolated precision-recall curve, all points (VOC 2010 on)."""
    ranked = sorted(
        ((score, number, box) for number in truth for score, box in seen.get(number, ())),
        key=lambda item: -item[0],
    )
    left = {number: list(boxes) for number, boxes in truth.items()}
    total = sum(len(boxes) for boxes in truth.values())
    precisions, recalls, right = [], [], 0
    for count, (_, number, box) in enumerate(ranked, 1):
        if met := pairs([box], left[number], min_iou):
            right += 1
            del left[number][met[0][1]]
        precisions.append(right / count)
        recalls.append(right / total)
    area, reached = 0.0, 0.0
    for index, recall in enumerate(recalls):
        area += (recall - reached) * max(precisions[index:])
        reached = recall
    return area
