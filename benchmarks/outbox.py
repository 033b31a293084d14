"""Durable rows a second into the outbox, beside plain sqlite3 with a commit a row.

Both write WAL with synchronous=FULL and return from `put` once the row survives a power cut; the
same message body, the same eight threads. Rounds alternate; the better one of each counts.
"""

import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agent.core.clock import RealClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from benchmarks._table import markdown

THREADS = 8
ROWS = 4000
ROUNDS = 2
BODY = {"state": "streaming", "since_utc_ms": 1_790_000_000_000, "detail": "x" * 200}


def table() -> str:
    """Measure, and give the table."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        for name, way in (("plain sqlite3, a commit a row", _plain), ("outbox", _outbox)):
            with tempfile.TemporaryDirectory() as folder:
                seconds, cpu_s = way(Path(folder))
            if name not in best or seconds < best[name][0]:
                best[name] = (seconds, cpu_s)
    peer = best["plain sqlite3, a commit a row"][0]
    rows = [
        (name, f"{ROWS / seconds:,.0f}", f"{cpu_s / ROWS * 1e6:.0f}", f"{peer / seconds:.2f}x")
        for name, (seconds, cpu_s) in best.items()
    ]
    return markdown(["way", "rows/s", "CPU us a row", "rows/s against plain sqlite3"], rows)


def _outbox(folder: Path) -> tuple[float, float]:
    clock = RealClock()
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    outbox = Outbox(store, Topics("site", "device"), clock, boot=1)
    try:
        return _timed(lambda: outbox.put(Message(Lane.TELEMETRY, "state/camera", BODY)))
    finally:
        store.close()


def _plain(folder: Path) -> tuple[float, float]:
    connection = sqlite3.connect(folder / "plain.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE row (id INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB)")
    lock = threading.Lock()

    def put() -> None:
        payload = json.dumps(BODY).encode()
        with lock:
            connection.execute("INSERT INTO row (payload) VALUES (?)", (payload,))

    try:
        return _timed(put)
    finally:
        connection.close()


def _timed(put: Callable[[], object]) -> tuple[float, float]:
    def many() -> None:
        for _ in range(ROWS // THREADS):
            put()

    threads = [threading.Thread(target=many) for _ in range(THREADS)]
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
