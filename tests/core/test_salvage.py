"""A damaged database: what can be read lives on, nothing is invented, and a start never fails."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.core import mending
from agent.core.clock import NS_PER_S, RealClock, SimClock
from agent.core.errors import StorageError
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import PAGE_BYTES, Store
from agent.receiver.schema import RECEIVER_MIGRATIONS

ROWS = 400
DAMAGES = ("bits", "first page", "pages", "cut", "stretch", "ends")


def device_rows(connection: sqlite3.Connection) -> None:
    for number in range(ROWS):
        row_id = f"{(0x01A2089BC64C54CE << 64) | number * 77_777:032x}"
        payload = json.dumps({"n": number, "x": "y" * (number * 37 % 500)}).encode()
        connection.execute(
            "INSERT INTO outbox (lane, message_id, topic, payload, created_utc_ns, boot,"
            " created_mono_ns) VALUES ('alarm', ?, 't', ?, ?, 3, 0)",
            (row_id, payload, number),
        )
        connection.execute(
            "INSERT INTO event VALUES (?, 'cam', 'kind', 'rule', 'closed', ?, ?, ?)",
            (row_id, number, number, payload.decode()),
        )
        connection.execute(
            "INSERT INTO custody VALUES (?, ?, 'kind', 'subject', ?, 'p', 'h')",
            (number + 1, number, payload.decode()),
        )
    connection.execute("INSERT INTO meta VALUES ('boot', '3')")
    connection.execute("DELETE FROM outbox WHERE id > ?", (ROWS - 20,))


def centre_rows(connection: sqlite3.Connection) -> None:
    for number in range(ROWS):
        for device in ("cam-1", "cam-2"):
            connection.execute(
                "INSERT INTO message (device, id, boot, lane, seq, kind, t_utc_ms,"
                " received_utc_ms, payload) VALUES (?, ?, 1, 'alarm', ?, 'beat', 1, 1, ?)",
                (device, f"{number * 9999:032x}", number, b"z" * (number % 300)),
            )


@pytest.fixture(params=["device", "centre"])
def sound(request, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A database with rows in it, closed."""
    migrations, fill = {
        "device": (DEVICE_MIGRATIONS, device_rows),
        "centre": (RECEIVER_MIGRATIONS, centre_rows),
    }[request.param]
    store = Store(tmp_path / "sound.db", migrations, RealClock())
    store.open()
    store.write(fill)
    store.close()
    return store.path, migrations


@pytest.fixture
def opened() -> Iterator[Callable[[Path, tuple[str, ...]], tuple[Store, mending.Mended | None]]]:
    stores: list[Store] = []

    def open_it(path: Path, migrations: tuple[str, ...] = DEVICE_MIGRATIONS):
        store = Store(path, migrations, RealClock())
        stores.append(store)
        return store, store.open()

    yield open_it
    for store in stores:
        store.close()


def contents(path: Path) -> dict[str, set[tuple]]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        names = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        return {name: set(connection.execute(f"SELECT * FROM {name}")) for (name,) in names}


