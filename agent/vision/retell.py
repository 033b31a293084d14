"""Events told once more, to a centre that has lost what it was told and has signed for."""

import sqlite3
from collections.abc import Callable

from agent.core import log
from agent.core.errors import MalformedMessage
from agent.core.model import Lane, Message
from agent.vision import lines

MOST_EVENTS = 2000  # the newest; about 2 MiB of messages

_EVENTS = """
    SELECT e.id, e.body, c.id AS clip_id, c.state AS clip_state, c.missing_ms, c.refused
    FROM event e LEFT JOIN clip c ON c.event_id = e.id ORDER BY e.start_utc_ns DESC LIMIT ?
"""
_WITH_FILES = ("sealed", "receipted", "deleted")

_log = log.get(__name__)


def retell(
    connection: sqlite3.Connection, tell: Callable[[sqlite3.Connection, Message], object]
) -> int:
    """Put the box's events into the outbox again, the oldest first; gives how many.

    The centre knows an event by its id: one that it has already is not there twice.
    """
    rows = connection.execute(_EVENTS, (MOST_EVENTS,)).fetchall()
    told = 0
    for row in reversed(rows):
        try:
            event = lines.from_line(row["body"])
        except MalformedMessage as error:
            _log.warning("event's line is damaged", event_id=row["id"], reason=error)
            continue
        body = lines.event_body(event, row["refused"] or "")
        if row["clip_state"] in _WITH_FILES:
            files = connection.execute(
                "SELECT name, size_bytes, sha256 FROM transfer WHERE clip_id = ? ORDER BY name",
                (row["clip_id"],),
            )
            known = [dict(file) for file in files]
            body = lines.sealed_body(event, row["clip_id"], row["missing_ms"], known)
        tell(connection, Message(Lane.STATE, f"event/{event.kind}", body, needs_receipt=True))
        told += 1
    return told
