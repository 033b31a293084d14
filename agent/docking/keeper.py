"""What the centre has signed for makes room on the dock's disk: the oldest first, and only then.

A copy goes only if its file is no longer on its camera, the receipt is old enough and nobody holds
it, and only while footage takes more than its share. What the centre has not signed for never goes.
"""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.store import Store
from agent.docking.config import KeepConfig
from agent.docking.footage import Custody

EVERY_S = 60.0
LOOK_S = 1.0
DAY_NS = 86_400 * NS_PER_S
BYTES_PER_GB = 1_000_000_000
LOW_PERCENTS = (5.0, 10.0, 20.0)  # free, at which the disk's state gets worse

_MAY_GO = """
    SELECT f.id, f.path, f.size_bytes, f.sha256 FROM footage f
    WHERE f.here = 'receipted' AND f.there IN ('wiped', 'gone') AND f.same_as = ''
    AND f.receipted_utc_ns <= :before
    AND NOT EXISTS (SELECT 1 FROM footage o WHERE o.same_as = f.id
        AND o.there NOT IN ('wiped', 'gone'))
    AND NOT EXISTS (SELECT 1 FROM hold h WHERE h.camera = f.camera)
    AND NOT EXISTS (SELECT 1 FROM pin p WHERE p.clip_id = f.id)
    AND NOT EXISTS (SELECT 1 FROM transfer t WHERE t.clip_id = f.id AND t.state != 'receipted')
    ORDER BY f.receipted_utc_ns, f.id LIMIT 100
"""
_TAKEN = """
    SELECT coalesce(sum(size_bytes), 0) FROM footage
    WHERE here IN ('sealed', 'receipted') AND same_as = ''
"""

_log = log.get(__name__)


class Keeper:
    """Worker."""

    name = "keeper"

    def __init__(
        self, config: KeepConfig, state_dir: Path, store: Store, clock: Clock, custody: Custody
    ) -> None:
        self._config = config
        self._state_dir = state_dir
        self._store = store
        self._clock = clock
        self._custody = custody

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """See `Worker.run`."""
        self.sweep()
        due_ns = self._clock.mono_ns()
        while not self._clock.wait(stop, LOOK_S):
            progress()
            if self._clock.mono_ns() >= due_ns:
                due_ns = self._clock.mono_ns() + round(EVERY_S * NS_PER_S)
                self.tidy(progress)

    def tidy(self, progress: Callable[[], None] = lambda: None) -> int:
        """Make room if it is short; gives how many copies went."""
        gone = 0
        over_bytes = self._taken() - round(self._config.max_gb * BYTES_PER_GB)
        before = self._clock.utc_ns() - round(self._config.days * DAY_NS)
        while over_bytes > 0:
            with self._store.reading() as connection:
                rows = connection.execute(_MAY_GO, {"before": before}).fetchall()
            if not rows:
                return gone
            for row in rows:
                if over_bytes <= 0:
                    break
                self._delete(row)
                over_bytes -= row["size_bytes"]
                gone += 1
                progress()
        return gone

    def sweep(self) -> None:
        """Remove what a kill has left of copies whose rows say that they are gone."""
        with self._store.reading() as connection:
            rows = connection.execute("SELECT path FROM footage WHERE here = 'deleted'").fetchall()
        for row in rows:
            if row["path"]:
                shutil.rmtree(self._state_dir / row["path"], ignore_errors=True)

    def figures(self) -> Mapping[str, object]:
        """Give what footage takes and may take, and how the disk is."""
        space = shutil.disk_usage(self._state_dir)
        free_percent = 100 * space.free / space.total
        return {
            "footage_bytes": self._taken(),
            "max_bytes": round(self._config.max_gb * BYTES_PER_GB),
            "disk_free_percent": round(free_percent, 1),
            "disk": _word(free_percent),
        }

    def _taken(self) -> int:
        with self._store.reading() as connection:
            return int(connection.execute(_TAKEN).fetchone()[0])

    def _delete(self, row: sqlite3.Row) -> None:
        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE footage SET here = 'deleted' WHERE :id IN (id, same_as)", {"id": row["id"]}
            )
            connection.execute(  # the centre has it, and it is most of the row
                "UPDATE transfer SET manifest = '' WHERE clip_id = ?", (row["id"],)
            )
            detail = {"sha256": row["sha256"], "size_bytes": row["size_bytes"], "why": "quota"}
            self._custody(connection, "footage.deleted", row["id"], detail)

        self._store.write(change)
        shutil.rmtree(self._state_dir / row["path"], ignore_errors=True)
        _log.info("footage deleted here, the centre has it", footage_id=row["id"])


def _word(free_percent: float) -> str:
    words = ("nearly_full", "short", "watch")
    below = [word for limit, word in zip(LOW_PERCENTS, words, strict=True) if free_percent < limit]
    return below[0] if below else "ok"
