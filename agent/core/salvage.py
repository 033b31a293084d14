"""Rows out of a damaged database, as far as they can be read, into a new one.

SQLite stops at the first page that it cannot follow. What lies beyond is reached from the other
end, and what lies between two such pages by halving the range of keys in between, breadth first,
so that a few probes find what is left of a table wherever it was hit. A key is a number or 32 hex
digits; of a key with several parts the last one is halved.
"""

import sqlite3
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from agent.core import firstpage

MOST_PROBES: Final = 2000  # ranges looked at in a table
BATCH_ROWS: Final = 500
ID_DIGITS: Final = 32
_MOST_NUMBER: Final = (1 << 63) - 1
_AFTER_IDS: Final = "g"  # no hex digit comes after it

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What came out of a damaged database."""

    rows: Mapping[str, int]  # by table
    torn: tuple[str, ...]  # tables of which something could not be read
    refused: int  # rows that were read but break a rule of their table

    @property
    def text(self) -> str:
        """Say it in a line."""
        kept = ", ".join(f"{name} {count}" for name, count in self.rows.items() if count)
        torn = f"; not whole: {', '.join(self.torn)}" if self.torn else ""
        refused = f"; left out as broken: {self.refused}" if self.refused else ""
        return f"rows kept: {kept or 'none'}{torn}{refused}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ours."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]  # in its order
    is_numbered: bool  # whether the last part of the key is a number


@dataclass(frozen=True, slots=True)
class _Range:
    """Keys between two, both excluded; None: no bound."""

    low: Key | None = None
    high: Key | None = None


def salvage(damaged: Path, fresh: sqlite3.Connection) -> Salvaged:
    """Copy every row that can be read into an empty database of the same form.

    Args:
        damaged: the database; its write-ahead log, if there is one, lies beside it.
        fresh: made by the same migrations, in autocommit mode, without rows.

    Raises:
        sqlite3.Error, OSError: `fresh` or its disk takes no more.
    """
    ours = tables(fresh)
    rows = dict.fromkeys((table.name for table in ours), 0)
    torn: list[str] = []
    refused = 0
    with firstpage.opened(damaged, fresh, ours) as source:
        for table in ours:
            reading = _Reading(source, table)
            for batch in _batches(reading.rows()):
                kept = _insert(fresh, table.name, reading.columns, batch)
                rows[table.name] += kept
                refused += len(batch) - kept
            if reading.is_torn:
                torn.append(table.name)
        _carry_counters(source, fresh)
    return Salvaged(rows, tuple(torn), refused)


def tables(fresh: sqlite3.Connection) -> list[Table]:
    """Give the tables of a database in the order in which they were made."""
    names = fresh.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        " ORDER BY rowid"
    )
    return [_table(fresh, row[0]) for row in names.fetchall()]


def _table(fresh: sqlite3.Connection, name: str) -> Table:
    described = fresh.execute(f"PRAGMA table_info({name})").fetchall()
    key = sorted((row["pk"], row["name"], row["type"]) for row in described if row["pk"])
    return Table(
        name,
        tuple(row["name"] for row in described),
        tuple(part for _, part, _ in key),
        key[-1][2] == "INTEGER",
    )


class _Reading:
    """One table of the damaged database, read once."""

    def __init__(self, source: sqlite3.Connection, table: Table) -> None:
        self.is_torn = False
        self.columns: tuple[str, ...] = ()  # those that both databases have
        self._source = source
        self._table = table

    def rows(self) -> Iterator[Key]:
        """Give each row that can be read, as values of the columns."""
        if not self._find_columns():
            self.is_torn = True
            return
        ranges, probes = deque([_Range()]), 0
        while ranges and probes < MOST_PROBES:
            probes += 1
            found = ranges.popleft()
            low, is_done = yield from self._scan(found, "ASC")
            if is_done:
                continue
            self.is_torn = True
            high, _ = yield from self._scan(_Range(low, found.high), "DESC")
            ranges.extend(_halves(_Range(low, high), self._table))

    def _find_columns(self) -> bool:
        """An older database lacks later columns; whether there is enough to tell rows apart."""
        try:
            described = self._source.execute(f"PRAGMA table_info({self._table.name})").fetchall()
        except firstpage.UNREADABLE:
            return False
        there = {row["name"] for row in described}
        self.columns = tuple(name for name in self._table.columns if name in there)
        return there.issuperset(self._table.key)

    def _scan(self, within: _Range, order: str) -> Generator[Key, None, tuple[Key | None, bool]]:
        """Give rows up to one that cannot be read; returns the key reached and if it was all."""
        reached = within.low if order == "ASC" else within.high
        places = [self.columns.index(name) for name in self._table.key]
        query, values = self._query(within, order)
        try:
            for row in self._source.execute(query, values):
                yield tuple(row)
                reached = tuple(row[place] for place in places)
        except firstpage.UNREADABLE:
            return reached, False
        return reached, True

    def _query(self, within: _Range, order: str) -> tuple[str, Key]:
        key = ", ".join(self._table.key)
        bounds = [(">", within.low), ("<", within.high)]
        where = " AND ".join(
            f"({key}) {sign} ({', '.join('?' * len(bound))})" for sign, bound in bounds if bound
        )
        sorting = ", ".join(f"{name} {order}" for name in self._table.key)
        query = (  # NOT INDEXED: an index may be what is damaged
            f"SELECT {', '.join(self.columns)} FROM {self._table.name} NOT INDEXED"  # noqa: S608 - our own names
            f" WHERE {where or 'true'} ORDER BY {sorting}"
        )
        return query, (*(within.low or ()), *(within.high or ()))


def _halves(found: _Range, table: Table) -> list[_Range]:
    """Split a range in the middle; nothing if it holds one key, or has no middle that we know."""
    head = (found.low or found.high or (None,))[:-1]
    if len(head) != len(table.key) - 1:
        return []
    if found.low and found.high and found.low[:-1] != found.high[:-1]:
        return _by_heads(found.low, found.high, table)
    low = _number(found.low[-1] if found.low else _first(table))
    high = _number(found.high[-1] if found.high else _last(table))
    if low is None or high is None or high - low <= 2:  # noqa: PLR2004 - one key, which was tried
        return []
    middle = (low + high + 1) // 2
    upper, below = ((*head, _part(number, table)) for number in (middle, middle - 1))
    return [_Range(found.low, upper), _Range(below, found.high)]


def _by_heads(low: Key, high: Key, table: Table) -> list[_Range]:
    """Split a range whose ends differ before the last part: what belongs to each, and the rest."""
    after, before = (*low[:-1], _last(table)), (*high[:-1], _first(table))
    if (low, high) == (after, before):
        return []
    return [_Range(low, after), _Range(before, high), _Range(after, before)]


def _first(table: Table) -> object:
    return -1 if table.is_numbered else ""


def _last(table: Table) -> object:
    return _MOST_NUMBER if table.is_numbered else _AFTER_IDS


def _number(part: object) -> int | None:
    if isinstance(part, int):
        return part
    if part in ("", _AFTER_IDS):
        return -1 if not part else 1 << 4 * ID_DIGITS
    if not isinstance(part, str) or len(part) != ID_DIGITS:
        return None
    try:
        return int(part, 16)
    except ValueError:
        return None


def _part(number: int, table: Table) -> object:
    return number if table.is_numbered else f"{number:0{ID_DIGITS}x}"


def _batches(rows: Iterator[Key]) -> Iterator[list[Key]]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield batch


def _insert(
    fresh: sqlite3.Connection, table: str, columns: Sequence[str], batch: Sequence[Key]
) -> int:
    """Add rows and give how many it were; one that breaks a rule is left out."""
    marks = ", ".join("?" * len(columns))
    query = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - our own names
    fresh.execute("BEGIN")
    try:
        kept = fresh.executemany(query, batch).rowcount
    except BaseException:
        fresh.execute("ROLLBACK")
        raise
    fresh.execute("COMMIT")
    return kept


def _carry_counters(source: sqlite3.Connection, fresh: sqlite3.Connection) -> None:
    """An id that was given and freed must not be given again."""
    try:
        found = source.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
    except firstpage.UNREADABLE:
        return  # then the largest id that was read counts
    ours = {table.name for table in tables(fresh)}
    for name, seq in found:
        if name in ours and isinstance(seq, int):
            query = "SELECT max(seq) FROM sqlite_sequence WHERE name = ?"
            known = fresh.execute(query, (name,)).fetchone()[0] or 0
            fresh.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            fresh.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (name, max(seq, known)))
