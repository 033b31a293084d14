"""The recording loop: the oldest segments go when space or days run out; each run is on record.

It works in runs: when something must go, a little more goes with it, so that the custody log grows
by an entry an hour or a minute and not by one a file.
"""

import hashlib
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.store import Store
from agent.vision import aside, garbage, recovery, room
from agent.vision.config import RecordConfig
from agent.vision.disks import Disks, Folder
from agent.vision.recovery import Custody
from agent.vision.steady import Steadiness
from agent.vision.stock import Allowance

EVERY_S = 30.0
ASIDE_EVERY_NS = 3600 * NS_PER_S
NS_PER_DAY = 86_400 * NS_PER_S
SET_NS = aside.SET_NS
LATE_NS = 600 * NS_PER_S  # what is too old waits so long for others, to go in one run
BYTES_PER_GB = 1_000_000_000
SPARE_SHARE = 0.01  # of what may stay: so much more goes when something must
MOST_PRE_ROLL_S = 60.0  # of any rule
RUN_PIECES = 500  # in one transaction

_PIECES = """
    SELECT id, camera, start_utc_ns, end_utc_ns, size_bytes, folder, path, sha256 FROM segment
    WHERE state IN ('closed', 'recovered')
"""
_SUMS = """
    SELECT folder, sum(size_bytes) AS size_bytes,
        min(CASE WHEN end_utc_ns > ? THEN end_utc_ns END) AS first_end
    FROM segment WHERE state IN ('closed', 'recovered') GROUP BY folder
"""
_SEALED = """
    SELECT camera, start_utc_ns, end_utc_ns FROM clip WHERE state = 'sealed' AND refused = ''
"""
_PROTECTIONS = """
    SELECT camera, start_utc_ns, end_utc_ns FROM clip WHERE state = 'wanted' AND refused = ''
    UNION ALL
    SELECT camera, start_utc_ns, end_utc_ns FROM hold
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
    folder_id: str = ""
    path: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Protection:
    """A span of a camera that must stay: a clip, an open event or a hold needs it."""

    camera: str
    start_utc_ns: int
    end_utc_ns: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may stay."""

    max_bytes: int
    oldest_utc_ns: int = 0  # what ended before goes in any case
    max_files: int = sys.maxsize
    spare_bytes: int = 0  # more that goes once something must


def choose(
    pieces: Iterable[Piece], protections: Sequence[Protection], bounds: Bounds
) -> tuple[Piece, ...]:
    """Say which segments go, oldest first; never one that overlaps a protection. Pure."""
    # By number, not by time: they were recorded in this order whatever the clock said.
    ordered = sorted(pieces, key=lambda piece: piece.segment_id)
    total_bytes, files = sum(piece.size_bytes for piece in ordered), len(ordered)
    has_spare = total_bytes <= bounds.max_bytes
    most_bytes = bounds.max_bytes if has_spare else bounds.max_bytes - bounds.spare_bytes
    gone = []
    for piece in ordered:
        is_over = total_bytes > most_bytes or files > bounds.max_files
        is_due = is_over or SET_NS < piece.end_utc_ns < bounds.oldest_utc_ns
        if is_due and not any(_overlap(piece, held) for held in protections):
            gone.append(piece)
            total_bytes -= piece.size_bytes
            files -= 1
    return tuple(gone)


