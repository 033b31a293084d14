"""Which numbers of the outbox were removed unsent: what is neither here nor there was delivered.

Kept as spans, both ends included, by (boot, lane); the oldest make room for new ones.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MOST_SPANS = 10_000
MOST_TOLD = 64  # spans in one message


class Span(NamedTuple):
    """Numbers of one boot and lane that were removed."""

    boot: int
    lane: str
    first: int
    last: int


def note(connection: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> list[Span]:
    """Keep the numbers of outbox rows that are being removed; gives them as spans.

    Args:
        connection: inside the transaction that removes them.
        rows: with boot, lane and payload.
    """
    numbers = defaultdict(set)
    for row in rows:
        numbers[row["boot"], row["lane"]].add(int(json.loads(row["payload"])["seq"]))
    spans = [
        Span(boot, lane, first, last)
        for (boot, lane), found in numbers.items()
        for first, last in joined(found)
    ]
    for span in spans:
        grown = connection.execute(
            "UPDATE removed SET last_seq = ? WHERE boot = ? AND lane = ? AND last_seq = ?",
            (span.last, span.boot, span.lane, span.first - 1),
        ).rowcount
        if not grown:
            connection.execute(
                "INSERT INTO removed (boot, lane, first_seq, last_seq) VALUES (?, ?, ?, ?)", span
            )
    connection.execute(
        "DELETE FROM removed WHERE id <= (SELECT max(id) FROM removed) - ?", (MOST_SPANS,)
    )
    return spans


def told(spans: Sequence[Span]) -> list[dict[str, object]]:
    """Give spans as the body of state/outbox has them; those beyond its bound are asked for."""
    return [
        {"boot": span.boot, "lane": span.lane, "from": span.first, "to": span.last}
        for span in spans[:MOST_TOLD]
    ]


def within(connection: sqlite3.Connection, asked: Span) -> set[int]:
    """Give the numbers of a span that were removed."""
    rows = connection.execute(
        "SELECT max(first_seq, ?), min(last_seq, ?) FROM removed"
        " WHERE boot = ? AND lane = ? AND last_seq >= ? AND first_seq <= ?",
        (asked.first, asked.last, asked.boot, asked.lane, asked.first, asked.last),
    )
    return {number for first, last in rows for number in range(first, last + 1)}


def joined(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Give numbers as spans without neighbours, both ends included."""
    spans: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
