"""The recording loop: the oldest segments go when space or days run out, each with a record."""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.store import Store
from agent.vision import room
from agent.vision.config import RecordConfig
from agent.vision.recovery import Custody

EVERY_S = 30.0
NS_PER_DAY = 86_400 * NS_PER_S
BYTES_PER_GB = 1_000_000_000
MOST_PRE_ROLL_S = 60.0  # of any rule

_PIECES = """
    SELECT id, camera, start_utc_ns, end_utc_ns, size_bytes FROM segment
    WHERE state IN ('closed', 'recovered')
"""
_PROTECTIONS = """
    SELECT camera, start_utc_ns, end_utc_ns FROM clip WHERE state = 'wanted'
    UNION ALL
    SELECT camera, start_utc_ns - CAST(
        1e9 * coalesce(CASE WHEN json_valid(body) THEN json_extract(body, '$.event.pre_s') END, ?)
        AS INTEGER), ?
    FROM event WHERE state = 'open'
"""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment, as the decision sees it."""

    segment_id: int
    camera: str
    start_utc_ns: int
    end_utc_ns: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Protection:
    """A span of a camera that a clip still needs."""

    camera: str
    start_utc_ns: int
    end_utc_ns: int


def choose(
    pieces: Iterable[Piece], protections: Sequence[Protection], max_bytes: int, oldest_utc_ns: int
) -> tuple[Piece, ...]:
    """Say which segments go, oldest first; never one that overlaps a protection. Pure.

    Args:
        pieces: all segments that are closed.
        protections: what clips and open events still need.
        max_bytes: what may stay, all cameras together.
        oldest_utc_ns: what ended before goes in any case.
    """
    ordered = sorted(pieces, key=lambda piece: (piece.start_utc_ns, piece.segment_id))
    total_bytes = sum(piece.size_bytes for piece in ordered)
    gone = []
    for piece in ordered:
        is_due = total_bytes > max_bytes or piece.end_utc_ns < oldest_utc_ns
        if is_due and not any(_overlap(piece, held) for held in protections):
            gone.append(piece)
            total_bytes -= piece.size_bytes
    return tuple(gone)


class RecordingLoop:
    """Worker that keeps recordings within their share of the disk."""

    name = "recording-loop"

    def __init__(  # the parts of one box, wired by the role
        self, store: Store, state_dir: Path, clock: Clock, config: RecordConfig, custody: Custody
    ) -> None:
        self._store = store
        self._state_dir = state_dir
        self._clock = clock
        self._config = config
        self._custody = custody

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Look every half minute until `stop`."""
        while not stop.is_set():
            self.tidy()
            for _ in range(int(EVERY_S)):
                progress()
                if self._clock.wait(stop, 1.0):
                    break

    def tidy(self) -> int:
        """Delete what is due now; gives how many segments went."""
        now_utc_ns = self._clock.utc_ns()
        with self._store.reading() as connection:
            pieces = [Piece(*row) for row in connection.execute(_PIECES)]
            held = connection.execute(_PROTECTIONS, (MOST_PRE_ROLL_S, now_utc_ns))
            protections = [Protection(*row) for row in held]
        gone = choose(
            pieces,
            protections,
            self._most_bytes(pieces),
            now_utc_ns - self._config.keep_days * NS_PER_DAY,
        )
        for piece in gone:
            self._delete(piece)
        return len(gone)

    def _most_bytes(self, pieces: Iterable[Piece]) -> int:
        """Give what may stay: the configured share, or less where the disk is nearly full."""
        disk = room.of(self._state_dir)
        held_bytes = sum(piece.size_bytes for piece in pieces)
        fits_bytes = max(0, held_bytes + disk.free_bytes - disk.reserve_bytes)
        return min(round(self._config.keep_max_gb * BYTES_PER_GB), fits_bytes)

    def _delete(self, piece: Piece) -> None:
        path = self._store.write(lambda connection: self._forget(connection, piece))
        (self._state_dir / path).unlink(missing_ok=True)

    def _forget(self, connection: sqlite3.Connection, piece: Piece) -> str:
        row = connection.execute(
            "SELECT path, sha256 FROM segment WHERE id = ?", (piece.segment_id,)
        ).fetchone()
        connection.execute("DELETE FROM segment WHERE id = ?", (piece.segment_id,))
        detail = {
            "reason": "recording loop",
            "sha256": row["sha256"],
            "size_bytes": piece.size_bytes,
            "start_utc_ms": piece.start_utc_ns // 1_000_000,
        }
        self._custody(connection, "segment.deleted", row["path"], detail)
        return str(row["path"])


def _overlap(piece: Piece, held: Protection) -> bool:
    return (
        piece.camera == held.camera
        and piece.start_utc_ns <= held.end_utc_ns
        and piece.end_utc_ns >= held.start_utc_ns
    )