class RecordingLoop:
    """Worker that keeps recordings within their share of the disks, and what is set aside."""

    name = "recording-loop"

    def __init__(  # the parts of one box, wired by the role
        self,
        store: Store,
        disks: Disks,
        clock: Clock,
        config: RecordConfig,
        custody: Custody,
        allowance: Callable[[], Allowance | None] = lambda: None,
    ) -> None:
        self.aside = aside.Aside()
        self._store = store
        self._disks = disks
        self._clock = clock
        self._config = config
        self._custody = custody
        self._allowance = allowance
        self._aside_ns: int | None = None
        self._present: frozenset[str] | None = None
        self._steadiness = Steadiness(clock)

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Look every half minute until `stop`."""
        while not stop.is_set():
            self.tidy(progress)
            for _ in range(int(EVERY_S)):
                self._disks.check()
                progress()
                if self._clock.wait(stop, 1.0):
                    break

    def tidy(self, progress: Callable[[], None] = lambda: None) -> int:
        """Delete what is due now; gives how many segments went.

        Raises:
            StorageError: the database refuses.
        """
        folders = self._disks.present()
        self._welcome(folders)
        garbage.sweep(self._store, folders)
        gone = self._due(folders) if self._is_any_due(folders) else []
        for first in range(0, len(gone), RUN_PIECES):
            self._delete(folders, gone[first : first + RUN_PIECES])
            progress()
        self._tidy_aside(folders)
        return len(gone)

    def _welcome(self, folders: Sequence[Folder]) -> None:
        """Settle what a disk brings along that was away."""
        names = frozenset(folder.folder_id for folder in folders)
        if self._present is not None and names - self._present:
            recovery.settle_returned(self._store, self._disks, names - self._present, self._custody)
        self._present = names

    def _is_any_due(self, folders: Sequence[Folder]) -> bool:
        """Look at sums first: a disk of some terabytes has a million rows."""
        names = [folder.folder_id for folder in folders]
        with self._store.reading() as connection:
            rows = connection.execute(_SUMS, (SET_NS,)).fetchall()
        ours = [row for row in rows if row["folder"] in names]
        ends = [row["first_end"] for row in ours if row["first_end"] is not None]
        bounds = self._bounds(ends, self._clock.utc_ns())
        if sum(row["size_bytes"] for row in ours) > bounds.max_bytes:
            return True
        allowance = self._allowance()
        if allowance is not None:
            near = [row["size_bytes"] for row in ours if row["folder"] in allowance.folder_ids]
            if sum(near) > allowance.max_bytes:
                return True
        return any(end < bounds.oldest_utc_ns for end in ends) or any(
            _is_short(folder) for folder in folders
        )

    def _due(self, folders: Sequence[Folder]) -> list[Piece]:
        now_utc_ns = self._clock.utc_ns()
        names = {folder.folder_id for folder in folders}
        with self._store.reading() as connection:
            found = [Piece(*row) for row in connection.execute(_PIECES)]
            held = connection.execute(_PROTECTIONS, (MOST_PRE_ROLL_S, now_utc_ns))
            needed = [Protection(*row) for row in held]
            protections = needed + [Protection(*row) for row in connection.execute(_SEALED)]
        pieces = [piece for piece in found if piece.folder_id in names]
        ends = [piece.end_utc_ns for piece in pieces if piece.end_utc_ns > SET_NS]
        gone = list(choose(pieces, protections, self._bounds(ends, now_utc_ns)))
        for folder in folders:
            ours = [piece for piece in pieces if piece.folder_id == folder.folder_id]
            goes = [piece for piece in gone if piece.folder_id == folder.folder_id]
            rest = [piece for piece in ours if piece not in goes]
            going_bytes = sum(piece.size_bytes for piece in goes)
            bounds = _bounds_of_disk(folder, rest, going_bytes, len(goes))
            if bounds is not None:
                gone += choose(rest, protections, bounds)
        return [*gone, *self._beyond_allowance(pieces, gone, needed)]

    def _beyond_allowance(
        self, pieces: Sequence[Piece], gone: Sequence[Piece], needed: Sequence[Protection]
    ) -> tuple[Piece, ...]:
        """Give what makes way for clips on the disk that they share with recordings.

        What a sealed clip holds already goes too, rather than that a new clip is refused.
        """
        allowance = self._allowance()
        if allowance is None:
            return ()
        going = {piece.segment_id for piece in gone}
        rest = [
            piece
            for piece in pieces
            if piece.folder_id in allowance.folder_ids and piece.segment_id not in going
        ]
        spare_bytes = round(allowance.max_bytes * SPARE_SHARE)
        return choose(rest, needed, Bounds(allowance.max_bytes, spare_bytes=spare_bytes))

    def _bounds(self, ends_utc_ns: Iterable[int], now_utc_ns: int) -> Bounds:
        max_bytes = round(self._config.keep_max_gb * BYTES_PER_GB)
        oldest_utc_ns = now_utc_ns - self._config.keep_days * NS_PER_DAY
        if not self._steadiness.look():
            return Bounds(max_bytes, spare_bytes=round(max_bytes * SPARE_SHARE))
        first_utc_ns = min(ends_utc_ns, default=now_utc_ns)
        is_late = first_utc_ns < oldest_utc_ns - LATE_NS
        return Bounds(
            max_bytes,
            oldest_utc_ns if is_late else oldest_utc_ns - LATE_NS,
            spare_bytes=round(max_bytes * SPARE_SHARE),
        )

    def _delete(self, folders: Sequence[Folder], pieces: Sequence[Piece]) -> None:
        self._store.write(lambda connection: self._forget(connection, pieces))
        garbage.sweep(self._store, folders)

    def _forget(self, connection: sqlite3.Connection, pieces: Sequence[Piece]) -> None:
        ids = [(piece.segment_id,) for piece in pieces]
        paths = [(piece.folder_id, piece.path) for piece in pieces]
        connection.executemany("DELETE FROM segment WHERE id = ?", ids)
        garbage.note(connection, paths)
        listing = "".join(f"{piece.sha256}  {piece.path}\n" for piece in pieces)
        detail = {
            "reason": "recording loop",
            "segments": len(pieces),
            "size_bytes": sum(piece.size_bytes for piece in pieces),
            "listing_sha256": hashlib.sha256(listing.encode()).hexdigest(),
            "cameras": _spans(pieces),
        }
        self._custody(connection, "segments.deleted", "recordings", detail)

    def _tidy_aside(self, folders: Sequence[Folder]) -> None:
        now_ns = self._clock.mono_ns()
        if self._aside_ns is not None and now_ns - self._aside_ns < ASIDE_EVERY_NS:
            return
        self._aside_ns = now_ns
        store, clock, custody = self._store, self._clock, self._custody
        aside.sweep_spool(store, clock, folders, custody)
        self.aside = aside.count(folders)


def _bounds_of_disk(
    folder: Folder, rest: Sequence[Piece], going_bytes: int, going_files: int
) -> Bounds | None:
    """Give what may stay of a disk's segments so that its reserve is kept."""
    try:
        disk = room.of(folder.path)
    except OSError as error:
        _log.warning("recording folder cannot be looked at", path=folder.path, reason=error)
        return None
    lacking_bytes = disk.reserve_bytes - disk.free_bytes - going_bytes
    lacking_files = disk.reserve_files - disk.free_files - going_files
    held_bytes = sum(piece.size_bytes for piece in rest)
    return Bounds(
        max(0, held_bytes - max(0, lacking_bytes)),
        max_files=max(0, len(rest) - max(0, lacking_files)),
        spare_bytes=disk.reserve_bytes // 4,
    )


