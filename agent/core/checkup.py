"""Reads the whole database now and then, beside the work and slowly: is every page what it was?

An index that differs from its table is made anew at once; anything else is for the next start,
which puts a new database in the place of this one. Nobody can be helped by going on as if nothing
had happened, so that start comes soon: the check ends the process.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Final

from agent.core import log
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import StorageError, StoreCorrupt
from agent.core.store import Store, is_damage, read_only

FIRST_S: Final = 20.0  # a start has better things to do
EVERY_S: Final = 86_400.0
LOOK_S: Final = 1.0
WORK_NS: Final = 20 * NS_PER_MS  # then a pause: the disk and the core are for others
PAUSE_S: Final = 0.02
STEPS: Final = 20_000  # of SQLite's machine, about a millisecond
MOST_FINDINGS: Final = 20
INDEX_WORDS: Final = ("missing from index", "wrong # of entries in index", "non-unique entry")

_log = log.get(__name__)


class Checkup:
    """Worker that checks the store soon after the start and every day."""

    name = "checkup"

    def __init__(self, store: Store, clock: Clock, first_s: float = FIRST_S) -> None:
        self._store = store
        self._clock = clock
        self._wait_s = first_s

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Check until `stop`.

        Raises:
            StoreCorrupt: the database is damaged; the next start mends it.
        """
        left_s = self._wait_s
        while not self._clock.wait(stop, LOOK_S):
            progress()
            if self._store.damage:
                raise StoreCorrupt(f"store {self._store.path}: {self._store.damage}")
            left_s -= LOOK_S
            if left_s <= 0:
                left_s = self._wait_s = EVERY_S
                self._check(stop, progress)

    def _check(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        found = self._findings(stop, progress)
        if not found:
            return
        if all(any(words in line for words in INDEX_WORDS) for line in found):
            _log.error("an index of the database was damaged and is made anew", found=found[0])
            self._store.write(lambda connection: connection.execute("REINDEX").rowcount)
            if not (found := self._findings(stop, progress)):
                return
        self._store.condemn("; ".join(found[:3]))

    def _findings(self, stop: threading.Event, progress: Callable[[], None]) -> list[str]:
        """Give what SQLite finds wrong, in its words; nothing if all is well or `stop` is set."""
        pause = _Pause(self._clock, stop, progress)
        try:
            with closing(read_only(self._store.path)) as connection:
                connection.set_progress_handler(pause.turn, STEPS)
                query = f"PRAGMA integrity_check({MOST_FINDINGS})"
                lines = [str(row[0]) for row in connection.execute(query)]
        except sqlite3.Error as error:
            if stop.is_set():
                return []
            if not is_damage(error):
                raise StorageError(f"store {self._store.path}: {error}") from error
            return [str(error)]
        return [] if lines == ["ok"] else lines


class _Pause:
    """Lets others in between the steps of a long query."""

    def __init__(self, clock: Clock, stop: threading.Event, progress: Callable[[], None]) -> None:
        self._clock = clock
        self._stop = stop
        self._progress = progress
        self._since_ns = clock.mono_ns()

    def turn(self) -> int:
        """Wait a little when it is time to; other than 0 ends the query."""
        if self._clock.mono_ns() - self._since_ns >= WORK_NS:
            self._progress()
            self._clock.wait(self._stop, PAUSE_S)
            self._since_ns = self._clock.mono_ns()
        return int(self._stop.is_set())
