"""The readable head of a fragmented MP4 whose tail is damaged.

A damaged fragment header makes players refuse the whole file, its good fragments included. What
stands before it is found by the lengths of the boxes (ISO/IEC 14496-12, 4.2) and by trying.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import av.error

_HEADER_BYTES = 8
_LARGE_HEADER_BYTES = 16
_MEDIA = b"mdat"
_KINDS = frozenset({b"ftyp", b"moov", b"moof", _MEDIA, b"free", b"sidx", b"styp"})


def readable_end(path: Path) -> int:
    """Give how many bytes at the head of a file can be opened and end with whole media; 0: none.

    Raises:
        OSError: the disk refuses.
    """
    for end in reversed(list(_ends(path))):
        if _can_be_opened(path, end):
            return end
    return 0


class Head:
    """The first bytes of a file, as a file of their own; to be closed by whoever opened it."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._stream = path.open("rb")
        self._size_bytes = size_bytes

    def read(self, count: int = -1) -> bytes:
        """Give bytes, none beyond the end."""
        left = max(0, self._size_bytes - self._stream.tell())
        return self._stream.read(left if count < 0 else min(count, left))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; the end is that of the head."""
        if whence == os.SEEK_END:
            return self._stream.seek(self._size_bytes + offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Give the place of the next byte."""
        return self._stream.tell()

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()


def _ends(path: Path) -> Iterator[int]:
    """Give the places where a box of media ends, as far as the boxes follow each other."""
    size_bytes = path.stat().st_size
    place = 0
    with path.open("rb") as stream:
        while place + _HEADER_BYTES <= size_bytes:
            stream.seek(place)
            header = stream.read(_LARGE_HEADER_BYTES)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:], "big")
            if kind not in _KINDS or length < _HEADER_BYTES or place + length > size_bytes:
                return
            place += length
            if kind == _MEDIA:
                yield place


def _can_be_opened(path: Path, end: int) -> bool:
    head = Head(path, end)
    try:
        with av.open(head, "r", format="mp4", options={"skip_frame": "all"}) as container:
            return any(packet.size for packet in container.demux(video=0))
    except (av.error.FFmpegError, OSError, IndexError):
        return False
    finally:
        head.close()