def _is_short(folder: Folder) -> bool:
    """Whether the disk's reserve is touched."""
    try:
        disk = room.of(folder.path)
    except OSError:
        return False
    return disk.free_bytes < disk.reserve_bytes or disk.free_files < disk.reserve_files


def _spans(pieces: Iterable[Piece]) -> dict[str, dict[str, int]]:
    """Give the span and number of what goes, by camera."""
    spans: dict[str, Piece] = {}
    counts: dict[str, int] = {}
    for piece in pieces:
        known = spans.get(piece.camera, piece)
        spans[piece.camera] = replace(
            known,
            start_utc_ns=min(known.start_utc_ns, piece.start_utc_ns),
            end_utc_ns=max(known.end_utc_ns, piece.end_utc_ns),
        )
        counts[piece.camera] = counts.get(piece.camera, 0) + 1
    return {
        camera: {
            "from_utc_ms": span.start_utc_ns // NS_PER_MS,
            "to_utc_ms": span.end_utc_ns // NS_PER_MS,
            "segments": counts[camera],
        }
        for camera, span in spans.items()
    }


def _overlap(piece: Piece, held: Protection) -> bool:
    return (
        piece.camera == held.camera
        and piece.start_utc_ns <= held.end_utc_ns
        and piece.end_utc_ns >= held.start_utc_ns
    )
