"""What the box says after a damaged database was mended: in its custody log and to the centre."""

import sqlite3
from collections.abc import Callable
from typing import Final

from agent.core.clock import NS_PER_MS, Clock
from agent.core.mending import Mended
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.evidence import custody

KIND: Final = "state/store"
DETAIL_LETTERS: Final = 512
_KEY: Final = "untold/store"  # in meta, until the message is in the outbox

Tell = Callable[[sqlite3.Connection, Message], object]
"""Puts a message into the outbox inside a transaction."""


def note(clock: Clock, connection: sqlite3.Connection, mended: Mended) -> None:
    """Write into the new database what has happened to the old one."""
    kept = mended.salvaged
    detail: dict[str, object] = {
        "reason": mended.reason,
        "moved_to": mended.moved_to.name,
        "sha256": mended.sha256,
        "rows": {} if kept is None else dict(kept.rows),
        "not_whole": ["*"] if kept is None else list(kept.torn),
        "left_out": 0 if kept is None else kept.refused,
    }
    custody.append(connection, clock, "store.salvaged", "store", detail)
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_KEY, f"{max(0, clock.utc_ns() // NS_PER_MS)} {mended.text}"),
    )


def is_untold(store: Store) -> bool:
    """Whether this start has mended the database."""
    with store.reading() as connection:
        query = "SELECT 1 FROM meta WHERE key = ?"
        return connection.execute(query, (_KEY,)).fetchone() is not None


def tell(store: Store, put: Tell) -> None:
    """Put what is not told yet into the outbox.

    Raises:
        StorageError: the disk refuses.
    """

    def change(connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
        if row is None:
            return
        since, _, text = row["value"].partition(" ")
        body = {"state": "salvaged", "since_utc_ms": int(since), "detail": text[:DETAIL_LETTERS]}
        put(connection, Message(Lane.STATE, KIND, body, is_retained=True))
        connection.execute("DELETE FROM meta WHERE key = ?", (_KEY,))

    store.write(change)
