"""Opening a large database: the short look, beside the whole check that it stands in for.

The operating system's cache is emptied before each opening where we may, so that a page costs what
it costs after a power cut.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from agent.core import mending
from agent.core.clock import RealClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from benchmarks._table import markdown

SIZE_BYTES = 512 << 20
ROW_BYTES = 1700  # two a page
ROUNDS = 2
_ROW = (
    "INSERT INTO outbox (lane, message_id, topic, payload, created_utc_ns, boot, created_mono_ns)"
    " VALUES ('telemetry', ?, 'outpost/1/yard/cam-1/beat', ?, ?, 1, ?)"
)


def table() -> str:
    """Measure, and give the table."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder) / "outpost.db"
        _fill(path)
        took: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name, work in (("open", _open), ("quick_check", _check("quick_check"))):
                took.setdefault(name, []).append(_cold(work, path))
            took.setdefault("integrity_check", []).append(_cold(_check("integrity_check"), path))
        mending.mark(path, "to be measured")
        salvage_s = _cold(_open, path)
        size_mib = path.stat().st_size >> 20
    rows = [
        ["`Store.open`, the short look", _seconds(took["open"])],
        ["`PRAGMA quick_check`, as before every start", _seconds(took["quick_check"])],
        ["`PRAGMA integrity_check`, now beside the work", _seconds(took["integrity_check"])],
        ["salvage of every row into a new database", f"{salvage_s:.1f}"],
    ]
    return markdown([f"{size_mib} MiB of rows, cold", "seconds"], rows)


def _fill(path: Path) -> None:
    store = Store(path, DEVICE_MIGRATIONS, RealClock(), 2 * SIZE_BYTES)
    store.open()
    for first in range(0, SIZE_BYTES // ROW_BYTES, 500):
        rows = [
            (f"{number:032x}", bytes([number % 251]) * ROW_BYTES, number, number)
            for number in range(first, first + 500)
        ]
        store.write(partial(_insert, rows))
    store.close()


def _insert(rows: Sequence[tuple[object, ...]], connection: sqlite3.Connection) -> int:
    return connection.executemany(_ROW, rows).rowcount


def _open(path: Path) -> None:
    store = Store(path, DEVICE_MIGRATIONS, RealClock(), 2 * SIZE_BYTES)
    store.open()
    store.close()


def _check(name: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute(f"PRAGMA {name}").fetchone()[0] == "ok"

    return check


def _cold(work: Callable[[Path], None], path: Path) -> float:
    with suppress(OSError):  # only root may
        Path("/proc/sys/vm/drop_caches").write_text("3")
    began_s = time.perf_counter()
    work(path)
    return time.perf_counter() - began_s


def _seconds(found: list[float]) -> str:
    return f"{min(found):.2f}"
