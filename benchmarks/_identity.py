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
    agreeing = best_pairs(overlaps)
    return Identity(agreeing, sum(map(len, truth)), sum(map(len, told)), switches)


def iou(one: Box, other: Box) -> float:
    """Give the intersection over union of two boxes (left, top, width, height)."""
    w = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    h = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, w) * max(0.0, h)
    return shared / max(1e-12, one[2] * one[3] + other[2] * other[3] - shared)


def best_pairs(gains: Mapping[tuple[int, int], int]) -> int:
    """Pair one to one, the most agreeing first; gives the sum, at most that of the best pairing."""
    total = 0
    rows: set[int] = set()
    columns: set[int] = set()
    for (row, column), gain in sorted(gains.items(), key=lambda item: (-item[1], item[0])):
        if row not in rows and column not in columns:
            total, rows, columns = total + gain, rows | {row}, columns | {column}
    return total


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
