"""Which bytes of a file are there: sorted, disjoint [from, to) pairs. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Span = tuple[int, int]


class Ranges:
    """A set of byte positions."""

    def __init__(self, spans: Iterable[Iterable[int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self.add(start, end)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The pairs in order."""
        return tuple(zip(self._starts, self._ends, strict=True))

    @property
    def size_bytes(self) -> int:
        """How many bytes are there."""
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        """Add [start, end); touching pairs become one."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        after = bisect_right(self._starts, end)
        if first < after:
            start = min(start, self._starts[first])
            end = max(end, self._ends[after - 1])
        self._starts[first:after] = [start]
        self._ends[first:after] = [end]

    def missing(self, size_bytes: int, limit: int) -> tuple[Span, ...]:
        """Give the first `limit` pairs that a file of this size still lacks."""
        found: list[Span] = []
        at = 0
        for start, end in self.spans:
            if at >= size_bytes or len(found) == limit:
                break
            if start > at:
                found.append((at, min(start, size_bytes)))
            at = end
        if at < size_bytes:
            found.append((at, size_bytes))
        return tuple(found[:limit])
