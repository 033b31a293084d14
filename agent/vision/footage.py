"""Finds what was recorded of a span: closed segments from the disk, the rest from the ring.

The rows are read in one snapshot and the ring after it: a segment that is closed in between is
still taken from the ring, so nothing is missed and nothing comes twice.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S
from agent.core.errors import StorageError
from agent.core.model import Packet
from agent.core.store import Store
from agent.vision import cut
from agent.vision.ring import Ring

LONGEST_PICTURE_NS = NS_PER_S

_RECORDED = """
    SELECT s.*, f.path AS folder_path FROM segment s LEFT JOIN folder f ON f.id = s.folder
    WHERE camera = ? AND state IN ('closed', 'recovered')
    AND end_utc_ns > ? AND start_utc_ns < ? ORDER BY s.id
"""
_GROWING = """
    SELECT DISTINCT run FROM segment WHERE camera = ? AND state = 'open' AND start_utc_ns < ?
"""
_RUN = """
    SELECT codec, max(CASE WHEN state IN ('closed', 'recovered') THEN last_dts END) AS last_dts
    FROM segment WHERE camera = ? AND run = ? GROUP BY run
"""
_GAPS = """
    SELECT from_utc_ns, to_utc_ns, reason FROM gap
    WHERE camera = ? AND to_utc_ns > ? AND from_utc_ns < ? ORDER BY id
"""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Span:
    """Time of one camera."""

    camera: str
    start_utc_ns: int
    end_utc_ns: int


@dataclass(frozen=True, slots=True)
class Footage:
    """What there is of a span; `parts` can be read once."""

    parts: tuple[cut.Part, ...]
    sources: tuple[tuple[str, int], ...]  # sha256, start in ms; no hash for what is in memory
    camera_offset_ms: int | None
    reasons: tuple[str, ...]  # why something of it was not recorded, where that is known
    is_settled: bool  # whether waiting brings nothing more


@dataclass(frozen=True, slots=True)
class _Rows:
    """One snapshot of the database."""

    recorded: list[sqlite3.Row]
    growing: frozenset[str]  # runs with a segment that is not closed
    runs: Mapping[str, sqlite3.Row]
    gaps: list[sqlite3.Row]


@dataclass(frozen=True, slots=True)
class _Tail:
    """A run's packets that are in no closed segment."""

    run: str
    codec: str
    packets: tuple[Packet, ...]


def gather(
    store: Store, state_dir: Path, ring: Ring | None, span: Span, *, is_lenient: bool = False
) -> Footage:
    """Find what was recorded of a span.

    Args:
        store: with the segments' rows.
        state_dir: the paths of those in no other folder are relative to it.
        ring: of the camera; None where nothing records it now.
        span: wanted.
        is_lenient: leave out files that cannot be read, instead of raising when they are.

    Raises:
        StorageError: the database refuses.
    """
    names = () if ring is None else ring.runs()
    rows = _read(store, span, names)
    found = [_tail(ring, name, rows, span) for name in names if ring is not None]
    tails = [tail for tail, _ in found if tail is not None]
    recordings = [_recording(state_dir, row) for row in rows.recorded]
    there = [
        recording
        for recording in recordings
        if recording.path.is_file() and (not is_lenient or _is_readable(recording))
    ]
    parts = _parts(there, tails, [(row["from_utc_ns"], row["to_utc_ns"]) for row in rows.gaps])
    begun = [(row["sha256"], row["start_utc_ns"]) for row in rows.recorded]
    begun += [("", tail.packets[0].utc_ns) for tail in tails]
    return Footage(
        parts=tuple(_within(part, span) for part in parts),
        # A box without a clock is in 1970, and its first pictures are older than that.
        sources=tuple((sha256, max(0, start_ns // NS_PER_MS)) for sha256, start_ns in begun),
        camera_offset_ms=_offset_ms(rows.recorded),
        reasons=tuple(dict.fromkeys(row["reason"] for row in rows.gaps)),
        is_settled=rows.growing <= set(names) and all(is_whole for _, is_whole in found),
    )


def _read(store: Store, span: Span, names: Iterable[str]) -> _Rows:
    # The picture shown at the start may be the last one of the segment before.
    wide = (span.camera, span.start_utc_ns - LONGEST_PICTURE_NS, span.end_utc_ns)
    with store.reading() as connection:
        connection.execute("BEGIN")  # one snapshot for all of it
        runs = {name: connection.execute(_RUN, (span.camera, name)).fetchone() for name in names}
        growing = connection.execute(_GROWING, (span.camera, span.end_utc_ns)).fetchall()
        return _Rows(
            connection.execute(_RECORDED, wide).fetchall(),
            frozenset(row["run"] for row in growing),
            {name: row for name, row in runs.items() if row is not None},
            connection.execute(_GAPS, wide).fetchall(),
        )


def _tail(ring: Ring, run: str, rows: _Rows, span: Span) -> tuple[_Tail | None, bool]:
    """Give what the ring adds of a run, and whether that is all of it."""
    row = rows.runs.get(run)
    last_dts = None if row is None else row["last_dts"]
    packets = ring.after(run, last_dts)
    if not packets or packets[-1].utc_ns < span.start_utc_ns:
        return None, True
    reaches_back = packets[0].utc_ns <= span.start_utc_ns
    is_whole = reaches_back or ring.is_whole_after(run, last_dts)
    if packets[0].utc_ns >= span.end_utc_ns:
        return None, is_whole
    if row is None:  # its first segment is about to be begun
        return None, False
    return _Tail(run, row["codec"], packets), is_whole


def _parts(
    recordings: list[cut.Recording], tails: list[_Tail], gaps: list[tuple[int, int]]
) -> list[cut.Part]:
    last_run = recordings[-1].run if recordings else ""
    joined = next((tail for tail in tails if tail.run == last_run), None)
    if joined is None:
        parts = cut.parts(recordings, (), "", gaps)
    else:
        parts = cut.parts(recordings, joined.packets, joined.codec, gaps)
    for tail in tails:
        if tail is not joined:
            parts += cut.parts((), tail.packets, tail.codec)
    return parts


def _recording(state_dir: Path, row: sqlite3.Row) -> cut.Recording:
    return cut.Recording(
        path=Path(row["folder_path"] or state_dir) / row["path"],
        run=row["run"],
        codec=row["codec"],
        shape=row["extradata"],
        start_utc_ns=row["start_utc_ns"],
        end_utc_ns=row["end_utc_ns"],
        first_dts=row["first_dts"],
        last_dts=row["last_dts"],
        time_base=Fraction(row["time_base_num"], row["time_base_den"]),
        sha256=row["sha256"],
    )


def _is_readable(recording: cut.Recording) -> bool:
    try:
        return next(cut.packets_of(recording), None) is not None
    except StorageError as error:
        _log.warning("recording left out of a clip", reason=error)
        return False


def _within(part: cut.Part, span: Span) -> cut.Part:
    return replace(part, packets=cut.between(part.packets, span.start_utc_ns, span.end_utc_ns))


def _offset_ms(rows: Iterable[sqlite3.Row]) -> int | None:
    offsets = (row["camera_offset_ns"] for row in rows if row["camera_offset_ns"] is not None)
    first = next(offsets, None)
    return None if first is None else first // NS_PER_MS
