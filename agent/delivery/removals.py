"""Which numbers of the outbox were removed unsent: what is neither here nor there was delivered.

Kept in pieces (`agent.core.spans`) by boot, lane and reason; the oldest make room for new ones.
"""

import base64
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from agent.core import spans
from agent.core.spans import MOST_MARKED, Piece, Run

MOST_SPANS = 10_000
MOST_TOLD = 64  # spans in one message
EVICTED = "evicted"  # for want of space
DROPPED = "dropped"  # by hand
NUMBERED = b'{"sv"'  # what a message to the centre begins with; others have no number


class Span(NamedTuple):
    """Numbers of one boot and lane that were removed: all from first to last, or the marked."""

    boot: int
    lane: str
    first: int
    last: int
    marks: bytes | None = None

    @property
    def piece(self) -> Piece:
        """The numbers alone."""
        return Piece(self.first, self.last, self.marks)

    @property
    def total(self) -> int:
        """How many numbers that are."""
        return spans.total(spans.runs_of(self.piece))


def note(
    connection: sqlite3.Connection, rows: Iterable[sqlite3.Row], reason: str = EVICTED
) -> list[Span]:
    """Keep the numbers of outbox rows that are being removed; gives them as spans.

    Args:
        connection: inside the transaction that removes them.
        rows: with boot, lane and payload.
        reason: `EVICTED` or `DROPPED`.
    """
    numbers = defaultdict(set)
    for row in rows:
        if number := number_of(row["payload"]):
            numbers[row["boot"], row["lane"]].add(number)
    gone = []
    for (boot, lane), found in numbers.items():
        runs = spans.joined(found)
        _keep(connection, (boot, lane, reason), runs)
        gone += [
            Span(boot, lane, piece.first, piece.last, piece.marks) for piece in spans.pieces(runs)
        ]
    connection.execute(
        "DELETE FROM removed WHERE id IN (SELECT id FROM removed ORDER BY id DESC LIMIT -1"
        " OFFSET ?)",
        (MOST_SPANS,),
    )
    return gone


def number_of(payload: bytes) -> int:
    """Give a message's number; 0 if it is to others than the centre, or the disk has changed it."""
    with suppress(ValueError, KeyError, TypeError):
        return max(0, int(json.loads(payload)["seq"])) if payload.startswith(NUMBERED) else 0
    return 0


def together(gone: Iterable[Span]) -> list[Span]:
    """Give spans that may lie near each other in as few as hold the same numbers."""
    runs: dict[tuple[int, str], list[Run]] = defaultdict(list)
    for span in gone:
        runs[span.boot, span.lane] += spans.runs_of(span.piece)
    return [
        Span(*key, piece.first, piece.last, piece.marks)
        for key, found in sorted(runs.items())
        for piece in spans.pieces(spans.merged(found))
    ]


def told(gone: Sequence[Span]) -> list[dict[str, object]]:
    """Give spans as the body of state/outbox has them; those beyond its bound are asked for."""
    return [
        {"boot": span.boot, "lane": span.lane, **worded(span.piece)} for span in gone[:MOST_TOLD]
    ]


def worded(piece: Piece) -> dict[str, object]:
    """Give a piece as messages have it."""
    words: dict[str, object] = {"from": piece.first, "to": piece.last}
    if piece.marks is not None:
        words["only"] = base64.b64encode(piece.marks).decode()
    return words


def within(connection: sqlite3.Connection, asked: Span) -> dict[int, str]:
    """Give the numbers of a span that were removed, each with the reason."""
    rows = connection.execute(
        "SELECT first_seq, last_seq, marks, reason FROM removed"
        " WHERE boot = ? AND lane = ? AND last_seq >= ? AND first_seq <= ?",
        (asked.boot, asked.lane, asked.first, asked.last),
    )
    wanted = [(asked.first, asked.last)]
    return {
        number: row["reason"]
        for row in rows
        for first, last in spans.overlap(wanted, _runs(row))
        for number in range(first, last + 1)
    }


def _keep(connection: sqlite3.Connection, key: tuple[int, str, str], runs: list[Run]) -> None:
    """Add runs to the stored pieces, together with those that lie near."""
    near = connection.execute(
        "SELECT id, first_seq, last_seq, marks FROM removed WHERE boot = ? AND lane = ?"
        " AND reason = ? AND last_seq >= ? AND first_seq <= ?",
        (*key, runs[0][0] - MOST_MARKED, runs[-1][1] + MOST_MARKED),
    ).fetchall()
    connection.executemany("DELETE FROM removed WHERE id = ?", [(row["id"],) for row in near])
    together = spans.merged([*runs, *(run for row in near for run in _runs(row))])
    connection.executemany(
        "INSERT INTO removed (boot, lane, reason, first_seq, last_seq, marks)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [(*key, *piece) for piece in spans.pieces(together)],
    )


def _runs(row: sqlite3.Row) -> Iterator[Run]:
    yield from spans.stored(Piece(row["first_seq"], row["last_seq"], row["marks"]))
