"""Rows read from the outbox and not yet sent, lane by lane."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from agent.core.model import Lane, Row
from agent.delivery.buckets import Shares

PACKET_BYTES = 16  # of a PUBLISH beside topic and payload


class Ahead:
    """Gives the rows in the order of the lanes' shares; within a lane the oldest first."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Row]] = {}
        self._shares = Shares()

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def row_ids(self) -> Iterator[int]:
        """Give the rows that are here."""
        return (row.row_id for rows in self._lanes.values() for row in rows)

    def refill(self, rows: Sequence[Row]) -> None:
        """Take these in place of what is left of the last ones; the shares go on."""
        self._lanes = {}
        for row in rows:
            self._lanes.setdefault(row.lane, deque()).append(row)

    def next(self, is_open: Callable[[Row], bool], now_ns: int) -> Row | None:
        """Give the next row and forget it; None if the first of no lane may go now.

        Args:
            is_open: whether a row may go now.
            now_ns: now, monotonic.
        """
        waiting = {
            lane: packet_bytes(rows[0]) for lane, rows in self._lanes.items() if is_open(rows[0])
        }
        if not waiting:
            return None
        lane = self._shares.choose(waiting, now_ns)
        rows = self._lanes[lane]
        row = rows.popleft()
        if not rows:
            del self._lanes[lane]
        return row


def packet_bytes(row: Row) -> int:
    """Give the size of the PUBLISH that carries a row."""
    return len(row.topic.encode()) + len(row.payload) + PACKET_BYTES
