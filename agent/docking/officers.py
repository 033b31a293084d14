"""Who carries which camera: by the site's list, by the camera, or by a badge at the reader."""

import sqlite3
import threading
from collections.abc import Callable, Mapping

from agent.core.clock import NS_PER_S, Clock
from agent.core.store import Store
from agent.docking.config import DockConfig
from agent.docking.names import camera_name

UNKNOWN = ("", "unknown")

Custody = Callable[[sqlite3.Connection, str, str, Mapping[str, object]], object]
"""Appends (kind, subject, detail) to the custody log inside a transaction."""


class Officers:
    """Assigns cameras; safe from any thread."""

    def __init__(self, config: DockConfig, store: Store, clock: Clock, custody: Custody) -> None:
        self._mode = config.officers.mode
        self._take_ns = round(config.officers.take_s * NS_PER_S)
        self._fleet = {camera_name(item.serial): item.officer for item in config.fleet}
        self._badges = {item.badge: item.officer for item in config.officers.badges}
        self._store = store
        self._clock = clock
        self._custody = custody
        self._lock = threading.Lock()
        self._called: dict[str, tuple[str, int]] = {}  # slot: officer, until (monotonic)

    def is_ours(self, camera: str) -> bool:
        """Whether a camera is on the site's list."""
        return camera in self._fleet

    def carried(self, camera: str, by_camera: str) -> tuple[str, str]:
        """Give who carried a camera that was docked, and how that is known.

        Args:
            camera: its name.
            by_camera: the user that is set in it.
        """
        if self._mode == "pool":
            with self._store.reading() as connection:
                row = connection.execute(
                    "SELECT officer, source FROM dock_assignment WHERE camera = ?", (camera,)
                ).fetchone()
            if row is not None:
                return row["officer"], row["source"]
        elif assigned := self._fleet.get(camera):
            return assigned, "assigned"
        return (by_camera, "camera") if by_camera else UNKNOWN

    def holder(self, badge: str) -> str:
        """Give whose badge it is; empty: nobody's that we know."""
        return self._badges.get(badge, "") if self._badges else badge

    def call(self, officer: str, ready: Mapping[str, int]) -> str:
        """Choose a camera for an officer: the fullest that is ready.

        Args:
            officer: who held a badge to the reader.
            ready: charge in percent by slot, of cameras that may be taken; -1: not known.

        Returns:
            The slot that says Take now; empty if there is none.
        """
        now_ns = self._clock.mono_ns()
        with self._lock:
            self._called = {
                slot: (other, until_ns)
                for slot, (other, until_ns) in self._called.items()
                if until_ns > now_ns and other != officer
            }
            free = {slot: percent for slot, percent in ready.items() if slot not in self._called}
            if not free:
                return ""
            chosen = max(free, key=lambda slot: free[slot])
            self._called[chosen] = (officer, now_ns + self._take_ns)
        return chosen

    def called(self, slot: str) -> str:
        """Give the officer whom a slot calls just now; empty: nobody."""
        with self._lock:
            officer, until_ns = self._called.get(slot, ("", 0))
            return officer if until_ns > self._clock.mono_ns() else ""

    def taken(self, slot: str, camera: str) -> str:
        """Write who took a camera; gives the officer, empty if nobody was called to it."""
        officer = self.called(slot)
        with self._lock:
            self._called.pop(slot, None)
        if self._mode != "pool" or not camera:
            return officer

        def change(connection: sqlite3.Connection) -> None:
            if not officer:  # by nobody's badge: what is docked next is not his who had it last
                connection.execute("DELETE FROM dock_assignment WHERE camera = ?", (camera,))
                return
            connection.execute(
                "INSERT OR REPLACE INTO dock_assignment (camera, officer, source, since_utc_ns)"
                " VALUES (?, ?, 'badge', ?)",
                (camera, officer, self._clock.utc_ns()),
            )
            self._custody(connection, "camera.issued", camera, {"officer": officer, "slot": slot})

        self._store.write(change)
        return officer
