"""Which of the oldest telemetry goes when room is lacking: a pure decision.

Old telemetry is first thinned to one in four, evenly in time and for each topic by itself, so that
a rare kind keeps its few. When everything has been thinned and room is still lacking, it is
thinned again; what has been thinned three times goes whole, the oldest first. Beats go before the
rest at every turn.

Rows are thinned in the order of their ids. So a few ids say how often any row has been thinned:
those up to the first at least once, those up to the second at least twice, and so on; those up to
the last one are gone.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

KEPT_OF = 4  # one of so many stays
TIMES = 3  # 1 in 64 is left
NO_END = 1 << 62


class Candidate(NamedTuple):
    """A row that may go."""

    row_id: int
    topic: str
    boot: int
    mono_ns: int  # when it was made


@dataclass(frozen=True, slots=True)
class Progress:
    """How far beats and the rest have been thinned: row ids, by times, the last one: removed."""

    beats: tuple[int, ...] = (0,) * (TIMES + 1)
    rest: tuple[int, ...] = (0,) * (TIMES + 1)


@dataclass(frozen=True, slots=True)
class Block:
    """Where to look for the next rows to go."""

    are_beats: bool
    times: int  # how often they have been thinned
    after_id: int
    last_id: int  # included

    @property
    def is_thinned(self) -> bool:
        """Whether some of the rows stay."""
        return self.times < TIMES


def blocks(progress: Progress) -> Iterator[Block]:
    """Give where to look, in order."""
    beats, rest = _blocks(True, progress.beats), _blocks(False, progress.rest)
    yield from (*beats[:TIMES], *rest[:TIMES], beats[TIMES], rest[TIMES])


def moved(progress: Progress, block: Block, last_id: int) -> Progress:
    """Note that a block is dealt with up to a row."""
    marks = list(progress.beats if block.are_beats else progress.rest)
    marks[block.times] = max(marks[block.times], last_id)
    if block.are_beats:
        return replace(progress, beats=tuple(marks))
    return replace(progress, rest=tuple(marks))


def afresh(progress: Progress) -> Progress:
    """Look again where all is thought to be gone: a row that was set aside may be back."""
    return Progress((*progress.beats[:TIMES], 0), (*progress.rest[:TIMES], 0))


def thinned(rows: Sequence[Candidate]) -> list[int]:
    """Choose which rows go, so that at most one in four of each topic stays, and at least one.

    Args:
        rows: in the order in which they were made.

    Returns:
        The ids of those that go, in the same order.
    """
    groups: dict[tuple[int, str], list[Candidate]] = defaultdict(list)
    for row in rows:
        groups[row.boot, row.topic].append(row)
    stay = {row_id for group in groups.values() for row_id in _evenly(group)}
    return [row.row_id for row in rows if row.row_id not in stay]


def _blocks(are_beats: bool, marks: Sequence[int]) -> list[Block]:
    return [
        Block(are_beats, times, after_id, last_id)
        for times, (last_id, after_id) in enumerate(pairwise((NO_END, *marks)))
    ]


def _evenly(group: Sequence[Candidate]) -> Iterator[int]:
    """Give the first row of each of as many equal spans of time as rows may stay."""
    spans = -(-len(group) // KEPT_OF)
    times_ns = [row.mono_ns for row in group]
    if times_ns[0] >= times_ns[-1]:
        times_ns = list(range(len(group)))
    begun_ns, took_ns = times_ns[0], times_ns[-1] - times_ns[0] + 1
    last = -1
    for row, time_ns in zip(group, times_ns, strict=True):
        span = (time_ns - begun_ns) * spans // took_ns
        if span > last:
            last = span
            yield row.row_id
