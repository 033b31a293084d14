"""Which stored messages go next: of every lane its share, old telemetry at most half.

Telemetry older than a minute counts as backfill, so that what piled up in an outage never
stands before what happens now. A look at a lane is bounded however much of it has to wait.
In which order the chosen ones go is the business of `buckets`.
"""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from agent.core.clock import NS_PER_S, Clock
from agent.core.model import Lane, Row
from agent.delivery.batch import MOST_PLAIN_BYTES
from agent.delivery.buckets import SHARES

LIVE_S = 60
SCAN_ROWS = 2000  # looked at in a lane before the rest waits for the next turn
_END = 1 << 62


@dataclass(frozen=True, slots=True)
class Ask:
    """What the uplink can take now."""

    limit: int
    exclude: Collection[int] = ()  # row ids in flight or waiting for their receipt
    held_topics: Collection[str] = ()  # nobody listens there, or the broker refuses it for now
    takes_receipted: bool = True  # whether rows that need a receipt may go
    takes_late: bool = True  # whether what counts as backfill may go singly


@dataclass(frozen=True, slots=True)
class _Span:
    lane: Lane
    counts_as: Lane
    after_id: int
    before_id: int


class LaneReader:
    """Picks rows over one read-only connection, for one thread."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, boot: int) -> None:
        self._connection = connection
        self._clock = clock
        self._boot = boot
        self._resume: dict[tuple[Lane, Lane], int] = {}

    def version(self) -> int:
        """Give a number that changes with every commit to the database."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def take(self, ask: Ask) -> tuple[Row, ...]:
        """Give up to `ask.limit` rows, the urgent lanes first, at most half of it backfill.

        Where more waits than that, every lane has its share of the rows; what a lane leaves of
        its share goes to the most urgent.
        """
        found: dict[Lane, list[int]] = {}
        for span in self._spans():
            if span.counts_as is Lane.BACKFILL and not ask.takes_late:
                continue
            found.setdefault(span.counts_as, []).extend(self._scan(span, ask.limit, ask))
        if Lane.BACKFILL in found:  # of three places, the oldest first, or one starves the others
            found[Lane.BACKFILL] = sorted(found[Lane.BACKFILL])[: max(1, ask.limit // 2)]
        counts = _shared(ask.limit, {lane: len(row_ids) for lane, row_ids in found.items()})
        return self._rows(
            [(row_id, lane) for lane, count in counts.items() for row_id in found[lane][:count]]
        )

    def take_late(self, limit: int, after_id: int, exclude: Collection[int]) -> list[Row]:
        """Give up to `limit` rows that count as backfill and need no receipt, by their ids.

        They are of one lane and together not much larger than a batch may be.
        """
        rows: list[Row] = []
        for span in self._spans():
            if span.counts_as is Lane.BACKFILL and not rows:
                rows = self._late(span, limit, after_id, exclude)
        return rows

    def _late(self, span: _Span, limit: int, after_id: int, exclude: Collection[int]) -> list[Row]:
        stored = self._connection.execute(
            "SELECT id, message_id, topic, payload, needs_receipt, is_retained, tries FROM outbox"
            " WHERE quarantine IS NULL AND lane = ? AND id > ? AND id < ? AND needs_receipt = 0"
            " ORDER BY id LIMIT ?",
            (span.lane, max(span.after_id, after_id), span.before_id, limit),
        )
        rows: list[Row] = []
        size_bytes = 0
        for row in stored:
            size_bytes += len(row["payload"])
            if rows and size_bytes > MOST_PLAIN_BYTES:
                break
            if row["id"] not in exclude:
                rows.append(_row(row, Lane.BACKFILL))
        return rows

    def _spans(self) -> Iterator[_Span]:
        live_from = self._live_from()
        yield _Span(Lane.ALARM, Lane.ALARM, 0, _END)
        yield _Span(Lane.STATE, Lane.STATE, 0, _END)
        yield _Span(Lane.TELEMETRY, Lane.TELEMETRY, live_from - 1, _END)
        yield _Span(Lane.BACKFILL, Lane.BACKFILL, 0, _END)
        yield _Span(Lane.FILE, Lane.BACKFILL, 0, _END)
        yield _Span(Lane.TELEMETRY, Lane.BACKFILL, 0, live_from)

    def _live_from(self) -> int:
        """Give the id of the oldest live telemetry row; rows are made in the order of their ids."""
        oldest = self._telemetry("ASC").fetchone()
        if oldest is None or self._is_live(oldest):
            return 0
        live_from = _END
        for row in self._telemetry("DESC"):
            if not self._is_live(row):
                break
            live_from = row["id"]
        return live_from

    def _telemetry(self, order: str) -> sqlite3.Cursor:
        return self._connection.execute(
            "SELECT id, boot, created_mono_ns FROM outbox"  # noqa: S608 - the order is ours
            f" WHERE quarantine IS NULL AND lane = 'telemetry' ORDER BY id {order} LIMIT ?",
            (SCAN_ROWS,),
        )

    def _is_live(self, row: sqlite3.Row) -> bool:
        age_ns = self._clock.mono_ns() - row["created_mono_ns"]
        return bool(row["boot"] == self._boot and age_ns <= LIVE_S * NS_PER_S)

    def _scan(self, span: _Span, wanted: int, ask: Ask) -> list[int]:
        key = (span.lane, span.counts_as)
        after_id = max(span.after_id, self._resume.pop(key, 0))
        chosen: list[int] = []
        rows = self._connection.execute(
            "SELECT id, topic, needs_receipt FROM outbox WHERE quarantine IS NULL AND lane = ?"
            " AND id > ? AND id < ? ORDER BY id LIMIT ?",
            (span.lane, after_id, span.before_id, SCAN_ROWS),
        )
        for seen, row in enumerate(rows, start=1):
            if _is_wanted(row, ask):
                chosen.append(row["id"])
                if len(chosen) == wanted:
                    break
            elif seen == SCAN_ROWS:
                self._resume[key] = row["id"]
        return chosen

    def _rows(self, chosen: list[tuple[int, Lane]]) -> tuple[Row, ...]:
        if not chosen:
            return ()
        marks = ",".join("?" * len(chosen))
        stored = {
            row["id"]: row
            for row in self._connection.execute(
                "SELECT id, message_id, topic, payload, needs_receipt, is_retained, tries"  # noqa: S608 - marks only
                f" FROM outbox WHERE id IN ({marks})",
                [row_id for row_id, _ in chosen],
            )
        }
        return tuple(_row(stored[row_id], lane) for row_id, lane in chosen if row_id in stored)


def _shared(limit: int, found: Mapping[Lane, int]) -> Mapping[Lane, int]:
    """Give how many rows of each lane to take, of as many as were found."""
    counts = {lane: min(count, int(limit * SHARES[lane])) for lane, count in found.items()}
    left = limit - sum(counts.values())
    for lane, count in found.items():
        more = min(left, count - counts[lane])
        counts[lane] += more
        left -= more
    return counts


def _is_wanted(row: sqlite3.Row, ask: Ask) -> bool:
    return (
        row["id"] not in ask.exclude
        and row["topic"] not in ask.held_topics
        and (ask.takes_receipted or not row["needs_receipt"])
    )


def _row(stored: sqlite3.Row, lane: Lane) -> Row:
    return Row(
        row_id=stored["id"],
        lane=lane,
        message_id=stored["message_id"],
        topic=stored["topic"],
        payload=stored["payload"],
        needs_receipt=bool(stored["needs_receipt"]),
        is_retained=bool(stored["is_retained"]),
        tries=stored["tries"],
    )
