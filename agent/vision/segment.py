"""One file of continuous recording and its row: open before the first byte, closed after the sync.

The file is a fragmented MP4 while it grows, readable up to the last group of pictures whatever
happens, and becomes an ordinary seekable MP4 when it is closed.
"""

import contextlib
import hashlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent.core.clock import NS_PER_MS, NS_PER_S
from agent.core.errors import StorageError
from agent.core.files import sync_directory
from agent.core.model import Packet
from agent.core.store import Store
from agent.vision.disks import Disks, Folder
from agent.vision.remux import GopFile, Muxer, Template

MOVFLAGS = "hybrid_fragmented+frag_keyframe"
FOLDER = "segments"
GOLDEN = 0.6180339887498949
TOLERANCE_NS = 20 * NS_PER_MS  # a start that is wrong by less stays until the file is closed

_INSERT = """
    INSERT INTO segment (camera, run, folder, path, state, start_utc_ns, end_utc_ns, first_dts,
        last_dts, time_base_num, time_base_den, camera_offset_ns, codec, width_px, height_px,
        extradata)
    VALUES (?, ?, ?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_GAP = """
    INSERT INTO gap (camera, from_utc_ns, to_utc_ns, packets, reason) VALUES (?, ?, ?, ?, ?)
"""
_START = "UPDATE segment SET start_utc_ns = ?, end_utc_ns = ? WHERE id = ?"
_CLOSE = """
    UPDATE segment SET state = 'closed', start_utc_ns = ?, end_utc_ns = ?, last_dts = ?,
        packets = ?, camera_offset_ns = coalesce(?, camera_offset_ns), size_bytes = ?, sha256 = ?
    WHERE id = ?
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a camera's segments go."""

    camera: str
    store: Store
    disks: Disks
    turn: float = 0.0  # share of a segment by which this camera's cuts come after the others'


def turn_of(number: int) -> float:
    """Give the turn of the camera with this number, from 0.

    Multiples of the golden ratio: however many cameras there are, their cuts lie well apart.
    """
    return number * GOLDEN % 1


@dataclass(frozen=True, slots=True)
class Gap:
    """Time that was not recorded, and why."""

    from_utc_ns: int
    to_utc_ns: int
    packets: int  # left out, where that is known
    reason: str


def note_gap(connection: sqlite3.Connection, camera: str, gap: Gap) -> None:
    """Add a gap's row inside a transaction."""
    values = (camera, gap.from_utc_ns, gap.to_utc_ns, gap.packets, gap.reason)
    connection.execute(_GAP, values)


