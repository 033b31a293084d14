"""Rows that speak of nothing any more: old events whose clips have no files here.

What happened to the evidence stays in the custody log for ever; this is the day's work only.
"""

import sqlite3

from agent.core.store import Store

MOST_ROWS = 500  # in one transaction

_EVENTS = """
    SELECT e.id FROM event e JOIN (SELECT DISTINCT camera FROM event) n ON e.camera = n.camera
    WHERE e.start_utc_ns < ? AND e.state = 'closed' AND e.end_utc_ns < ? AND NOT EXISTS
        (SELECT 1 FROM clip c WHERE c.event_id = e.id
            AND c.state IN ('wanted', 'sealed', 'receipted'))
    LIMIT ?
"""


def forget(store: Store, before_utc_ns: int) -> int:
    """Take out what ended before; gives how many events.

    Raises:
        StorageError: the database refuses.
    """
    total = 0
    while True:
        count = store.write(lambda connection: _some(connection, before_utc_ns))
        total += count
        if count < MOST_ROWS:
            return total


def _some(connection: sqlite3.Connection, before_utc_ns: int) -> int:
    query = (before_utc_ns, before_utc_ns, MOST_ROWS)
    ids = [(row[0],) for row in connection.execute(_EVENTS, query)]
    connection.executemany(
        "DELETE FROM transfer WHERE clip_id IN (SELECT id FROM clip WHERE event_id = ?)", ids
    )
    connection.executemany("DELETE FROM clip WHERE event_id = ?", ids)
    connection.executemany("DELETE FROM event WHERE id = ?", ids)
    connection.execute("DELETE FROM gap WHERE to_utc_ns < ?", (before_utc_ns,))
    return len(ids)
