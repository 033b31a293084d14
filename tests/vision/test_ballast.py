"""The ballast: on a disk that somebody has filled, the keeper can still make room."""

import os
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.core.errors import StorageError
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.vision import ballast, room
from tests.vision.recording import TMPFS_MB, tmpfs
from tests.vision.shelf import DAY_S, Shelf

small_disk = pytest.fixture(tmpfs)


def fill(folder: Path) -> None:
    """Leave nothing of a disk."""
    with (folder.parent / folder.name / "filler").open("wb") as stream:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    os.write(stream.fileno(), bytes(size))
            except OSError:
                continue


def write_on(store: Store) -> None:
    """Write until the disk refuses."""
    add = "INSERT INTO meta VALUES (hex(randomblob(16)), hex(randomblob(50000)))"
    for _ in range(100):
        store.write(lambda connection: connection.execute(add).rowcount)


def test_on_a_full_disk_the_keeper_makes_room_all_the_same(small_disk: Path) -> None:
    state = small_disk / "state"
    store = Store(state / "outpost.db", DEVICE_MIGRATIONS, RealClock())
    store.open()
    shelf = Shelf(store, state)
    for number in range(3):
        shelf.clip(f"c{number}", 10_000_000)
    shelf.keeper.tidy()
    assert (state / ballast.NAME).stat().st_size == TMPFS_MB * (1 << 20) * 0.04
    shelf.clock.advance(2 * DAY_S)
    fill(small_disk)
    assert room.of(state).free_bytes == 0
    with pytest.raises(StorageError):  # nothing is written any more
        write_on(store)
    shelf.keeper.tidy()
    assert "deleted" in shelf.states().values()
    disk = room.of(state)
    assert disk.free_bytes >= disk.reserve_bytes
    assert len(shelf.log("clip.deleted")) >= 1
    shelf.keeper.tidy()
    assert (state / ballast.NAME).exists()  # laid again
    store.close()


def test_without_room_no_ballast_is_laid(small_disk: Path) -> None:
    fill(small_disk)
    assert ballast.lay(small_disk) is False
    assert ballast.release(small_disk) is False
    assert not (small_disk / ballast.NAME).exists()
