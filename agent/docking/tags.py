"""What people say of footage: category, incident number, a note. Each change is kept and told."""

import sqlite3
from collections.abc import Callable

from agent.core import wire
from agent.core.errors import MalformedMessage
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.core.wire import Json
from agent.docking.footage import Custody

KIND = "footage/tag"
MOST_LETTERS = {"category": 64, "incident": 64, "note": 512}
MOST_NAME = 256

Put = Callable[[sqlite3.Connection, Message], object]
"""Adds a message to the outbox inside a transaction."""


class Tags:
    """Changes what is said of a file; safe from any thread."""

    def __init__(self, store: Store, custody: Custody, put: Put) -> None:
        self._store = store
        self._custody = custody
        self._put = put

    def tag(self, footage_id: str, new: Json, by: str, via: str) -> Json:
        """Say something of a file: in its row, in the custody log and to the centre, or nowhere.

        Args:
            footage_id: of a file that the dock knows.
            new: some of category, incident, note; an empty incident or note takes it away.
            by: who says so, in their own words.
            via: how it came here.

        Returns:
            What is told: the file, and what was said of it before and now.

        Raises:
            MalformedMessage: there is no such file, or an argument makes no sense, by name.
            StorageError: the database refuses.
        """
        _check(new, by)
        return self._store.write(
            lambda connection: self._change(connection, footage_id, new, (by, via))
        )

    def _change(
        self, connection: sqlite3.Connection, footage_id: str, new: Json, who: tuple[str, str]
    ) -> Json:
        row = connection.execute(
            "SELECT camera, sha256, category, incident, note FROM footage WHERE id = ?",
            (footage_id,),
        ).fetchone()
        if row is None:
            raise MalformedMessage(f"footage {footage_id[:64]!r}: there is none")
        old = {name: row[name] for name in MOST_LETTERS}
        now = {**old, **new}
        by, via = who
        told: Json = {
            "footage": footage_id,
            "camera": row["camera"],
            "sha256": row["sha256"],
            "old": old,
            "new": now,
            "by": by,
            "via": via,
        }
        if now == old:
            return told
        connection.execute(
            "UPDATE footage SET category = ?, incident = ?, note = ?, tagged_by = ? WHERE id = ?",
            (*(now[name] for name in MOST_LETTERS), by, footage_id),
        )
        self._custody(connection, "footage.tagged", footage_id, told)
        body = wire.check("footage_tag", told)
        self._put(connection, Message(Lane.STATE, KIND, body, needs_receipt=True))
        return told


def _check(new: Json, by: str) -> None:
    if not new:
        raise MalformedMessage(f"nothing to say; allowed: {', '.join(MOST_LETTERS)}")
    for name, value in new.items():
        if name not in MOST_LETTERS:
            raise MalformedMessage(f"{name[:64]!r}; allowed: {', '.join(MOST_LETTERS)}")
        least = 1 if name == "category" else 0
        most = MOST_LETTERS[name]
        if not isinstance(value, str) or not least <= len(value) <= most or not _is_plain(value):
            raise MalformedMessage(
                f"{name}: {str(value)[:64]!r}; allowed: {least} to {most} letters on one line"
            )
    if not 0 < len(by.strip()) <= MOST_NAME or not _is_plain(by):
        raise MalformedMessage(f"by: {by[:64]!r}; allowed: a name of 1 to {MOST_NAME} letters")


def _is_plain(text: str) -> bool:
    return text.isprintable()