def damage(path: Path, kind: str, dice: random.Random) -> None:
    """Change a file."""
    content = bytearray(path.read_bytes())
    size = len(content)
    pages = range(1, size // PAGE_BYTES)
    begin = dice.choice(pages[: len(pages) // 2])
    spots = {
        "bits": [range(spot, spot + 1) for spot in dice.choices(range(size), k=32)],
        "first page": [range(PAGE_BYTES)],
        "pages": [range(n * PAGE_BYTES, (n + 1) * PAGE_BYTES) for n in dice.sample(pages, 8)],
        "stretch": [range(begin * PAGE_BYTES, (begin + 12) * PAGE_BYTES)],
        "ends": [range(100), range(size - PAGE_BYTES, size)],
        "cut": [],
    }[kind]
    for spot in spots:
        for place in spot:
            content[place] ^= dice.randrange(1, 256)
    path.write_bytes(content[: dice.randrange(size)] if kind == "cut" else content)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("seed", range(4))
def test_a_database_damaged_anyhow_opens_and_keeps_what_can_be_read(
    sound, opened, kind, seed
) -> None:
    path, migrations = sound
    before = contents(path)
    damage(path, kind, random.Random(f"{kind}{seed}"))
    mending.mark(path, "a test has damaged it")  # what the check beside the work would do
    store, mended = opened(path, migrations)
    assert mended is not None
    assert mended.salvaged is not None
    store.close()
    after = contents(path)
    assert set(after) == set(before)
    kept = sum(len(after[name] & before[name]) for name in before)
    share = kept / sum(len(rows) for rows in before.values())
    # A bit may change a text without any sign of it; a page of a tree takes all below it along.
    least = {"first page": 1.0, "bits": 0.6, "pages": 0.2, "ends": 0.9, "stretch": 0.5, "cut": 0.0}
    assert share >= least[kind], mended.text
    if kind not in ("bits", "cut"):
        assert all(rows <= before[name] for name, rows in after.items()), "a row was invented"


def test_no_freed_id_is_given_again(opened, tmp_path) -> None:
    store, _ = opened(tmp_path / "outpost.db")
    store.write(device_rows)
    store.close()
    damage(store.path, "first page", random.Random(1))
    store, _ = opened(store.path)
    row_id = store.write(
        lambda connection: (
            connection.execute(
                "INSERT INTO outbox (lane, message_id, topic, payload, created_utc_ns, boot,"
                " created_mono_ns) VALUES ('alarm', 'new', 't', x'00', 0, 4, 0)"
            ).lastrowid
        )
    )
    assert row_id == ROWS + 1


@pytest.mark.parametrize("content", [b"these are holiday pictures" * 1000, b"\0" * 40_960])
def test_a_file_that_is_no_database_is_set_aside(opened, tmp_path, content) -> None:
    path = tmp_path / "outpost.db"
    path.write_bytes(content)
    store, mended = opened(path)
    assert mended is not None
    assert mended.moved_to.read_bytes() == content
    assert store.write(lambda c: c.execute("SELECT count(*) FROM event").fetchone()[0]) == 0


def test_an_empty_file_is_a_new_database(opened, tmp_path) -> None:
    path = tmp_path / "outpost.db"
    path.touch()
    assert opened(path)[1] is None


def test_a_log_of_nothing_without_its_database_is_set_aside(opened, tmp_path) -> None:
    path, log = tmp_path / "other.db", b"\x37\x7f\x06\x82" + bytes(8000)
    path.with_name("other.db-wal").write_bytes(log)
    store, mended = opened(path)
    assert mended is not None
    assert mended.moved_to.with_name(mended.moved_to.name + "-wal").read_bytes() == log
    assert store.write(lambda c: c.execute("SELECT count(*) FROM event").fetchone()[0]) == 0


def test_what_was_committed_last_stands_in_the_log_and_is_salvaged_too(opened, tmp_path) -> None:
    store = Store(tmp_path / "live.db", DEVICE_MIGRATIONS, RealClock())
    store.open()
    store.write(device_rows)
    copy = tmp_path / "copy.db"
    for suffix in ("", "-wal"):  # as a power cut leaves them
        copy.with_name(copy.name + suffix).write_bytes(
            store.path.with_name(store.path.name + suffix).read_bytes()
        )
    store.close()
    mending.mark(copy, "a test says so")
    _, mended = opened(copy)
    assert mended is not None
    assert mended.salvaged is not None
    assert mended.salvaged.rows["custody"] == ROWS


def test_names_that_are_no_text_any_more_are_damage(opened, tmp_path) -> None:
    store, _ = opened(tmp_path / "outpost.db")
    store.write(device_rows)
    store.close()
    content = store.path.read_bytes()
    for old, new in (
        (b"CREATE TABLE event", b"CREATE TABL\xa0 event"),
        (b"custody (", b"custod\xa0 ("),
    ):
        store.path.write_bytes(content.replace(old, new, 1))
        again, mended = opened(store.path)
        again.close()
        assert mended is not None
        assert mended.salvaged is not None
        assert mended.salvaged.rows["custody"] == ROWS


def test_the_note_is_in_the_new_database_before_it_is_used(tmp_path) -> None:
    path = tmp_path / "outpost.db"
    path.write_bytes(b"no database" * 1000)
    store = Store(path, DEVICE_MIGRATIONS, RealClock())

    def note(connection: sqlite3.Connection, mended: mending.Mended) -> None:
        connection.execute("INSERT INTO meta VALUES ('told', ?)", (mended.text,))

    store.open(note)
    told = store.write(lambda c: c.execute("SELECT value FROM meta").fetchone()["value"])
    store.close()
    assert "file is not a database" in told
    assert "rows kept: none; not whole: meta, segment" in told


def test_a_start_that_was_cut_off_while_it_mended_begins_again(sound, opened) -> None:
    path, migrations = sound
    before = contents(path)
    damage(path, "first page", random.Random(2))
    half = path.with_name(path.name + ".salvage")
    half.write_bytes(b"half of a new database")
    store, mended = opened(path, migrations)
    store.close()
    assert mended is not None
    assert contents(path) == before
    assert not half.exists()


def test_a_new_database_that_was_finished_takes_its_place_at_the_next_start(sound, opened) -> None:
    path, migrations = sound
    before = contents(path)
    path.rename(path.with_name(path.name + ".salvage"))  # the other one is set aside already
    mending.mark(path, "of the one that is aside")
    store, mended = opened(path, migrations)
    store.close()
    assert mended is None
    assert contents(path) == before


def test_two_damaged_copies_are_kept(opened, tmp_path) -> None:
    path = tmp_path / "outpost.db"
    for number in range(4):
        path.write_bytes(f"no database {number}".encode() * 1000)
        store, _ = opened(path)
        store.close()
        for suffix in ("", "-wal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    kept = sorted(tmp_path.glob("outpost.db.bad-*"))
    assert mending.copies(path) == [item.name for item in kept if "-wal" not in item.name]
    assert [item.read_bytes()[:13] for item in kept] == [b"no database 2", b"no database 3"]


def test_without_room_for_its_rows_the_box_starts_all_the_same(tmp_path) -> None:
    big = Store(tmp_path / "outpost.db", DEVICE_MIGRATIONS, RealClock())
    big.open()
    big.write(device_rows)
    big.close()
    mending.mark(big.path, "a test says so")
    small = Store(big.path, DEVICE_MIGRATIONS, RealClock(), max_bytes=64 * PAGE_BYTES)
    mended = small.open()
    rows = small.write(lambda c: c.execute("SELECT count(*) FROM custody").fetchone()[0])
    small.close()
    assert mended is not None
    assert mended.salvaged is None
    assert "begun anew" in mended.text
    assert rows == 0
    assert mended.moved_to.stat().st_size > 64 * PAGE_BYTES, "nothing is thrown away"


def test_a_folder_that_takes_nothing_is_a_clear_error(tmp_path) -> None:
    path = tmp_path / "is-a-file" / "outpost.db"
    path.parent.write_text("no folder")
    with pytest.raises((StorageError, OSError), match="is-a-file"):
        Store(path, DEVICE_MIGRATIONS, RealClock()).open()


@pytest.mark.parametrize("seed", range(3))
def test_a_bit_of_the_header_never_keeps_a_box_from_starting(opened, tmp_path, seed) -> None:
    store, _ = opened(tmp_path / "outpost.db")
    store.write(device_rows)
    store.close()
    content = store.path.read_bytes()
    in_header = [18, 47, 60, 61, 62, 63, *random.Random(seed).sample(range(100), 4)]
    for place in in_header:
        changed = bytearray(content)
        changed[place] ^= 1 << (seed * 3 + 1) % 8
        store.path.write_bytes(changed)
        again, _ = opened(store.path)
        kept = again.write(lambda c: c.execute("SELECT count(*) FROM custody").fetchone()[0])
        again.close()
        assert kept > ROWS // 2, f"byte {place}"


def test_a_newer_program_s_database_is_left_to_that_program(opened, tmp_path) -> None:
    path = tmp_path / "outpost.db"
    newer = (*DEVICE_MIGRATIONS, "CREATE TABLE later (n INTEGER PRIMARY KEY);")
    opened(path, newer)[0].close()
    with pytest.raises(StorageError, match="is newer than this program's"):
        opened(path)
    assert "later" in contents(path)
    assert not list(tmp_path.glob("outpost.db.bad-*"))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_log_whose_database_is_gone_gives_back_its_rows(opened, tmp_path, is_there) -> None:
    live, _ = opened(tmp_path / "live.db")
    live.write(device_rows)
    log = live.path.with_name("live.db-wal").read_bytes()
    path = tmp_path / "outpost.db"
    path.with_name("outpost.db-wal").write_bytes(log)
    if is_there:
        path.touch()
    _, mended = opened(path)
    assert mended is not None
    assert mended.salvaged is not None
    assert mended.salvaged.rows["custody"] == ROWS
    aside = mended.moved_to.with_name(mended.moved_to.name + "-wal")
    assert aside.read_bytes() == log, "nothing is thrown away"


def test_a_new_database_does_not_meet_the_log_of_the_old_one(opened, tmp_path) -> None:
    live, _ = opened(tmp_path / "live.db")
    live.write(device_rows)
    log = live.path.with_name("live.db-wal").read_bytes()
    new, _ = opened(tmp_path / "outpost.db.salvage")
    new.write(lambda c: c.execute("INSERT INTO meta VALUES ('boot', '77')"))
    new.close()
    (tmp_path / "outpost.db.bad-5").write_bytes(b"set aside, and then the power went")
    (tmp_path / "outpost.db-wal").write_bytes(log)
    store, mended = opened(tmp_path / "outpost.db")
    boot = store.write(lambda c: c.execute("SELECT value FROM meta").fetchone()["value"])
    assert mended is None
    assert boot == "77", "the old rows came back out of the log"
    assert (tmp_path / "outpost.db.bad-5-wal").read_bytes() == log


def test_a_copy_made_while_the_clock_was_wrong_is_kept(tmp_path) -> None:
    path = tmp_path / "outpost.db"
    for utc_s in (1_795_000_000, 1_795_000_100, 10):
        path.write_bytes(f"no database {utc_s}".encode() * 1000)
        store = Store(path, DEVICE_MIGRATIONS, SimClock(utc_s * NS_PER_S))
        mended = store.open()
        store.close()
        assert mended is not None
        assert mended.moved_to.exists()
        for suffix in ("", "-wal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert len(list(tmp_path.glob("outpost.db.bad-*"))) == 2
