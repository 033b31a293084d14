"""Other people's stores, driven as they document: run by a Python that has them, not imported.

    python benchmarks/_stores.py WAY MODE FOLDER ROWS THREADS BYTES

`put` prints seconds and CPU of that many puts; `wait` prints a line after them and waits for its
end; `count` prints how many rows a new process finds. Only the standard library besides the peer.
"""

import json
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Put = Callable[[str], Any]


def _persist_queue(folder: Path) -> Put:
    from persistqueue import SQLiteQueue

    put: Put = SQLiteQueue(str(folder), multithreading=True, auto_commit=True).put
    return put


def _litequeue(folder: Path) -> Put:
    from litequeue import LiteQueue

    lock = threading.Lock()
    queue = LiteQueue(filename_or_conn=str(folder / "queue.db"))
    queue.conn.execute("PRAGMA synchronous=FULL")

    def put(text: str) -> None:
        with lock:
            queue.put(text)

    return put


def _log() -> logging.Logger:
    log = logging.getLogger("peer")
    log.setLevel(logging.CRITICAL)
    log.trace = log.debug  # type: ignore[attr-defined]
    return log


def _thingsboard_sqlite(folder: Path) -> Put:
    from thingsboard_gateway.storage.sqlite.sqlite_event_storage import SQLiteEventStorage

    settings = {"data_file_path": f"{folder}/"}
    return _accepted(SQLiteEventStorage(settings, _log(), threading.Event()).put)


def _thingsboard_file(folder: Path) -> Put:
    from thingsboard_gateway.storage.file.file_event_storage import FileEventStorage

    # As its documented configuration has it.
    settings = {
        "data_folder_path": f"{folder}/",
        "max_file_count": 10,
        "max_records_per_file": 10_000,
        "max_records_between_fsync": 10,
    }
    return _accepted(FileEventStorage(settings, _log(), threading.Event()).put)


def _accepted(put: Callable[[str], bool]) -> Put:
    def call(text: str) -> None:
        if not put(text):
            raise RuntimeError("put was refused")

    return call


WAYS: dict[str, Callable[[Path], Put]] = {
    "persist-queue": _persist_queue,
    "litequeue": _litequeue,
    "thingsboard-sqlite": _thingsboard_sqlite,
    "thingsboard-file": _thingsboard_file,
}


def _count(way: str, folder: Path) -> int:
    if way == "thingsboard-file":
        files = folder.glob("data_*.txt")
        return sum(len(path.read_bytes().splitlines()) for path in files)
    database, table = {
        "persist-queue": ("data.db", "queue_default"),
        "litequeue": ("queue.db", "Queue"),
        "thingsboard-sqlite": ("data.db", "messages"),
    }[way]
    with sqlite3.connect(folder / database) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _many(put: Put, rows: int, threads: int, size_bytes: int) -> dict[str, float]:
    text = json.dumps({"detail": "x" * size_bytes})

    def some() -> None:
        for _ in range(rows // threads):
            put(text)

    workers = [threading.Thread(target=some) for _ in range(threads)]
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"seconds": time.perf_counter() - begun_s, "cpu_s": time.process_time() - cpu_s}


def main() -> None:
    """Do what the command line says."""
    way, mode, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    rows, threads, size_bytes = (int(word) for word in sys.argv[4:7])
    if mode == "count":
        print(_count(way, folder))
        return
    found = _many(WAYS[way](folder), rows, threads, size_bytes)
    print(json.dumps(found), flush=True)
    if mode == "wait":
        threading.Event().wait()


if __name__ == "__main__":
    main()
