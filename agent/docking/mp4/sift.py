"""Pictures found in bytes that no index speaks of.

Every camera writes NAL units with their length before them, picture after picture, sound between.
A place is taken for one if length, header and the beginning of the slice are as the good clip of
the same model has them, and nothing stands in it that no NAL unit holds. After anything else, the
next place of that kind is looked for byte by byte.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from agent.docking.mp4.bits import Implausible
from agent.docking.mp4.boxes import Span
from agent.docking.mp4.coded import HEAD_BYTES, Codec, Slice
from agent.docking.mp4.modelheader import ModelHeader
from agent.docking.mp4.nals import LENGTH_BYTES, first_forbidden
from agent.docking.mp4.source import Source

_MOST_NAL_BYTES = 16 << 20
_SLICE_TIMES, _LEAST_SLICE_BYTES = 8, 256 << 10  # a quiet good clip says little of a busy one
_OTHER_TIMES, _LEAST_OTHER_BYTES = 3, 4 << 10
_MOST_PICTURE_BYTES = 64 << 20
_FIRST_LOOK_BYTES = 256
_FORBIDDEN_BYTES = 3
_ZEROS_BYTES = 8
_NOWHERE = (1, 0)  # looked from, first one from there


@dataclass(frozen=True, slots=True)
class Picture:
    """A coded picture, whole, by its place in the file."""

    start: int
    end: int
    head: Slice
    slices: int


@dataclass(frozen=True, slots=True)
class _Unit:
    start: int
    end: int
    kind: int
    name: str
    head: Slice | None


class Sifter:
    """Finds pictures in a file; memory does not grow with it."""

    def __init__(self, source: Source, header: ModelHeader) -> None:
        self._source = source
        self._header = header
        self._codec = header.reader()
        self._most = {
            bytes.fromhex(name): _most(self._codec, bytes.fromhex(name), size)
            for name, size in header.largest_bytes.items()
        }
        names = b"|".join(re.escape(name) for name in sorted(self._most))
        self._pattern = re.compile(rb"(?s)\x00.{3}(?:" + names + rb")")
        self._reach = LENGTH_BYTES + self._codec.header_bytes
        self._forbidden = _NOWHERE
        self._sizes_px: Counter[tuple[int, int]] = Counter()

    def pictures(self, span: Span) -> Iterator[Picture]:
        """Give the pictures of a span, in the order of the file."""
        held: list[_Unit] = []
        for unit in self._units(span):
            if held and not self._continues(held, unit):
                yield from self._picture(held)
                held = []
            if held or self._begins(unit):
                held.append(unit)
        yield from self._picture(held)

    def _units(self, span: Span) -> Iterator[_Unit]:
        place, end = span
        while place < end:
            unit = self._unit(place, end)
            if unit is None:
                place = self._source.find(self._pattern, place + 1, end, self._reach)
                continue
            yield unit
            place = unit.end

    def begins_within(self, place: int, reach: int, end: int) -> bool:
        """Whether what may be a NAL unit, or nothing but zeros, begins there or soon after.

        A picture that neither is followed by that nor ends the file was not written as it stands.
        """
        if not any(self._source.read(place, _ZEROS_BYTES)):
            return True
        stop = min(place + reach + self._reach, end)
        while place < stop:
            if self._start(place) is not None:
                return True
            place = self._source.find(self._pattern, place + 1, stop, self._reach)
        return place >= end

    def _unit(self, place: int, end: int) -> _Unit | None:
        unit = self._start(place)
        if unit is None or unit.end > end:
            return None
        if self._header.is_clean and not self._is_clean(place + LENGTH_BYTES, unit.end):
            return None
        if unit.head is None and not self._is_parameters(unit):
            return None
        return unit

    def _start(self, place: int) -> _Unit | None:
        look = self._source.read(place, LENGTH_BYTES + HEAD_BYTES)
        size = int.from_bytes(look[:LENGTH_BYTES], "big")
        nal = look[LENGTH_BYTES : LENGTH_BYTES + size]
        name = nal[: self._codec.header_bytes]
        if not len(name) < size <= self._most.get(name, 0):
            return None
        kind, head = self._codec.kind(nal), None
        if self._codec.is_slice(kind):
            try:
                head = self._codec.read(nal)
            except Implausible:
                return None
        return _Unit(place, place + LENGTH_BYTES + size, kind, name.hex(), head)

    def _is_parameters(self, unit: _Unit) -> bool:
        """Whether a unit that is no slice may be what it says; notes a size that it tells."""
        count = min(unit.end - unit.start - LENGTH_BYTES, _LEAST_OTHER_BYTES)
        try:
            told = self._codec.told_size(self._source.read(unit.start + LENGTH_BYTES, count))
        except Implausible:
            return False
        if told is not None:
            self._sizes_px[told] += 1
        return True

    @property
    def told_size_px(self) -> tuple[int, int] | None:
        """Give the size that most parameter sets among the pictures tell."""
        return self._sizes_px.most_common(1)[0][0] if self._sizes_px else None

    def _is_clean(self, start: int, stop: int) -> bool:
        """Whether nothing forbidden stands there; what was found is kept: no byte is read often."""
        looked_from, first = self._forbidden
        if not looked_from <= start <= first:
            first = self._next_forbidden(start, stop)
            self._forbidden = (start, first) if first < stop else _NOWHERE
        return first + _FORBIDDEN_BYTES > stop and self._source.read(stop - 1, 1) != b"\0"

    def _next_forbidden(self, place: int, stop: int) -> int:
        step = _FIRST_LOOK_BYTES
        while place < stop:
            data = self._source.read(place, min(step, stop - place))
            found = first_forbidden(data)
            if found < len(data):
                return place + found
            if place + len(data) >= stop or len(data) < _FORBIDDEN_BYTES:
                break
            place += len(data) - _FORBIDDEN_BYTES + 1
            step *= 2
        return stop

    def _begins(self, unit: _Unit) -> bool:
        is_start = unit.name in self._header.starters
        return is_start and (unit.head is None or unit.head.is_first)

    def _continues(self, held: list[_Unit], unit: _Unit) -> bool:
        """Whether a unit belongs to the picture that is held."""
        if unit.start != held[-1].end or unit.end - held[0].start > _MOST_PICTURE_BYTES:
            return False
        has_slices = any(one.head is not None for one in held)
        if not has_slices:
            return unit.head is None or unit.head.is_first
        if unit.head is not None:
            return not unit.head.is_first
        return self._codec.ends_picture(unit.kind)

    def _picture(self, held: list[_Unit]) -> Iterator[Picture]:
        heads = [unit.head for unit in held if unit.head is not None]
        if heads and len(heads) >= self._header.least_slices:
            yield Picture(held[0].start, held[-1].end, heads[0], len(heads))


def _most(codec: Codec, name: bytes, seen_bytes: int) -> int:
    """Give how large a NAL unit may be, by the largest one of the good clip."""
    if codec.is_slice(codec.kind(name)):
        most = max(_SLICE_TIMES * seen_bytes, _LEAST_SLICE_BYTES)
    else:
        most = max(_OTHER_TIMES * seen_bytes, _LEAST_OTHER_BYTES)
    return min(most, _MOST_NAL_BYTES)
