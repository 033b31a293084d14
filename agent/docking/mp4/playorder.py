"""Which pictures can be decoded, and when each is shown.

A picture that was told from one that is missing would show what never was, so it is left out, and
so is all that follows up to where decoding can begin again. H.264 tells a missing reference by
`frame_num` (7.4.3), HEVC by the sets of references that every slice names (8.3.2). The place of a
picture is its picture order count (H.264 8.2.1, HEVC 8.3.1).
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.docking.mp4.coded import Codec, Slice

T = TypeVar("T")

AHEAD = 32  # pictures: more than any decoder holds back


@dataclass(frozen=True, slots=True)
class Turn:
    """A picture's place: run of unbroken counting, and place within it; None: as decoded."""

    run: int
    poc: int | None


class Chain:
    """Admits pictures that everything they are told from has come before."""

    def __init__(self, codec: Codec) -> None:
        self._frame_nums = codec.frame_nums
        self._poc_range = 1 << codec.poc_bits
        self._is_broken = True
        self._frame_num = 0
        self._anchor = 0
        self._held: set[int] = set()
        self._run = -1

    def lose(self) -> None:
        """Something that may have been a key frame is missing: begin at the next one."""
        self._is_broken = True

    def admit(self, head: Slice) -> Turn | None:
        """Give a picture's place, or None if it cannot be decoded rightly."""
        if head.is_reset or (self._is_broken and head.is_key):
            return self._begin(head)
        if self._is_broken:
            return None
        if self._frame_nums:
            is_told = head.frame_num == (self._frame_num + 1) % self._frame_nums
            if not is_told:
                self._is_broken = True
                return None
        poc = self._place(head)
        if not self._frame_nums and not self._knows(head, poc):
            return None
        self._note(head, poc)
        return Turn(self._run, poc)

    def _begin(self, head: Slice) -> Turn:
        self._run += 1
        self._is_broken = False
        self._anchor = 0
        self._held.clear()
        poc = head.poc_lsb
        self._note(head, poc)
        return Turn(self._run, poc)

    def _place(self, head: Slice) -> int | None:
        if head.poc_lsb is None:
            return None
        half = self._poc_range // 2
        step = (head.poc_lsb - self._anchor + half) % self._poc_range - half
        return self._anchor + (half if step == -half else step)

    def _knows(self, head: Slice, poc: int | None) -> bool:
        return poc is not None and all(poc + delta in self._held for delta in head.needs)

    def _note(self, head: Slice, poc: int | None) -> None:
        if head.is_reference:
            self._frame_num = head.frame_num
        if head.is_anchor and poc is not None:
            self._anchor = poc
        if poc is not None:
            self._held &= {poc + delta for delta in head.holds}
            self._held.add(poc)


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """A picture with its times, in pictures from the first one shown."""

    item: T
    dts: int
    pts: int


class Timeline(Generic[T]):
    """Gives pictures their times, by their places; holds `AHEAD` of them."""

    def __init__(self, poc_step: int, reorder: int) -> None:
        self._step = max(1, poc_step)
        self._reorder = reorder
        self._waiting: deque[tuple[T, Turn, int]] = deque()
        self._run = -1
        self._base = 0
        self._next = 0  # the first time that nothing has yet
        self._last_dts: int | None = None
        self.moved = 0  # pictures that could not be shown when they should
        self.left_open = 0  # pictures that time was left for

    def put(self, item: T, turn: Turn, missing: int = 0) -> Iterator[Timed[T]]:
        """Take a picture in the order of decoding; gives those whose times are known now.

        Args:
            item: the picture.
            turn: its place.
            missing: pictures lost since the last one taken; where counting begins again, time is
                left for them.
        """
        self._waiting.append((item, turn, missing))
        if len(self._waiting) > AHEAD:
            yield self._settle()

    def finish(self) -> Iterator[Timed[T]]:
        """Give the rest."""
        while self._waiting:
            yield self._settle()

    def _settle(self) -> Timed[T]:
        item, turn, missing = self._waiting[0]
        run = turn.run
        if run != self._run:
            self._run = run
            self._base = self._next + missing - min(self._steps(run), default=0)
            self.left_open += missing
        pts = (
            max(self._next, self._base) if turn.poc is None else self._base + turn.poc // self._step
        )
        lowest = pts if turn.poc is None else self._base + min(self._steps(run))
        self._waiting.popleft()
        dts = lowest - self._reorder
        if self._last_dts is not None:
            dts = max(dts, self._last_dts + 1)
        if dts > pts:
            self.moved += 1
            pts = dts
        self._last_dts = dts
        self._next = max(self._next, pts + 1)
        return Timed(item, dts, pts)

    def _steps(self, run: int) -> Iterator[int]:
        for _, turn, _ in self._waiting:
            if turn.run != run:
                return
            if turn.poc is not None:
                yield turn.poc // self._step


def reorder_of(turns: list[Turn], step: int) -> int:
    """Give how many pictures are decoded before one that is shown earlier, at most."""
    most = 0
    ranks = _ranks(turns, lambda turn: (turn.run, (turn.poc or 0) // max(1, step)))
    for index, rank in enumerate(ranks):
        most = max(most, index - rank)
    return most


def _ranks(turns: list[Turn], key: Callable[[Turn], tuple[int, int]]) -> list[int]:
    order = sorted(range(len(turns)), key=lambda index: key(turns[index]))
    ranks = [0] * len(turns)
    for rank, index in enumerate(order):
        ranks[index] = rank
    return ranks
