"""Durable rows a second into the outbox, beside plain sqlite3 and other people's stores.

Ours, plain sqlite3, persist-queue and litequeue write WAL with synchronous=FULL, where litequeue is
told to, and return from `put` once the row survives a power cut; the same eight threads. Rounds
alternate; the better one of each counts. Then 3,000 rows are put, the process is killed with -9 as
soon as the last put has returned, and what a new process finds is counted; ThingsBoard gateway's
two stores stand beside ours there, with their documented settings.
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agent.core.clock import RealClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from benchmarks import _peers
from benchmarks._table import markdown

THREADS = 8
ROWS = 4000
ROUNDS = 2
KILLED_ROWS = 3000
TOGETHER = 50
STORES = Path(__file__).with_name("_stores.py")
QUEUES = ("persist-queue", "litequeue")
PEERS = {
    "persist-queue": ("persist-queue",),
    "litequeue": ("litequeue",),
    "thingsboard-sqlite": ("thingsboard-gateway",),
    "thingsboard-file": ("thingsboard-gateway",),
}
DETAIL = "x" * 200
BODY = {"state": "streaming", "since_utc_ms": 1_790_000_000_000, "detail": DETAIL}


def table() -> str:
    """Measure, and give both tables."""
    peers = {name: _peers.python_with(*needs) for name, needs in PEERS.items()}
    ways: dict[str, Callable[[Path], tuple[float, float]]] = {
        "plain sqlite3, a commit a row": _plain,
        "outbox": _outbox,
        f"outbox, {TOGETHER} rows handed in at once": _together,
    }
    for name in QUEUES:
        python, _ = peers[name]
        if python is not None:
            ways[name] = partial(_peer, python, name)
    best: dict[str, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds, cpu_s = way(Path(folder))
            if name not in best or cpu_s < best[name][1]:
                best[name] = (seconds, cpu_s)
    ours_s = best["outbox"][1]
    rows = [
        (name, f"{ROWS / seconds:,.0f}", f"{cpu_s / ROWS * 1e6:.0f}", f"{cpu_s / ours_s:.2f}x")
        for name, (seconds, cpu_s) in best.items()
    ]
    first = markdown(["way", "rows/s", "CPU us a row", "CPU against the outbox"], rows)
    kills = [("outbox", *_killed([sys.executable, "-m", "benchmarks.outbox"]))]
    for name, (python, why) in peers.items():
        argv = [str(python), str(STORES), name]
        kills.append((name, why, "") if python is None else (name, *_killed(argv)))
    head = ["kill -9 right after", "puts that had returned", "found by a new process"]
    return f"{first}\n\n{markdown(head, kills)}"


def _peer(python: Path, name: str, folder: Path) -> tuple[float, float]:
    words = ["put", str(folder), str(ROWS), str(THREADS), str(len(DETAIL))]
    argv = [str(python), str(STORES), name, *words]
    printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    found = json.loads(printed.splitlines()[-1])
    return found["seconds"], found["cpu_s"]


def _killed(argv: list[str]) -> tuple[str, str]:
    """Kill a store the moment its last put has returned; gives accepted and found."""
    with tempfile.TemporaryDirectory() as folder:
        words = [folder, str(KILLED_ROWS), "1", str(len(DETAIL))]
        with subprocess.Popen(
            [*argv, "wait", *words], stdout=subprocess.PIPE, text=True
        ) as process:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError(f"{argv[-1]} did not put its rows")
            process.kill()
        counted = subprocess.run(
            [*argv, "count", *words], check=True, capture_output=True, text=True
        ).stdout
    return f"{KILLED_ROWS:,}", f"{int(counted.split()[-1]):,}"


def _outbox(folder: Path, rows: int = ROWS, *, waits: bool = False) -> tuple[float, float]:
    clock = RealClock()
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    outbox = Outbox(store, Topics("site", "device"), clock, boot=1)
    try:
        return _timed(lambda: outbox.put(Message(Lane.TELEMETRY, "state/camera", BODY)), rows)
    finally:
        if not waits:
            store.close()


def _together(folder: Path) -> tuple[float, float]:
    clock = RealClock()
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    outbox = Outbox(store, Topics("site", "device"), clock, boot=1)
    message = Message(Lane.TELEMETRY, "state/camera", BODY)

    def put_in(connection: sqlite3.Connection) -> None:
        for _ in range(TOGETHER):
            outbox.put_in(connection, message)

    try:
        return _timed(lambda: store.write(put_in), ROWS // TOGETHER)
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


def _timed(put: Callable[[], object], rows: int = ROWS) -> tuple[float, float]:
    def many() -> None:
        for _ in range(rows // THREADS):
            put()

    threads = [threading.Thread(target=many) for _ in range(THREADS)]
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun_s, time.process_time() - begun_cpu_s


def _main() -> None:
    mode, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if mode == "count":
        with sqlite3.connect(folder / "outpost.db") as connection:
            print(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])
        return
    print(_outbox(folder, rows, waits=True), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _main()
