"""A dock's database, filled by hand: slots, dockings and files as they could be."""

from agent.core.clock import NS_PER_MS, SimClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.docking.config import DockConfig

HOUR_NS = 3600 * 1_000_000_000


def dock_config(**settings):
    return DockConfig(hardware=None, **settings)


class Filled:
    """Rows that no machine has written."""

    def __init__(self, folder):
        self.clock = SimClock()
        self.state_dir = folder
        self.store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, self.clock)
        self.store.open()
        self._files = 0

    def close(self):
        self.store.close()

    def put(self, table, **values):
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self.store.write(
            lambda connection: connection.execute(
                f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})",
                tuple(values.values()),
            )
        )

    def slot(self, slot, state, session="", code="", **values):
        row = {"slot": slot, "state": state, "code": code, "session_id": session}
        self.put("dock_slot", **row, **{"since_utc_ns": self.clock.utc_ns(), **values})

    def docking(self, session, camera="bc0001", officer="A. Weber", ago_h=1.0, **values):
        start_ns = self.clock.utc_ns() - round(ago_h * HOUR_NS)
        row = {
            "id": session,
            "slot": "1",
            "camera": camera,
            "serial": camera.upper(),
            "officer": officer,
            "officer_source": "assigned",
            "started_utc_ns": start_ns,
        }
        if values.pop("is_sealed", False):
            row |= {"sealed_utc_ns": start_ns + 60_000 * NS_PER_MS, "manifest_sha256": "ab" * 32}
        self.put("dock_session", **(row | values))

    def file(self, session, here="no", there="yes", size=1_000_000, **values):
        self._files += 1
        row = {
            "id": f"{self._files:032x}",
            "session_id": session,
            "seen_session_id": session,
            "camera": "bc0001",
            "name": f"MOV_{self._files:04}.mp4",
            "size_bytes": size,
            "mtime_ns": self.clock.utc_ns() - HOUR_NS,
            "here": here,
            "there": there,
        }
        self.put("footage", **(row | values))
        return row["id"]
