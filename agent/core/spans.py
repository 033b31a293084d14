"""Sets of message numbers in few words: unbroken spans, and spans of which only marked ones count.

What was thinned out leaves every fourth number; a span for each hole would need a row a hole. So
numbers that lie close together share one piece: its first and last number, and a bit for each
number between them, most significant bit first.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

MOST_MARKED = 4096  # numbers of one piece with marks: 512 bytes
ALONE = 512  # an unbroken run of so many stands for itself
FEW = 3  # runs that each stand for themselves

Run = tuple[int, int]  # both ends included


class Piece(NamedTuple):
    """Numbers from `first` to `last`, both included: all of them, or those with a bit set."""

    first: int
    last: int
    marks: bytes | None = None


def joined(numbers: Iterable[int]) -> list[Run]:
    """Give numbers as runs without neighbours, both ends included."""
    return merged((number, number) for number in numbers)


def merged(runs: Iterable[Run]) -> list[Run]:
    """Give runs that may overlap or touch as few that do not."""
    found: list[Run] = []
    for first, last in sorted(runs):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def overlap(runs: Iterable[Run], others: Iterable[Run]) -> list[Run]:
    """Give what is in both; each side is merged."""
    ours, theirs = list(runs), list(others)
    found, at = [], 0
    for first, last in ours:
        while at < len(theirs) and theirs[at][1] < first:
            at += 1
        place = at
        while place < len(theirs) and theirs[place][0] <= last:
            found.append((max(first, theirs[place][0]), min(last, theirs[place][1])))
            place += 1
    return found


def without(runs: Iterable[Run], others: Iterable[Run]) -> list[Run]:
    """Give what is in `runs` and not in `others`; each side is merged."""
    theirs = list(others)
    left: list[Run] = []
    at = 0
    for first, last in runs:
        while at < len(theirs) and theirs[at][1] < first:
            at += 1
        begin, place = first, at
        while place < len(theirs) and theirs[place][0] <= last:
            if theirs[place][0] > begin:
                left.append((begin, theirs[place][0] - 1))
            begin = max(begin, theirs[place][1] + 1)
            place += 1
        if begin <= last:
            left.append((begin, last))
    return left


def total(runs: Iterable[Run]) -> int:
    """Count the numbers in runs."""
    return sum(last - first + 1 for first, last in runs)


def pieces(runs: Iterable[Run]) -> list[Piece]:
    """Put merged runs into few pieces."""
    found: list[Piece] = []
    together: list[Run] = []
    for run in runs:
        if together and (_is_long(run) or run[1] - together[0][0] >= MOST_MARKED):
            found += _together(together)
            together = []
        if _is_long(run):
            found.append(Piece(*run))
        else:
            together.append(run)
    return found + _together(together)


def runs_of(piece: Piece) -> list[Run]:
    """Give the runs of a piece.

    Raises:
        ValueError: it does not go upwards, or its marks are not one bit a number.
    """
    first, last, marks = piece
    if first > last:
        raise ValueError(f"span {first} to {last}; allowed: upwards")
    if marks is None:
        return [(first, last)]
    count = last - first + 1
    if count > MOST_MARKED or len(marks) != (count + 7) // 8:
        raise ValueError(
            f"span {first} to {last} with {len(marks)} bytes of marks; allowed: a bit for each"
            f" number, up to {MOST_MARKED}"
        )
    return list(_runs(marks, first, count))


def stored(piece: Piece) -> list[Run]:
    """Give the runs of a piece that was stored; none if the disk has changed it since."""
    with suppress(ValueError, TypeError):
        return runs_of(piece)
    return []


def _is_long(run: Run) -> bool:
    return run[1] - run[0] + 1 >= ALONE


def _together(together: list[Run]) -> list[Piece]:
    if len(together) <= FEW:
        return [Piece(*run) for run in together]
    first, last = together[0][0], together[-1][1]
    count = last - first + 1
    bits = 0
    for start, end in together:
        bits |= ((1 << (end - start + 1)) - 1) << (last - end)
    size_bytes = (count + 7) // 8
    return [Piece(first, last, (bits << (8 * size_bytes - count)).to_bytes(size_bytes, "big"))]


def _runs(marks: bytes, first: int, count: int) -> Iterator[Run]:
    bits = f"{int.from_bytes(marks, 'big'):0{8 * len(marks)}b}"[:count]
    at = bits.find("1")
    while at >= 0:
        end = bits.find("0", at)
        end = count if end < 0 else end
        yield first + at, first + end - 1
        at = bits.find("1", end)