class SegmentWriter:
    """Writes one segment; used by the writer thread alone."""

    def __init__(self, place: Place, folder: Folder, template: Template, first: Packet) -> None:
        self.has_row = False
        self.folder = folder
        self._place = place
        self._template = template
        self._first = first
        self._last = first
        name = f"{first.utc_ns // 1_000_000:013d}-{first.run}.mp4"
        self._path = Path(FOLDER) / place.camera / name
        self._row_id = 0
        self._told_start_utc_ns = first.utc_ns
        self._stream: BinaryIO | None = None
        self._file: GopFile | None = None
        self._muxer: Muxer | None = None

    @property
    def start_utc_ns(self) -> int:
        """Evidence time of its first packet, as it was when that came."""
        return self._first.utc_ns

    @property
    def last_dts(self) -> int:
        """Of the newest packet that it took."""
        return self._last.dts

    @property
    def parameter_sets(self) -> bytes:
        """Of the stream that it was begun for."""
        return self._template.parameter_sets

    def open(self, gap: Gap | None = None) -> None:
        """Make the file, write its row, and begin; a refusal leaves neither row nor file.

        Args:
            gap: time that was lost before it, noted with the row: once, however often the disk
                refuses.

        Raises:
            StorageError, OSError: the disk refuses.
        """
        path = self.folder.path / self._path
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("xb", buffering=0)
        try:
            self._row_id = self._place.store.write(lambda connection: self._insert(connection, gap))
        except StorageError:
            stream.close()
            path.unlink()
            raise
        self.has_row = True
        self._stream = stream
        self._file = GopFile(stream, lambda: os.fdatasync(stream.fileno()))
        try:
            self._muxer = Muxer(self._file, self._template, self._first, MOVFLAGS)
            sync_directory(path.parent)
        except (StorageError, OSError):
            self.abandon()
            raise

    def add(self, packet: Packet) -> None:
        """Take a packet; a finished group of pictures goes to the disk in one write and sync."""
        if self._muxer is None or self._file is None:
            raise ValueError(f"segment {self._path}: not open")
        pending_bytes = self._file.pending_bytes
        if self._muxer.add(packet):
            self._last = packet
        has_more = self._file.pending_bytes > pending_bytes
        if has_more and self._muxer.packets > 1:  # the first bytes of the head are worth no sync
            self._file.flush()
            self._correct_start()

    def close(self) -> None:
        """Finish the file, sync it, and then say so in its row."""
        if self._muxer is None or self._stream is None or self._file is None:
            return
        muxer = self._muxer
        try:
            muxer.close()
            self._file.flush()
        except (StorageError, OSError):
            self.abandon()
            raise
        self._muxer = None
        self._stream.close()
        path = self.folder.path / self._path
        sync_directory(path.parent)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            size_bytes = stream.tell()
        # The newest packet tells the time: a camera's first ones come in a burst, late by up to
        # a group of pictures.
        offset_ns = _camera_offset_ns(self._last)
        start_utc_ns, end_utc_ns = self._span_utc_ns()
        times = (start_utc_ns, end_utc_ns, self._last.dts)
        values = (*times, muxer.packets, offset_ns, size_bytes)
        self._place.store.write(
            lambda connection: connection.execute(_CLOSE, (*values, sha256, self._row_id)).rowcount
        )

    def abandon(self) -> None:
        """Let go of the file after the disk refused; recovery reads what is there."""
        muxer, self._muxer = self._muxer, None
        if self._file is not None:
            self._file.forget()
        if muxer is not None:
            with contextlib.suppress(StorageError, OSError):  # told before, by what failed
                muxer.close()
        if self._stream is not None:
            self._stream.close()

    def _correct_start(self) -> None:
        """Mend the row of a file that began in a burst, so that it is right should we be killed."""
        start_utc_ns, _ = self._span_utc_ns()
        if self._told_start_utc_ns - start_utc_ns < TOLERANCE_NS:
            return
        values = (start_utc_ns, start_utc_ns, self._row_id)
        self._place.store.write(lambda connection: connection.execute(_START, values).rowcount)
        self._told_start_utc_ns = start_utc_ns

    def _span_utc_ns(self) -> tuple[int, int]:
        span = (self._last.dts - self._first.dts) * self._first.time_base
        span_ns = int(span * NS_PER_S)
        start_utc_ns = min(self._first.utc_ns, self._last.utc_ns - span_ns)
        return start_utc_ns, start_utc_ns + span_ns

    def _insert(self, connection: sqlite3.Connection, gap: Gap | None) -> int:
        if gap is not None:
            note_gap(connection, self._place.camera, gap)
        first, template = self._first, self._template
        offset_ns = _camera_offset_ns(first)
        cursor = connection.execute(
            _INSERT,
            (
                *(self._place.camera, first.run, self.folder.folder_id, str(self._path)),
                *(first.utc_ns, first.utc_ns),
                *(first.dts, first.dts, first.time_base.numerator, first.time_base.denominator),
                *(offset_ns, template.codec, template.width_px, template.height_px),
                template.parameter_sets,
            ),
        )
        return int(cursor.lastrowid or 0)


def _camera_offset_ns(packet: Packet) -> int | None:
    return None if packet.camera_utc_ns is None else packet.camera_utc_ns - packet.utc_ns
