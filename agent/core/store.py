"""The box's one SQLite file: one writer thread, natural group commit, read-only readers.

Work handed in while the last fsync ran is committed together, so durability costs one fsync
for many rows under load and one for one row at rest. WAL with synchronous=FULL loses nothing
that a returned call promised (power cut included). Only the writer thread ever writes or
checkpoints: SQLite before 3.51.3 can corrupt a WAL that two connections reset at once.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from agent.core import firstpage, log, mending
from agent.core.clock import Clock, watch
from agent.core.errors import OutboxFull, RowRefused, StorageError, StoreCorrupt
from agent.core.files import sync_directory
from agent.core.mending import Mended, Note
from agent.core.salvage import tables
from agent.core.upkeep import Upkeep

T = TypeVar("T")

MAX_BATCH_ITEMS = 500
MAX_BATCH_BYTES = 1 << 20
BUSY_TIMEOUT_S = 5.0
PAGE_BYTES = 4096
SLOW_COMMIT_S = 1.0
QUEUE_ITEMS = 4096
IDLE_S = 0.5  # without work for so long there is time for upkeep

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class _Work:
    call: Callable[[sqlite3.Connection], Any]
    future: "Future[Any]"
    size_bytes: int


def _no_note(_connection: sqlite3.Connection, _mended: Mended) -> None:
    """Of a database that has no use for a note."""


class Store:
    """A database whose `write` returns once the change survives a power cut."""

    def __init__(
        self, path: Path, migrations: Sequence[str], clock: Clock, max_bytes: int = 1 << 30
    ) -> None:
        self.path = path
        self._migrations = migrations
        self._clock = clock
        self._max_bytes = max_bytes
        self._queue: queue.Queue[_Work | None] = queue.Queue(QUEUE_ITEMS)
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._damage = ""

    def open(self, note: Note = _no_note) -> Mended | None:
        """Look at the file or create it, bring its schema up to date, start the writer.

        The look is short; `agent.core.checkup` reads all of it beside the work.

        Args:
            note: what is to be written into a database that takes a damaged one's place.

        Returns:
            What was done about a damaged database, or None when nothing was seen.

        Raises:
            StorageError: the file cannot be created or its schema is newer than this program.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mended = None
        try:
            mending.tidy(self.path)
            connection = self._sound()
        except StoreCorrupt as error:
            mended = self._mend(str(error), note)
            connection = self._connect()
        except OSError as error:
            raise StorageError(f"store {self.path}: {error}") from error
        self._thread = threading.Thread(
            target=self._write_for_ever, args=(connection,), name="store", daemon=True
        )
        self._thread.start()
        return mended

    @property
    def damage(self) -> str:
        """What was found wrong with the file while it is in use; empty: nothing."""
        return self._damage

    def condemn(self, reason: str) -> None:
        """Have the next start mend the database; it goes on as it can until then."""
        if self._damage:
            return
        self._damage = reason
        _log.error("database is damaged; the next start mends it", reason=reason)
        try:
            mending.mark(self.path, reason)
        except OSError as error:
            _log.error("mark of the damage not written", reason=error)

    def write(self, call: Callable[[sqlite3.Connection], T], size_bytes: int = 0) -> T:
        """Run `call` in a transaction and return its result once that is on the disk.

        Raises:
            OutboxFull: the file has reached its bound.
            RowRefused: a row breaks a rule of its table.
            StorageError: the disk refuses.
        """
        return self.submit(call, size_bytes).result()

    def submit(self, call: Callable[[sqlite3.Connection], T], size_bytes: int = 0) -> "Future[T]":
        """Queue `call` for the writer; the future ends once it is on the disk, or failed."""
        future: Future[T] = Future()
        if self._is_closed or self._thread is None:
            raise StorageError(f"store {self.path}: closed")
        self._queue.put(_Work(call, future, size_bytes))
        return future

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a read-only connection for the duration of the block.

        Raises:
            StorageError: the database cannot be opened or read.
        """
        try:
            with closing(read_only(self.path)) as connection:
                yield connection
        except sqlite3.Error as error:
            if is_damage(error):
                self.condemn(str(error))
                raise StoreCorrupt(f"store {self.path}: {error}") from error
            raise StorageError(f"store {self.path}: {error}") from error

    def close(self) -> None:
        """Finish what is queued and stop; a second call does nothing."""
        if self._is_closed or self._thread is None:
            return
        self._is_closed = True
        self._queue.put(None)
        self._thread.join()

    def _sound(self) -> sqlite3.Connection:
        if reason := mending.marked(self.path) or firstpage.fault(self.path):
            raise StoreCorrupt(f"store {self.path}: {reason}")
        return self._connect()

    def _mend(self, reason: str, note: Note) -> Mended:
        try:
            return mending.mend(self.path, reason, self._clock.utc_ns(), self._fresh, note)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"store {self.path}: {error}") from error

    def _fresh(self, path: Path) -> sqlite3.Connection:
        """Make a database in place of the damaged one: not in use yet, so without a log."""
        connection = sqlite3.connect(path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.text_factory = _text
        self._shape(connection)
        connection.execute("PRAGMA synchronous=OFF")  # whoever calls syncs the whole file
        migrate(connection, self._migrations, path)
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.text_factory = _text
        try:
            self._prepare(connection)
        except UnicodeDecodeError as error:  # SQLite complains of names that are no text any more
            connection.close()
            raise StoreCorrupt(f"store {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            connection.close()
            if is_damage(error):
                raise StoreCorrupt(f"store {self.path}: {error}") from error
            raise StorageError(f"store {self.path}: {error}") from error
        except StorageError:
            connection.close()
            raise
        sync_directory(self.path.parent)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._shape(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA mmap_size=0")
        migrate(connection, self._migrations, self.path)
        if changed := _names(connection) ^ _expected(tuple(self._migrations)):
            raise StoreCorrupt(f"store {self.path}: schema of {min(changed)[0]} was changed")
        _look(connection)

    def _shape(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # no effect after the first table
        connection.execute(f"PRAGMA max_page_count={max(64, self._max_bytes // PAGE_BYTES)}")

    def _write_for_ever(self, connection: sqlite3.Connection) -> None:
        upkeep = Upkeep(self.path)
        with closing(connection):
            upkeep.prepare(connection)
            is_last = False
            while not is_last:
                try:
                    first = self._queue.get(timeout=IDLE_S)
                except queue.Empty:
                    upkeep.idle(connection)
                    continue
                if first is None:
                    return
                batch, is_last = self._batch(first)
                with watch(self._clock, "sqlite commit", SLOW_COMMIT_S):
                    _commit(connection, batch)
                if damage := _damage_in(batch):
                    self.condemn(damage)
                upkeep.committed(connection)

    def _batch(self, first: _Work) -> tuple[list[_Work], bool]:
        batch, size_bytes = [first], first.size_bytes
        while len(batch) < MAX_BATCH_ITEMS and size_bytes < MAX_BATCH_BYTES:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                return batch, True
            batch.append(work)
            size_bytes += work.size_bytes
        return batch, False


def read_only(path: Path) -> sqlite3.Connection:
    """Open a database for reading only.

    Raises:
        StorageError: there is no such database.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S
        )
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise StorageError(f"store {path}: {error}") from error
    connection.row_factory = sqlite3.Row
    connection.text_factory = _text
    return connection


