"""The check beside the work: silent about a sound database, mends an index, ends over damage."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.core.checkup import Checkup
from agent.core.clock import RealClock
from agent.core.errors import StoreCorrupt
from agent.core.store import PAGE_BYTES, Store
from agent.supervisor import EXIT_FAILED, Supervisor
from tests.vision.test_recorder import wait_for

STEPS = (
    """
    CREATE TABLE number (n INTEGER PRIMARY KEY, word TEXT NOT NULL);
    CREATE INDEX number_by_word ON number (word);
    """,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "outpost.db", STEPS, RealClock())
    store.open()
    words = [(n, f"{n * 7919 % 1000:04} {'x' * 40}") for n in range(1000)]
    store.write(
        lambda connection: connection.executemany("INSERT INTO number VALUES (?, ?)", words)
    )
    yield store
    store.close()


def spoil(store: Store, name: str) -> None:
    """Make the last page of a table's or an index's tree another one, behind everybody's back."""
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        (page,) = connection.execute(
            "SELECT max(pageno) FROM dbstat WHERE name = ? AND pagetype = 'leaf'", (name,)
        ).fetchone()
    with store.path.open("r+b") as stream:
        stream.seek((page - 1) * PAGE_BYTES + PAGE_BYTES - 2000)
        stream.write(b"\xff" * 1000)


def reopened(store: Store) -> Store:
    again = Store(store.path, STEPS, RealClock())
    assert again.open() is None, "the short look at the start does not see it"
    return again


def test_a_sound_database_is_left_alone(store, caplog) -> None:
    stop = threading.Event()
    checkup = Checkup(store, RealClock(), first_s=0.0)
    turns: list[int] = []
    thread = threading.Thread(target=checkup.run, args=(stop, lambda: turns.append(1)))
    thread.start()
    wait_for(lambda: len(turns) >= 3)
    stop.set()
    thread.join(5.0)
    assert not thread.is_alive()
    assert store.damage == ""
    assert not caplog.records


def test_an_index_that_differs_from_its_table_is_made_anew(store, caplog) -> None:
    store.write(lambda connection: connection.execute("PRAGMA writable_schema=ON").fetchall())
    store.close()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        keep = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema WHERE type = 'index'"
        row = connection.execute(keep).fetchone()
        connection.execute("DELETE FROM sqlite_schema WHERE type = 'index'")
        connection.execute("PRAGMA schema_version = 77")
        connection.execute("DELETE FROM number WHERE n = 500")
        connection.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
        connection.execute("PRAGMA schema_version = 78")
    again = reopened(store)
    stop = threading.Event()
    checkup = Checkup(again, RealClock(), first_s=0.0)
    thread = threading.Thread(target=checkup.run, args=(stop, lambda: None))
    thread.start()
    wait_for(lambda: "is made anew" in caplog.text)
    wait_for(lambda: _verdict(store.path) == "ok")
    stop.set()
    thread.join(5.0)
    assert again.damage == ""
    again.close()


def test_damage_ends_the_process_and_the_next_start_mends_it(store) -> None:
    spoil(store, "number")
    again = reopened(store)
    supervisor = Supervisor([Checkup(again, RealClock(), first_s=0.0)], RealClock())
    assert supervisor.run() == EXIT_FAILED
    assert again.damage
    again.close()
    mended = Store(store.path, STEPS, RealClock())
    found = mended.open()
    kept = mended.write(
        lambda connection: connection.execute("SELECT count(*) FROM number")
    ).fetchone()[0]
    mended.close()
    assert found is not None
    assert "set aside" in found.text
    assert 900 < kept <= 1000
    assert _verdict(store.path) == "ok"


def test_damage_that_a_write_meets_is_told_at_once(store) -> None:
    spoil(store, "number")
    again = reopened(store)
    with pytest.raises(StoreCorrupt, match="malformed"):
        again.write(
            lambda connection: connection.execute(
                "SELECT sum(length(word)) FROM number NOT INDEXED"
            ).fetchone()
        )
    wait_for(lambda: again.damage != "")
    with pytest.raises(StoreCorrupt):
        Checkup(again, RealClock()).run(threading.Event(), lambda: None)
    again.close()


def _verdict(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
