"""Holds: footage of a camera that stays, here and on the camera, until somebody lets it go.

A camera's own dates are not to be relied on, so a hold keeps all of its camera, whatever its span.
"""

import sqlite3

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import MalformedMessage
from agent.core.store import Store
from agent.core.wire import Json
from agent.docking.footage import Custody
from agent.docking.names import camera_name

BY_CENTRE = "command"  # how `via` begins of what the centre's signed command placed
MOST_WORDS = 256


class Holds:
    """Places and releases; safe from any thread.

    Raises, from both methods:
        MalformedMessage: an argument that makes no sense, by name.
        StorageError: the database refuses.
    """

    def __init__(self, store: Store, clock: Clock, custody: Custody) -> None:
        self._store = store
        self._clock = clock
        self._custody = custody

    def place(self, args: Json, via: str, hold_id: str = "") -> str:
        """Keep what a camera has and will have; gives the hold's id."""
        wanted = wire.check("hold", args)
        camera = camera_name(wanted["camera"])
        hold_id = hold_id or self._clock.new_id()
        start_ns, end_ns = (wanted[key] * NS_PER_MS for key in ("from_utc_ms", "to_utc_ms"))
        told = {"camera": camera, "reason": wanted["reason"], "by": wanted["by"], "via": via}

        def change(connection: sqlite3.Connection) -> None:
            added = connection.execute(
                "INSERT OR IGNORE INTO hold (id, camera, start_utc_ns, end_utc_ns, reason,"
                " created_utc_ns, placed_by, via) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(hold_id, camera, start_ns, end_ns, wanted["reason"]),
                    *(self._clock.utc_ns(), wanted["by"], via),
                ),
            ).rowcount
            if added:
                self._custody(connection, "hold.placed", hold_id, told)

        self._store.write(change)
        return hold_id

    def release(self, hold_id: str, reason: str, by: str, via: str) -> None:
        """Let go of a hold; one of the centre only by the centre."""
        if not 0 < len(reason) <= MOST_WORDS or not 0 < len(by) <= MOST_WORDS:
            raise MalformedMessage(f"reason and by; allowed: 1 to {MOST_WORDS} letters each")

        def change(connection: sqlite3.Connection) -> None:
            query = "SELECT via FROM hold WHERE id = ?"
            found = connection.execute(query, (hold_id,)).fetchone()
            if found is None:
                raise MalformedMessage(f"hold {hold_id[:64]!r}: there is none")
            if found["via"].startswith(BY_CENTRE) and not via.startswith(BY_CENTRE):
                raise MalformedMessage(f"hold {hold_id}: the centre's; allowed: the centre alone")
            connection.execute("DELETE FROM hold WHERE id = ?", (hold_id,))
            self._custody(connection, "hold.released", hold_id, {"reason": reason, "by": by})

        self._store.write(change)