def _text(stored: bytes) -> str:
    """Read text of which a disk may have changed a byte: that costs one row, not all reading."""
    return stored.decode(errors="replace")


def migrate(connection: sqlite3.Connection, migrations: Sequence[str], path: Path) -> None:
    """Apply the steps that `user_version` says are missing, each in one transaction.

    Raises:
        StoreCorrupt: the number is not that of the tables that are there.
        StorageError: the file was written by a newer program.
    """
    version, newest = connection.execute("PRAGMA user_version").fetchone()[0], len(migrations)
    if not 0 <= version <= newest:
        _complain_of_number(connection, migrations, f"store {path}: schema {version}")
        raise StorageError(f"store {path}: schema {version} is newer than this program's {newest}")
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN;\n{script}\nPRAGMA user_version={number};\nCOMMIT;")
        except sqlite3.OperationalError:  # a table that it makes may be there
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            _complain_of_number(connection, migrations, f"store {path}: schema {version}")
            raise


def _complain_of_number(
    connection: sqlite3.Connection, migrations: Sequence[str], what: str
) -> None:
    """Raise StoreCorrupt if the tables are those of the last step: then the number is wrong."""
    if _names(connection) == _expected(tuple(migrations)):
        raise StoreCorrupt(f"{what} by its number, {len(migrations)} by its tables")


def _names(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Give the name and the statement of everything that is in a database."""
    query = "SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat%'"
    return {(row[0], row[1]) for row in connection.execute(query)}


@cache
def _expected(migrations: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    """Give the same of a new database."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for script in migrations:
            connection.executescript(script)
        return frozenset(_names(connection))


def _look(connection: sqlite3.Connection) -> None:
    """Read each end of every table: what a start needs now is there; the rest is looked at later.

    Raises:
        sqlite3.DatabaseError: a page that it met is damaged.
    """
    for table in tables(connection):
        for order in ("ASC", "DESC"):
            by = ", ".join(f"{name} {order}" for name in table.key)
            connection.execute(f"SELECT * FROM {table.name} ORDER BY {by} LIMIT 1").fetchone()  # noqa: S608 - names of our own schema


def _commit(connection: sqlite3.Connection, batch: Sequence[_Work]) -> None:
    ended: list[tuple[_Work, Any]] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for work in batch:
            _attempt(connection, work, ended)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        _give_each_its_own(connection, batch, error)
        return
    for work, result in ended:
        work.future.set_result(result)


def _damage_in(batch: Sequence[_Work]) -> str:
    errors = (work.future.exception() for work in batch)
    return next((str(error) for error in errors if isinstance(error, StoreCorrupt)), "")


def _give_each_its_own(
    connection: sqlite3.Connection, batch: Sequence[_Work], error: sqlite3.Error
) -> None:
    """The batch was rolled back as a whole: one that is refused must not take the others down."""
    if len(batch) == 1:
        if not batch[0].future.done():  # its own error may have been told before the commit failed
            batch[0].future.set_exception(_translate(error))
        return
    for work in batch:
        if not work.future.done():
            _commit(connection, [work])


def _attempt(connection: sqlite3.Connection, work: _Work, ended: list[tuple[_Work, Any]]) -> None:
    connection.execute("SAVEPOINT work")
    try:
        result = work.call(connection)
    except Exception as error:  # belongs to the caller, who waits on the future
        if not connection.in_transaction:  # SQLite rolled the whole batch back
            raise (
                error if isinstance(error, sqlite3.Error) else sqlite3.OperationalError(str(error))
            ) from error
        connection.execute("ROLLBACK TO work")
        work.future.set_exception(_translate(error))
    else:
        ended.append((work, result))
    connection.execute("RELEASE work")


def _translate(error: Exception) -> Exception:
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL:
        return OutboxFull(f"store: {error}; free space or raise storage.max_db_mb")
    if isinstance(error, sqlite3.ProgrammingError):
        return error
    if isinstance(error, sqlite3.IntegrityError):
        return RowRefused(f"store: {error}")
    if is_damage(error):
        return StoreCorrupt(f"store: {error}")
    return StorageError(f"store: {error}")


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file is not what SQLite wrote."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )
