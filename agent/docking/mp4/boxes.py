"""Boxes of an MP4 (ISO/IEC 14496-12): where the pictures of a broken one may lie."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent.docking.mp4.source import Source

HEAD_BYTES = 8
_LONG_HEAD_BYTES = 16
_LARGEST_HEAD = 4096  # bytes of a file type box: one that says more was damaged
MOST_BOXES = 1_000_000  # outermost ones
_PLAIN = {b"free", b"skip", b"wide", b"uuid", b"udta", b"sidx", b"styp", b"pdin", b"meta", b"mfra"}
_INDEX = {b"moov", b"moof"}
_KNOWN = _PLAIN | _INDEX | {b"ftyp", b"mdat"}

Span = tuple[int, int]
"""First byte, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box by its place in the file, as its head tells it."""

    letters: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What the outermost boxes of a file tell."""

    has_type: bool  # begins as an MP4 does
    has_index: bool  # a whole moov
    is_whole: bool  # the boxes end where the file does
    is_cut: bool  # the last one reaches beyond the file
    media: tuple[Span, ...]  # where pictures may lie


def layout(source: Source) -> Layout:
    """Walk the outermost boxes as far as they can be believed; the rest may be pictures."""
    spans: list[Span] = []
    seen: set[bytes] = set()
    place, reached, end = 0, 0, source.size_bytes
    for _ in range(MOST_BOXES):
        box = read_box(source, place, end) if place < end else None
        reached = box.end if box is not None and box.letters in _KNOWN else reached
        if box is None or not _is_believed(box, end):
            break
        seen.add(box.letters)
        if box.letters == b"mdat":
            spans.append((box.body, min(box.end, end)))
        place = min(box.end, end)
    is_whole = place == end and reached <= end
    if place < end and not _is_cut_index(source, place, end):
        spans.append((place, end))
    return Layout(b"ftyp" in seen, b"moov" in seen, is_whole, reached > end, tuple(_joined(spans)))


def read_box(source: Source, place: int, end: int) -> Box | None:
    """Read the head of a box; None if there is none. Size 0 reaches to the end."""
    head = source.read(place, _LONG_HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        return None
    size, letters, body = int.from_bytes(head[:4], "big"), head[4:8], place + HEAD_BYTES
    if size == 1 and len(head) == _LONG_HEAD_BYTES:
        size, body = int.from_bytes(head[8:], "big"), place + _LONG_HEAD_BYTES
        if size == 0:
            return Box(letters, place, body, end)
    if size == 0:
        return Box(letters, place, body, end)
    if place + size < body:  # a recorder that dies has not written the size yet
        return Box(letters, place, body, end) if letters == b"mdat" else None
    return Box(letters, place, body, place + size)


def children(data: bytes, place: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Give letters and body of every box in bytes, as far as they are whole."""
    while place + HEAD_BYTES <= len(data):
        size, letters = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        body = place + HEAD_BYTES
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        if size == 0:
            size = len(data) - place
        if size < body - place or place + size > len(data):
            return
        yield letters, data[body : place + size]
        place += size


def child(data: bytes, *path: bytes) -> bytes | None:
    """Give the body of the first box of a path of letters."""
    for letters in path:
        found = next((body for name, body in children(data) if name == letters), None)
        if found is None:
            return None
        data = found
    return data


def made(letters: bytes, *parts: bytes) -> bytes:
    """Give a box around bytes."""
    body = b"".join(parts)
    return (HEAD_BYTES + len(body)).to_bytes(4, "big") + letters + body


def _is_believed(box: Box, end: int) -> bool:
    if box.letters not in _KNOWN:
        return False
    if box.letters == b"ftyp":
        return box.end - box.start <= _LARGEST_HEAD
    return box.letters == b"mdat" or box.end <= end


def _is_cut_index(source: Source, place: int, end: int) -> bool:
    box = read_box(source, place, end)
    return box is not None and box.letters in _INDEX and _begins_index(source, box)


def _begins_index(source: Source, box: Box) -> bool:
    return source.read(box.body + 4, 4) in (b"mvhd", b"mfhd", b"")


def _joined(spans: list[Span]) -> Iterator[Span]:
    held: Span | None = None
    for span in spans:
        if held is not None and span[0] <= held[1]:
            held = (held[0], max(held[1], span[1]))
            continue
        if held is not None:
            yield held
        held = span
    if held is not None:
        yield held
