"""Reading a tlog: 8 bytes of the logger's microseconds since 1970, big-endian, then a raw frame.

A place that is damaged is passed over and counted; a frame whose end was never written is told.
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pymavlink.dialects.v20 import ardupilotmega

from agent.core.errors import ConfigError
from agent.core.vehicle import Heard

STAMP_BYTES = 8
MAGIC_1, MAGIC_2 = 0xFE, 0xFD
AROUND_1, AROUND_2 = 8, 12  # bytes of a frame besides its payload
SIGNED, SIGNATURE_BYTES = 1, 13
LONGEST_BYTES = STAMP_BYTES + AROUND_2 + 255 + SIGNATURE_BYTES
EARLIEST_US, LATEST_US = 946_684_800_000_000, 4_102_444_800_000_000  # 2000 to 2100
NS_PER_US = 1_000
CHUNK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(slots=True)
class Counts:
    """What a reading found."""

    messages: int = 0
    unknown: int = 0  # whole frames of messages that no definition of ours has
    bad_places: int = 0
    bad_bytes: int = 0
    torn_bytes: int = 0  # of a last frame that was never finished


def read(path: Path, counts: Counts) -> Iterator[Heard]:
    """Give the messages of a tlog, also of a gzipped one.

    Args:
        path: of the file.
        counts: is filled while messages are taken.

    Raises:
        ConfigError: there is no such file, it cannot be read, or nothing in it is a tlog.
    """
    try:
        with _opened(path) as file:
            yield from _Reader(file, counts).messages()
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if counts.bad_bytes and not counts.messages:
        raise ConfigError(f"{path}: no tlog: not one whole MAVLink frame in it")


def _opened(path: Path) -> Any:
    with path.open("rb") as file:
        is_gzip = file.read(2) == GZIP_MAGIC
    return gzip.open(path) if is_gzip else path.open("rb")


class _Reader:
    def __init__(self, file: BinaryIO, counts: Counts) -> None:
        self._file = file
        self._counts = counts
        self._decoder = ardupilotmega.MAVLink(None)
        self._buffer = bytearray()
        self._at = 0
        self._latest_ns = 0
        self._is_lost = False
        self._torn_bytes = 0
        self._error = ardupilotmega.MAVError
        self._known = ardupilotmega.mavlink_map

    def messages(self) -> Iterator[Heard]:
        while self._fill():
            size = self._frame_bytes()
            if size is None:
                self._pass_over()
            elif self._at + STAMP_BYTES + size > len(self._buffer):
                self._tear()
            else:
                found = self._decoded(size)
                if found is not None:
                    yield found
        self._end()

    def _tear(self) -> None:
        """A frame reaches beyond the end: the file was cut, unless a whole one follows."""
        if not self._is_lost:
            self._torn_bytes = len(self._buffer) - self._at
        self._pass_over()

    def _end(self) -> None:
        counts, rest = self._counts, len(self._buffer) - self._at
        if self._torn_bytes or not self._is_lost:
            counts.torn_bytes = self._torn_bytes or rest
            counts.bad_bytes -= max(0, self._torn_bytes - rest)
            counts.bad_places -= bool(self._torn_bytes)
        else:
            counts.bad_bytes += rest

    def _fill(self) -> bool:
        """Have a whole record in the buffer, if the file has one; False: nothing is left."""
        if len(self._buffer) - self._at < LONGEST_BYTES:
            del self._buffer[: self._at]
            self._at = 0
            self._buffer += self._file.read(CHUNK_BYTES)
        return len(self._buffer) - self._at > STAMP_BYTES + 1

    def _frame_bytes(self) -> int | None:
        """Give the length of the frame that begins here; None: no record begins here."""
        stamp_us = int.from_bytes(self._buffer[self._at : self._at + STAMP_BYTES], "big")
        if not EARLIEST_US < stamp_us < LATEST_US:
            return None
        start = self._at + STAMP_BYTES
        magic, payload_bytes = self._buffer[start], self._buffer[start + 1]
        if magic == MAGIC_1:
            return payload_bytes + AROUND_1
        if magic != MAGIC_2:
            return None
        is_signed = len(self._buffer) > start + 2 and self._buffer[start + 2] & SIGNED
        return payload_bytes + AROUND_2 + (SIGNATURE_BYTES if is_signed else 0)

    def _decoded(self, size: int) -> Heard | None:
        start = self._at + STAMP_BYTES
        raw = self._buffer[start : start + size]
        if self._id_of(raw) not in self._known:
            self._step_over(size)
            return None
        try:
            said = self._decoder.decode(raw)
        except self._error:
            self._pass_over()
            return None
        stamp_us = int.from_bytes(self._buffer[self._at : start], "big")
        self._at = start + size
        self._is_lost, self._torn_bytes = False, 0
        self._counts.messages += 1
        utc_ns = stamp_us * NS_PER_US
        self._latest_ns = max(self._latest_ns, utc_ns)
        return Heard(
            "",
            said.get_type(),
            said.get_srcSystem(),
            said.get_srcComponent(),
            said,
            utc_ns,
            self._latest_ns,
            said.get_seq(),
        )

    def _step_over(self, size: int) -> None:
        """Step over a frame that cannot be checked, if a record begins behind it."""
        start = self._at
        self._at += STAMP_BYTES + size
        is_end = len(self._buffer) - self._at <= STAMP_BYTES + 1
        if is_end or self._frame_bytes() is not None:
            self._counts.unknown += 1
            self._is_lost, self._torn_bytes = False, 0
            return
        self._at = start
        self._pass_over()

    def _pass_over(self) -> None:
        if not self._is_lost:
            self._counts.bad_places += 1
            self._is_lost = True
        self._counts.bad_bytes += 1
        self._at += 1

    def _id_of(self, raw: bytearray) -> int:
        return raw[5] if raw[0] == MAGIC_1 else int.from_bytes(raw[7:10], "little")
