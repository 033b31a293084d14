"""What a database needs now and then, done by the thread that writes: small steps, none urgent.

SQLite keeps pages that were freed, and a write-ahead log that has grown stays as large as it was.
Freed pages go back to the disk in idle moments; the log is emptied when it is large, unless a
reader still needs it, which is told once.
"""

import sqlite3
from pathlib import Path
from typing import Final

from agent.core import log

SPARE_PAGES: Final = 256  # freed pages that are kept for the next rows
STEP_PAGES: Final = 256  # given back at once: a waiting commit is held up for so much at most
LOG_BYTES: Final = 16 << 20
LOOK_COMMITS: Final = 50

_log = log.get(__name__)


class Upkeep:
    """Keeps one database and its log small; owned by the thread that writes."""

    def __init__(self, path: Path) -> None:
        self._log_path = path.with_name(path.name + "-wal")
        self._commits = 0
        self._told = ""

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Have SQLite itself cut a log that was emptied."""
        connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")

    def idle(self, connection: sqlite3.Connection) -> None:
        """Give some freed pages back to the disk."""
        try:
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            if free > SPARE_PAGES:
                step = min(STEP_PAGES, free - SPARE_PAGES)
                # `execute` would step this once, which gives one page back.
                connection.executescript(f"PRAGMA incremental_vacuum({step})")
        except sqlite3.Error as error:  # whoever writes next is told by its own error
            self._tell(f"freed pages stay: {error}")

    def committed(self, connection: sqlite3.Connection) -> None:
        """Look at the log after some commits, and empty a large one."""
        self._commits += 1
        if self._commits < LOOK_COMMITS:
            return
        self._commits = 0
        try:
            size_bytes = self._log_path.stat().st_size
            if size_bytes > LOG_BYTES:
                self._empty(connection, size_bytes)
        except (OSError, sqlite3.Error) as error:
            self._tell(f"write-ahead log not looked at: {error}")

    def _empty(self, connection: sqlite3.Connection, size_bytes: int) -> None:
        waits_ms = connection.execute("PRAGMA busy_timeout").fetchone()[0]
        connection.execute("PRAGMA busy_timeout=0")  # the rows that wait come first
        try:
            is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.execute(f"PRAGMA busy_timeout={waits_ms}")
        self._tell(f"a reader holds the write-ahead log at {size_bytes} bytes" if is_busy else "")

    def _tell(self, reason: str) -> None:
        """Log a change for the worse once."""
        if reason and not self._told:
            _log.warning("database grows", file=self._log_path.name, reason=reason)
        self._told = reason
