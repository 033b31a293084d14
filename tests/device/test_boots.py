"""The count of starts: never goes back, whatever becomes of the database."""

import json
from pathlib import Path

import pytest

from agent.core.clock import SimClock
from agent.core.errors import StorageError
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.device.boots import FILE_NAME, next_boot


def start(folder: Path) -> tuple[int, list[tuple[str, dict]]]:
    """Start once; gives the number and what the custody log says."""
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, SimClock())
    store.open()
    try:
        boot = next_boot(store, folder, SimClock())
        with store.reading() as connection:
            rows = connection.execute("SELECT kind, detail FROM custody").fetchall()
        return boot, [(row["kind"], json.loads(row["detail"])) for row in rows]
    finally:
        store.close()


def test_every_start_has_the_next_number(tmp_path):
    assert [start(tmp_path)[0] for _ in range(3)] == [1, 2, 3]


def test_a_database_that_is_gone_or_came_back_from_an_older_copy_does_not_set_it_back(tmp_path):
    start(tmp_path)
    older = (tmp_path / "outpost.db").read_bytes()
    start(tmp_path)
    start(tmp_path)
    (tmp_path / "outpost.db").write_bytes(older)
    boot, told = start(tmp_path)
    assert boot == 4
    assert told == [("store.older", {"boot": 3, "boot_in_database": 1})]
    (tmp_path / "outpost.db").unlink()
    boot, told = start(tmp_path)
    assert boot == 5
    assert told == [("store.older", {"boot": 4, "boot_in_database": 0})]


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"9" * 400, b"-3", b"2.5"])
def test_a_file_that_is_none_of_ours_does_not_count(tmp_path, content):
    start(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(content)
    assert start(tmp_path)[0] == 2
    assert (tmp_path / FILE_NAME).read_text() == "2\n"


def test_a_disk_that_refuses_is_named(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(StorageError, match=FILE_NAME):
        start(tmp_path)
