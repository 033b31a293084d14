"""How well a tracker keeps identities: IDF1 and id switches.

IDF1 after Ristani, Solera, Zou, Cucchiara, Tomasi, "Performance Measures and a Data Set for
Multi-Target, Multi-Camera Tracking", 2016: true and told tracks are paired one to one so that most
boxes agree; IDF1 is the share of agreeing boxes among all true and told ones. A switch is a true
track that is followed under another id than before (Bernardin, Stiefelhagen, 2008).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Box = tuple[float, float, float, float]
Frame = Mapping[int, Box]

MIN_IOU: Final = 0.5


@dataclass(frozen=True, slots=True)
class Identity:
    """Sums over sequences; add with `+`."""

    agreeing: int = 0
    true: int = 0
    told: int = 0
    switches: int = 0

    def __add__(self, other: "Identity") -> "Identity":
        """Sum two sequences."""
        return Identity(
            self.agreeing + other.agreeing,
            self.true + other.true,
            self.told + other.told,
            self.switches + other.switches,
        )

    @property
    def idf1(self) -> float:
        """Twice the agreeing boxes over all boxes."""
        return 2 * self.agreeing / max(1, self.true + self.told)


def identity(truth: Sequence[Frame], told: Sequence[Frame]) -> Identity:
    """Compare two sequences of boxes by id, frame by frame."""
    overlaps: Counter[tuple[int, int]] = Counter()
    last: dict[int, int] = {}
    switches = 0
    for true_frame, told_frame in zip(truth, told, strict=True):
        pairs = _pairs(true_frame, told_frame)
        overlaps.update(pairs)
        for one, other in _one_to_one(true_frame, told_frame, pairs, last):
            switches += last.get(one, other) != other
            last[one] = other
    rows = sorted({one for one, _ in overlaps})
    columns = sorted({other for _, other in overlaps})
    gains = [[overlaps[one, other] for other in columns] for one in rows]
    agreeing = sum(gains[row][column] for row, column in best_pairs(gains))
    return Identity(agreeing, sum(map(len, truth)), sum(map(len, told)), switches)


def iou(one: Box, other: Box) -> float:
    """Give the intersection over union of two boxes (left, top, width, height)."""
    w = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    h = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, w) * max(0.0, h)
    return shared / max(1e-12, one[2] * one[3] + other[2] * other[3] - shared)


def best_pairs(gains: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pair rows with columns so that the sum of gains is largest (Kuhn-Munkres, O(n^3))."""
    if not gains or not gains[0]:
        return []
    if len(gains) > len(gains[0]):
        turned = [list(column) for column in zip(*gains, strict=True)]
        return sorted((row, column) for column, row in best_pairs(turned))
    count, width = len(gains), len(gains[0])
    row_price, column_price = [0.0] * (count + 1), [0.0] * (width + 1)
    owner = [0] * (width + 1)  # row of each column, 0: none
    for row in range(1, count + 1):
        owner[0], column = row, 0
        least, came, is_done = (
            [float("inf")] * (width + 1),
            [0] * (width + 1),
            [False] * (width + 1),
        )
        while owner[column]:
            is_done[column] = True
            step, following = float("inf"), 0
            for other in range(1, width + 1):
                if is_done[other]:
                    continue
                cost = -gains[owner[column] - 1][other - 1]
                slack = cost - row_price[owner[column]] - column_price[other]
                if slack < least[other]:
                    least[other], came[other] = slack, column
                if least[other] < step:
                    step, following = least[other], other
            for other in range(width + 1):
                if is_done[other]:
                    row_price[owner[other]] += step
                    column_price[other] -= step
                else:
                    least[other] -= step
            column = following
        while column:
            owner[column] = owner[came[column]]
            column = came[column]
    return sorted(
        (owner[column] - 1, column - 1) for column in range(1, width + 1) if owner[column]
    )


def _pairs(true_frame: Frame, told_frame: Frame) -> list[tuple[int, int]]:
    return [
        (one, other)
        for one, true_box in sorted(true_frame.items())
        for other, told_box in sorted(told_frame.items())
        if iou(true_box, told_box) >= MIN_IOU
    ]


def _one_to_one(
    true_frame: Frame,
    told_frame: Frame,
    pairs: Sequence[tuple[int, int]],
    last: Mapping[int, int],
) -> list[tuple[int, int]]:
    """Give each object one track in a frame: the one it had, else the one that overlaps most."""
    order = sorted(
        pairs,
        key=lambda pair: (
            last.get(pair[0]) != pair[1],
            -iou(true_frame[pair[0]], told_frame[pair[1]]),
        ),
    )
    ones: set[int] = set()
    others: set[int] = set()
    found = []
    for one, other in order:
        if one not in ones and other not in others:
            ones.add(one)
            others.add(other)
            found.append((one, other))
    return found
