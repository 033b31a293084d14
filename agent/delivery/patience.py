"""What has to wait, and until when: unheard topics, rows without a receipt, complaints.

Pure but for the log: every instant is a parameter, in monotonic nanoseconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.core import log
from agent.core.clock import NS_PER_S
from agent.core.model import Row

FIRST_HOLD_S = 1.0
MOST_HOLD_S = 60.0
MOST_RECEIPT_WAIT_S = 300.0
COMPLAINT_EVERY_S = 60.0


@dataclass(slots=True)
class _Hold:
    until_ns: int
    delay_s: float
    is_probing: bool = False


class Holds:
    """Topics whose messages came back: after a growing wait one message goes as a probe."""

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def hold(self, topic: str, now_ns: int) -> None:
        """Let a topic wait; messages of it that were still under way do not count twice."""
        known = self._holds.get(topic)
        if known is None:
            self._holds[topic] = _Hold(now_ns + int(FIRST_HOLD_S * NS_PER_S), FIRST_HOLD_S)
        elif known.is_probing:
            known.delay_s = min(2 * known.delay_s, MOST_HOLD_S)
            known.until_ns = now_ns + int(known.delay_s * NS_PER_S)
            known.is_probing = False

    def release(self, topic: str) -> None:
        """Forget the hold: a message of the topic was taken."""
        self._holds.pop(topic, None)

    def allow(self, topic: str, now_ns: int) -> bool:
        """Say whether a message of the topic may go now; true for a held one makes it the probe."""
        held = self._holds.get(topic)
        if held is None:
            return True
        if held.is_probing or held.until_ns > now_ns:
            return False
        held.is_probing = True
        return True

    def held(self, now_ns: int) -> frozenset[str]:
        """Give the topics of which nothing may go now."""
        return frozenset(
            topic
            for topic, hold in self._holds.items()
            if hold.is_probing or hold.until_ns > now_ns
        )

    def reconnected(self, now_ns: int) -> None:
        """Take up the waits again after a connection on which a probe may have been lost."""
        for hold in self._holds.values():
            if hold.is_probing:
                hold.is_probing = False
                hold.until_ns = now_ns


class Pause:
    """A wait of the whole link that doubles until something is taken."""

    def __init__(self) -> None:
        self._until_ns = 0
        self._delay_s = 0.0

    def extend(self, now_ns: int) -> None:
        """Wait, longer than the last time; what comes during a wait does not count twice."""
        if self._until_ns <= now_ns:
            self._delay_s = min(max(FIRST_HOLD_S, 2 * self._delay_s), MOST_HOLD_S)
            self._until_ns = now_ns + int(self._delay_s * NS_PER_S)

    def clear(self) -> None:
        """Forget the delay: something was taken."""
        self._delay_s = 0.0

    def is_over(self, now_ns: int) -> bool:
        """Whether messages may go."""
        return self._until_ns <= now_ns


@dataclass(slots=True)
class _Waiting:
    message_id: str
    due_ns: int
    wait_s: float


class AwaitedReceipts:
    """Rows that the broker has taken and the centre has not yet signed for."""

    def __init__(self, first_wait_s: float) -> None:
        self._first_wait_s = first_wait_s
        self._rows: dict[int, _Waiting] = {}

    def sent(self, row: Row, now_ns: int) -> None:
        """Start, or double, the wait for a row's receipt."""
        known = self._rows.get(row.row_id)
        wait_s = self._first_wait_s if known is None else 2 * known.wait_s
        wait_s = min(wait_s, max(MOST_RECEIPT_WAIT_S, self._first_wait_s))
        self._rows[row.row_id] = _Waiting(row.message_id, now_ns + int(wait_s * NS_PER_S), wait_s)

    def knows(self, row_id: int) -> bool:
        """Whether a row was sent before, and no receipt came."""
        return row_id in self._rows

    def receipted(self, message_ids: Iterable[str]) -> None:
        """Forget rows whose receipt came."""
        gone = frozenset(message_ids)
        self._rows = {
            row_id: row for row_id, row in self._rows.items() if row.message_id not in gone
        }

    def waiting(self, now_ns: int) -> frozenset[int]:
        """Give the rows not to be sent yet; a row long due that nobody sent is no longer there."""
        forget_ns = now_ns - int(2 * MOST_RECEIPT_WAIT_S * NS_PER_S)
        for row_id in [row_id for row_id, row in self._rows.items() if row.due_ns < forget_ns]:
            del self._rows[row_id]
        return frozenset(row_id for row_id, row in self._rows.items() if row.due_ns > now_ns)

    def __len__(self) -> int:
        return len(self._rows)

    def forget_all(self) -> None:
        """The broker has lost what it took: everything is to be sent again."""
        self._rows.clear()


class Complaints:
    """Counts what is wrong and logs it at most once a minute."""

    def __init__(self, logger: log.Log) -> None:
        self._log = logger
        self._next_ns = 0
        self.count = 0

    def add(self, message: str, now_ns: int, **fields: object) -> None:
        """Count one, and say so unless something was said within the minute."""
        self.count += 1
        if now_ns >= self._next_ns:
            self._next_ns = now_ns + int(COMPLAINT_EVERY_S * NS_PER_S)
            self._log.warning(message, so_far=self.count, **fields)
