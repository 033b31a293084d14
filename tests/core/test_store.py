"""The one database: what a returned write promises, its bound, its damage, its one writer."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path

import pytest

from agent.core import upkeep
from agent.core.clock import RealClock
from agent.core.errors import OutboxFull, RowRefused, StorageError
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import PAGE_BYTES, Store, migrate, read_only
from agent.receiver.schema import RECEIVER_MIGRATIONS

ROOT = Path(__file__).parents[2]
NUMBERS = ("CREATE TABLE number (n INTEGER PRIMARY KEY, text BLOB) STRICT;",)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    opened: list[Store] = []

    def open_store(migrations: tuple[str, ...] = NUMBERS, max_bytes: int = 1 << 30) -> Store:
        store = Store(tmp_path / "outpost.db", migrations, RealClock(), max_bytes)
        opened.append(store)
        store.open()
        return store

    yield open_store
    for store in opened:
        store.close()


def insert(number: int, text: bytes = b"") -> Callable[[sqlite3.Connection], int]:
    def call(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO number VALUES (?, ?)", (number, text))
        return number

    return call


def stored(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return [row[0] for row in connection.execute("SELECT n FROM number ORDER BY n")]


def test_a_write_gives_its_result_and_is_seen_by_readers(make: Callable[..., Store]) -> None:
    store = make()
    assert store.write(insert(7)) == 7
    with store.reading() as connection:
        assert connection.execute("SELECT n FROM number").fetchone()["n"] == 7


def test_readers_cannot_write(make: Callable[..., Store]) -> None:
    store = make()
    with store.reading() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("INSERT INTO number VALUES (1, '')")


def test_is_as_durable_as_it_says(make: Callable[..., Store]) -> None:
    def pragmas(connection: sqlite3.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "auto_vacuum", "mmap_size", "page_size")
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    assert make().write(pragmas) == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "auto_vacuum": 2,  # INCREMENTAL
        "mmap_size": 0,
        "page_size": 4096,
    }


def test_one_bad_call_takes_nothing_from_its_neighbours(make: Callable[..., Store]) -> None:
    store = make()
    gate = threading.Event()
    first = store.submit(lambda _connection: gate.wait(5))

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO number VALUES (100, x'')")
        raise KeyError("a defect after the insert")

    futures: list[Future[object]] = [
        store.submit(insert(1)),
        store.submit(half),
        store.submit(insert(1)),  # a second 1: refused by the key
        store.submit(insert(2)),
    ]
    gate.set()
    first.result(5)
    assert futures[0].result(5) == 1
    assert isinstance(futures[1].exception(5), KeyError)
    with pytest.raises(RowRefused, match="UNIQUE constraint failed"):
        futures[2].result(5)
    assert futures[3].result(5) == 2
    assert stored(store.path) == [1, 2]


def test_work_that_queues_up_is_committed_together(make: Callable[..., Store]) -> None:
    store = make()
    gate = threading.Event()
    store.submit(lambda _connection: gate.wait(5))
    futures = [store.submit(insert(number)) for number in range(800)]
    gate.set()
    assert [future.result(10) for future in futures] == list(range(800))
    pages = store.path.with_name("outpost.db-wal").stat().st_size // 4096
    assert pages < 100, "a commit of its own for each of the 800 rows would take a page each"


def test_a_large_row_does_not_wait_for_a_full_batch(make: Callable[..., Store]) -> None:
    store = make()
    gate = threading.Event()
    store.submit(lambda _connection: gate.wait(5))
    committed: list[int] = []

    def count(connection: sqlite3.Connection) -> int:
        with closing(read_only(store.path)) as reader:
            committed.append(reader.execute("SELECT count(*) FROM number").fetchone()[0])
        return committed[-1]

    large = store.submit(insert(1, b"x" * (2 << 20)), size_bytes=2 << 20)
    after = store.submit(count)
    gate.set()
    large.result(5)
    assert after.result(5) == 1, "the megabyte was committed before the next work began"


def test_many_threads_write_at_once(make: Callable[..., Store]) -> None:
    store = make()

    def write(start: int) -> None:
        for number in range(start, start + 50):
            store.write(insert(number))

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert stored(store.path) == list(range(400))


def test_its_bound_is_told_and_deleting_still_works(make: Callable[..., Store]) -> None:
    store = make(max_bytes=1 << 20)
    fitting = 0
    with suppress(OutboxFull):
        while store.write(insert(fitting, b"x" * 20_000)) < 100:
            fitting += 1
    assert 30 < fitting < 60, "about a megabyte of rows went in"
    with pytest.raises(OutboxFull, match=r"raise storage\.max_db_mb"):
        store.write(insert(2000, b"x" * 20_000))
    store.write(lambda connection: connection.execute("DELETE FROM number WHERE n < 20"))
    assert store.write(insert(1000, b"x" * 20_000)) == 1000
    assert store.path.stat().st_size <= 1 << 20


def test_a_full_bound_loses_no_neighbour_that_was_told_yes(make: Callable[..., Store]) -> None:
    store = make(max_bytes=1 << 20)
    gate = threading.Event()
    store.submit(lambda _connection: gate.wait(5))
    futures = {number: store.submit(insert(number, b"x" * 30_000)) for number in range(80)}
    gate.set()
    promised = {number for number, future in futures.items() if future.exception(10) is None}
    refused = [error for future in futures.values() if (error := future.exception(10)) is not None]
    store.close()
    assert OutboxFull in {type(error) for error in refused}
    assert all(isinstance(error, StorageError) for error in refused)
    assert set(stored(store.path)) == promised


@pytest.mark.crash
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "outpost.db"
    writer = (
        "import sys\nfrom pathlib import Path\n"
        "from agent.core.clock import RealClock\nfrom agent.core.store import Store\n"
        f"store = Store(Path(sys.argv[1]), {NUMBERS!r}, RealClock())\n"
        "assert store.open() is None\n"
        "insert = 'INSERT INTO number VALUES (?, zeroblob(3000))'\n"
        "for n in range(int(sys.argv[2]), 10**9):\n"
        "    store.write(lambda connection: connection.execute(insert, (n,)))\n"
        "    print(n, flush=True)\n"
    )
    acknowledged = -1
    for round_number in range(6):
        argv = [sys.executable, "-c", writer, str(path), str(acknowledged + 2)]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(20 + 37 * round_number):
                acknowledged = int(process.stdout.readline())
            process.kill()
            rest = [int(line) for line in process.stdout.read().split()]
            acknowledged = max([acknowledged, *rest])
        found = stored(path)
        assert acknowledged in found
        assert len(found) >= 20
        assert found[-1] in (acknowledged, acknowledged + 1), "at most one more was on its way"
        acknowledged = found[-1]


def test_a_lost_wal_index_is_rebuilt(make: Callable[..., Store], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    store = make()
    for number in range(20):
        store.write(insert(number))
    for suffix in ("", "-wal"):  # as after a power cut: the -shm file is not durable
        source = store.path.with_name(store.path.name + suffix)
        (copy / source.name).write_bytes(source.read_bytes())
    again = Store(copy / "outpost.db", NUMBERS, RealClock())
    assert again.open() is None
    again.close()
    assert stored(copy / "outpost.db") == list(range(20))


def test_migrations_are_applied_once_and_in_order(make: Callable[..., Store]) -> None:
    store = make()
    store.write(insert(1))
    store.close()
    steps = (*NUMBERS, "ALTER TABLE number ADD COLUMN unit TEXT NOT NULL DEFAULT 'm';")
    store = make(steps)
    found = store.write(lambda connection: connection.execute("SELECT * FROM number").fetchall())
    assert [tuple(row) for row in found] == [(1, b"", "m")]
    store.close()
    make(steps).close()
    with pytest.raises(StorageError, match="schema 2 is newer than this program's 1"):
        make(NUMBERS)


def test_a_failed_migration_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, NUMBERS, path)
        broken = (*NUMBERS, "CREATE TABLE other (x INTEGER); CREATE TABLE number (x INTEGER);")
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            migrate(connection, broken, path)
        connection.rollback()
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert names == {"number"}


def test_the_device_schema_stands_and_its_checks_bite(make: Callable[..., Store]) -> None:
    store = make(DEVICE_MIGRATIONS)
    with pytest.raises(RowRefused, match="constraint failed"):
        store.write(
            lambda connection: connection.execute(
                "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state)"
                " VALUES ('a', 'b', 'gate', 1, 2, 'forgotten')"
            )
        )
    make_row = (
        "INSERT INTO outbox (lane, message_id, topic, payload, created_utc_ns, boot,"
        " created_mono_ns) VALUES ('alarm', ?, 't', x'', 0, 1, 0)"
    )
    store.write(lambda connection: connection.execute(make_row, ("a",)))
    store.write(lambda connection: connection.execute("DELETE FROM outbox"))
    store.write(lambda connection: connection.execute(make_row, ("b",)))
    with store.reading() as connection:
        assert connection.execute("SELECT id FROM outbox").fetchone()[0] == 2, "no id comes back"


@pytest.mark.parametrize("migrations", [DEVICE_MIGRATIONS, RECEIVER_MIGRATIONS])
def test_an_upgraded_schema_equals_a_fresh_one(migrations: tuple[str, ...], tmp_path: Path) -> None:
    def schema(path: Path) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(path)) as connection:
            query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
            return [tuple(row) for row in connection.execute(query)]

    def opened(path: Path, steps: tuple[str, ...]) -> None:
        store = Store(path, steps, RealClock())
        store.open()
        store.close()

    opened(tmp_path / "fresh.db", migrations)
    for version in range(len(migrations)):
        path = tmp_path / f"from-{version}.db"
        opened(path, migrations[:version])
        opened(path, migrations)
        assert schema(path) == schema(tmp_path / "fresh.db")


def test_freed_pages_go_back_to_the_disk(make: Callable[..., Store], tmp_path: Path) -> None:
    store = make()
    for number in range(40):
        store.write(insert(number, b"x" * 200_000), 200_000)
    full = pages(store)
    store.write(lambda connection: connection.execute("DELETE FROM number WHERE n > 0"))
    deadline_s = time.monotonic() + 30
    while pages(store) > full // 4 and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert full > 1900
    assert pages(store) < full // 4
    store.close()
    assert (tmp_path / "outpost.db").stat().st_size < full * PAGE_BYTES // 4
    assert stored(tmp_path / "outpost.db") == [0]


def pages(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute("PRAGMA page_count").fetchone()[0]


def test_the_log_is_bounded_once_no_reader_needs_it(
    make: Callable[..., Store], tmp_path: Path
) -> None:
    store, log = make(), tmp_path / "outpost.db-wal"

    def fill(first: int) -> None:
        for number in range(first, first + 2 * upkeep.LOOK_COMMITS):
            store.write(insert(number, b"x" * 300_000))

    with store.reading() as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM number").fetchone()
        fill(0)
        assert log.stat().st_size > upkeep.LOG_BYTES  # the reader still sees what was
        connection.execute("COMMIT")
    fill(1000)
    assert log.stat().st_size <= upkeep.LOG_BYTES + upkeep.LOOK_COMMITS * 310_000


def test_a_closed_store_refuses_and_closes_twice(make: Callable[..., Store]) -> None:
    store = make()
    pending = [store.submit(insert(number)) for number in range(100)]
    store.close()
    store.close()
    assert [future.result(0) for future in pending] == list(range(100)), "what was queued is done"
    with pytest.raises(StorageError, match="closed"):
        store.write(insert(1000))


def test_reading_what_is_not_there_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        read_only(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_does_not_fit_leaves_its_neighbours_alone(tmp_path):
    store = Store(tmp_path / "small.db", DEVICE_MIGRATIONS, RealClock(), max_bytes=600_000)
    store.open()
    try:
        begun, gate = threading.Event(), threading.Event()

        def hold(connection):
            begun.set()
            gate.wait(5)

        def put(key, size_bytes):
            return store.submit(
                lambda connection: (
                    connection.execute(
                        "INSERT INTO meta VALUES (?, ?)", (key, "x" * size_bytes)
                    ).rowcount
                )
            )

        held = store.submit(hold)
        begun.wait(5)
        small, huge, other = put("a", 10), put("b", 5_000_000), put("c", 10)
        gate.set()
        held.result(5)
        assert small.result(5) == other.result(5) == 1
        with pytest.raises(OutboxFull):
            huge.result(5)
        with store.reading() as connection:
            found = connection.execute("SELECT key FROM meta ORDER BY key").fetchall()
        assert [row["key"] for row in found] == ["a", "c"]
    finally:
        store.close()


def test_reading_that_fails_is_a_storage_error(tmp_path):
    store = Store(tmp_path / "box.db", DEVICE_MIGRATIONS, RealClock())
    store.open()
    try:
        with pytest.raises(StorageError, match=r"box\.db"), store.reading() as connection:
            connection.execute("SELECT * FROM nothing_of_that_name")
        with pytest.raises(StorageError, match="readonly"), store.reading() as connection:
            connection.execute("DELETE FROM meta")
    finally:
        store.close()
