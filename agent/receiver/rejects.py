"""What was set aside and why: a row for people, a log line at most once a minute, no answer."""

import sqlite3

from agent.core import log
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import StorageError
from agent.core.store import Store
from agent.delivery.patience import Complaints

MOST_ROWS = 10_000
MOST_WAITING = 256  # rows a turn; the rest of a flood is only counted

_log = log.get(__name__)


class Rejects:
    """Messages and files that the receiver did not take; used by one thread."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._complaints = Complaints(_log)
        self._waiting: list[tuple[int, str, str, str]] = []

    def add(self, topic: str, device: str, reason: str) -> None:
        """Note one; it is stored with the next `flush`."""
        topic, reason = _plain(topic, 200), _plain(reason, 500)
        self._complaints.add(
            "message set aside", self._clock.mono_ns(), topic=topic[:120], reason=reason[:200]
        )
        if len(self._waiting) < MOST_WAITING:
            now_ms = self._clock.utc_ns() // NS_PER_MS
            self._waiting.append((now_ms, _plain(device, 63), topic, reason))

    def flush(self) -> None:
        """Store what was noted; old rows make room."""
        if not self._waiting:
            return
        rows, self._waiting = self._waiting, []

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO rejected (utc_ms, device, topic, reason) VALUES (?, ?, ?, ?)", rows
            )
            connection.execute(
                "DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - ?", (MOST_ROWS,)
            )

        try:
            self._store.write(change)
        except StorageError as failure:
            _log.error("rejected messages not recorded", rows=len(rows), reason=failure)


def _plain(text: str, limit: int) -> str:
    """Give a text that SQLite and a terminal take, whatever a stranger put into it."""
    return text[:limit].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
