"""Tells the centre now and then how the dock's footage and cameras stand."""

import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from agent.core.clock import NS_PER_S, Clock
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.docking import report
from agent.docking.config import DockConfig

LOOK_S = 30.0
HOUR_NS = 3600 * NS_PER_S
KIND = "report/dock"
_TOLD = "dock_report_utc_ns"  # over a restart: a box that starts often does not tell more often

PutIn = Callable[[sqlite3.Connection, Message], object]
"""Puts a message into the outbox inside a transaction."""


class Reporter:
    """Worker that puts a report into the outbox every `dock.report_every_h`.

    Raises:
        StorageError: the outbox or the disk refuses; `run` may be called again.
    """

    name = "report"

    def __init__(
        self,
        config: DockConfig,
        state_dir: Path,
        store: Store,
        clock: Clock,
        is_clock_good: Callable[[], bool],
        put_in: PutIn,
    ) -> None:
        self._config = config
        self._state_dir = state_dir
        self._store = store
        self._clock = clock
        self._is_clock_good = is_clock_good
        self._put_in = put_in

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """See `Worker.run`."""
        self.look()
        while not self._clock.wait(stop, LOOK_S):
            progress()
            self.look()

    def look(self) -> bool:
        """Tell if it is time; gives whether it was."""
        now_ns = self._clock.utc_ns()
        with self._store.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (_TOLD,)).fetchone()
            age_ns = None if row is None else now_ns - int(row["value"])
            # A clock that was set back: told in the future, so it is told anew.
            if age_ns is not None and 0 <= age_ns < self._config.report_every_h * HOUR_NS:
                return False
            body = report.cut(report.report(connection, self._config, self._now(now_ns)))

        def change(connection: sqlite3.Connection) -> None:
            self._put_in(connection, Message(Lane.STATE, KIND, body, needs_receipt=True))
            connection.execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_TOLD, str(now_ns))
            )

        self._store.write(change)
        return True

    def _now(self, now_ns: int) -> report.Now:
        space = shutil.disk_usage(self._state_dir)
        return report.Now(now_ns, space.free, space.total, self._is_clock_good())
