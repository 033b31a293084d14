"""A damaged database opened for reading, with another first page where its own is gone.

The first page names the tables and where each begins. In a database with auto-vacuum the roots of
all tables stand at its beginning, in places that follow from the steps that made them alone. So a
page with the names and places of a new database of ours fits any other one; it is put before a
copy, and the damaged file stays as it is.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agent.core.salvage import Table

PAGE_BYTES: Final = 4096
UNREADABLE: Final = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter in SQLite's own words
COPY_SUFFIX: Final = ".copy"
WAL_HEADER_BYTES: Final = 32
_MAGIC = b"SQLite format 3\0"
_JOURNAL = slice(18, 20)
_WRITERS = 18  # which SQLite may write: 1 a journal, 2 a write-ahead log
_FORMAT = slice(44, 48)  # of the schema; 0 before the first table
_NEWEST_WRITER, _NEWEST_FORMAT = 2, 4
_PAGE_COUNT = slice(28, 32)
_KIND, _LEAF = 100, 13  # of the page: all of the schema stands in it


def fault(path: Path) -> str:
    """Say what is wrong with a database before SQLite touches it; empty if nothing is seen.

    These SQLite does not call damage: of a header that only a newer SQLite could have written it
    says that it cannot write or read it, and beside an empty file it deletes the log.

    Raises:
        OSError: the disk refuses.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_FORMAT.stop)
    except FileNotFoundError:
        head = b""
    if not head and _has_frames(path):
        return "nothing is left of it but its log"
    if len(head) < _FORMAT.stop or not head.startswith(_MAGIC):
        return ""  # which SQLite says by itself
    if head[_WRITERS] > _NEWEST_WRITER:
        return f"write version {head[_WRITERS]} in its header; allowed: up to {_NEWEST_WRITER}"
    if (number := int.from_bytes(head[_FORMAT], "big")) > _NEWEST_FORMAT:
        return f"schema format {number} in its header; allowed: up to {_NEWEST_FORMAT}"
    return ""


def _has_frames(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > WAL_HEADER_BYTES


@contextmanager
def opened(
    damaged: Path, fresh: sqlite3.Connection, tables: "Sequence[Table]"
) -> Iterator[sqlite3.Connection]:
    """Give a connection that reads what it can; one without any table if nothing can be.

    Args:
        damaged: the database; nothing of it is changed.
        fresh: a new database of the same form.
        tables: its tables.

    Raises:
        OSError: the disk has no room for a copy.
    """
    is_there = damaged.exists() and damaged.stat().st_size > 0
    source = _connect(damaged, tables) if is_there else None  # or its log would be deleted
    if source is not None:
        with closing(source):
            yield source
        return
    copy = damaged.with_name(damaged.name + COPY_SUFFIX)
    try:
        with closing(_copied(damaged, copy, fresh, tables)) as source:
            yield source
    finally:
        for suffix in ("", "-wal", "-shm"):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _connect(path: Path, tables: "Sequence[Table]") -> sqlite3.Connection | None:
    """Open a database if it names all tables."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    connection.text_factory = _text
    try:
        named = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    except UNREADABLE:
        named = set()
    if named.issuperset(table.name for table in tables):
        return connection
    connection.close()
    return None


def _text(stored: bytes) -> str:
    return stored.decode(errors="replace")


def _copied(
    damaged: Path, copy: Path, fresh: sqlite3.Connection, tables: "Sequence[Table]"
) -> sqlite3.Connection:
    page = _page(fresh, tables)
    size_bytes = damaged.stat().st_size if damaged.exists() else 0
    if page and (size_bytes > PAGE_BYTES or _has_frames(damaged)):
        copy.write_bytes(page)  # a log needs a page to stand beside
        if size_bytes:
            shutil.copyfile(damaged, copy)
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{damaged}-wal", f"{copy}-wal")
            page[_JOURNAL] = b"\2\2"  # a write-ahead log
        page[_PAGE_COUNT] = (copy.stat().st_size // PAGE_BYTES).to_bytes(4, "big")
        with copy.open("r+b") as stream:
            stream.write(page)
        connection = _connect(copy, tables)
        if connection is not None:
            return connection
    empty = sqlite3.connect(":memory:")
    empty.row_factory = sqlite3.Row
    return empty


def _page(fresh: sqlite3.Connection, tables: "Sequence[Table]") -> bytearray:
    """Make a page with nothing but names, columns, keys and places; empty if one is too short.

    Types and rules matter to who writes; a reader needs the order of columns and the key.
    """
    roots = dict(fresh.execute("SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'"))
    statements = {table.name: _statement(fresh, table) for table in tables}
    if "sqlite_sequence" in roots:
        statements["sqlite_sequence"] = "CREATE TABLE sqlite_sequence(name,seq)"
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as small:
        small.execute(f"PRAGMA page_size={PAGE_BYTES}")
        small.execute("PRAGMA auto_vacuum=INCREMENTAL")
        small.execute("PRAGMA writable_schema=ON")
        for name, statement in statements.items():
            values = (name, name, roots[name], statement)
            small.execute("INSERT INTO sqlite_schema VALUES ('table', ?, ?, ?, ?)", values)
        page = bytearray(small.serialize()[:PAGE_BYTES])
    return page if page[_KIND] == _LEAF else bytearray()


def _statement(fresh: sqlite3.Connection, table: "Table") -> str:
    kept_by = "SELECT wr FROM pragma_table_list WHERE name = ?"
    columns = list(table.columns)
    if fresh.execute(kept_by, (table.name,)).fetchone()[0]:
        key = f"PRIMARY KEY({','.join(table.key)})"
        return f"CREATE TABLE {table.name}({','.join([*columns, key])}) WITHOUT ROWID"
    if table.is_numbered:
        columns[columns.index(table.key[0])] += " INTEGER PRIMARY KEY"
    return f"CREATE TABLE {table.name}({','.join(columns)})"
