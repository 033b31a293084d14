"""How often the agent has started: with it a message's number within its start is unique for ever.

Kept in the database and in a small file beside it: a database that was lost, or that came back
from an older copy, does not make the count go back.
"""

import sqlite3
from pathlib import Path
from typing import Final

from agent.core import log
from agent.core.clock import Clock
from agent.core.errors import StorageError
from agent.core.files import write_atomic
from agent.core.store import Store
from agent.evidence import custody

FILE_NAME: Final = "boot"
MOST_DIGITS: Final = 15  # a file with more is none of ours

_log = log.get(__name__)


def next_boot(store: Store, state_dir: Path, clock: Clock) -> int:
    """Count this start and give its number, from 1.

    Raises:
        StorageError: the disk refuses.
    """
    path = state_dir / FILE_NAME
    by_file = _read(path)
    by_database = store.write(_stored)
    boot = max(by_file, by_database) + 1
    try:
        write_atomic(path, f"{boot}\n".encode())
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error

    def change(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('boot', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (str(boot),),
        )
        if by_database < by_file:
            detail = {"boot": by_file, "boot_in_database": by_database}
            custody.append(connection, clock, "store.older", "store", detail)

    store.write(change)
    if by_database < by_file:
        _log.error(
            "the database is older than this box's last start",
            boot=by_file,
            boot_in_database=by_database,
        )
    return boot


def _read(path: Path) -> int:
    try:
        text = path.read_bytes()[: MOST_DIGITS + 2].strip()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    return int(text) if text.isdigit() and len(text) <= MOST_DIGITS else 0


def _stored(connection: sqlite3.Connection) -> int:
    """Give the largest number that any row speaks of."""
    largest = [
        connection.execute(f"SELECT max(boot) FROM {table}").fetchone()[0]  # noqa: S608 - two names
        for table in ("outbox", "removed")
    ]
    row = connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()
    largest.append(int(row["value"]) if row is not None and row["value"].isdigit() else 0)
    return max(number for number in largest if isinstance(number, int))
