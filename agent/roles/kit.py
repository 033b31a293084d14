"""What every role is built from besides its own stages."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent import __version__
from agent.core.clock import Clock
from agent.core.dock import Dock
from agent.core.store import Store
from agent.device.timekeeper import Fix
from agent.evidence import custody
from agent.evidence.centrekeys import CentreKeys
from agent.evidence.keys import DeviceKey
from agent.roles.config import DeviceRole, DockRole
from agent.supervisor import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """Configuration, drivers, store, keys and clock of one start of the agent."""

    config: DeviceRole
    store: Store
    key: DeviceKey
    centre_keys: CentreKeys
    clock: Clock
    boot: int
    fix: Callable[[], Fix | None] = lambda: None  # of a satellite receiver
    instruments: Sequence[Worker] = ()  # threads of its own hardware

    def note_custody(
        self,
        connection: sqlite3.Connection,
        kind: str,
        subject: str,
        detail: Mapping[str, object],
    ) -> object:
        """Append to the custody log inside a transaction."""
        return custody.append(connection, self.clock, kind, subject, detail)

    def signed_head(self) -> Mapping[str, object]:
        """Give the head of the custody log, signed."""
        with self.store.reading() as connection:
            return custody.signed_head(connection, self.key, self.clock, self.config.device)

    def birth(
        self, cameras: Sequence[str], model: str, numbers: Sequence[Mapping[str, object]]
    ) -> Mapping[str, object]:
        """Give the body of the birth message."""
        return {
            "agent": f"outpost {__version__}",
            "site": self.config.site,
            "role": self.config.role,
            "cameras": list(cameras),
            "model": model,
            "keyid": self.key.keyid,
            "numbers": list(numbers),
        }


class BadgeReader(Worker, Protocol):
    """A worker that tells every badge that is held to it."""

    def listen(self, hear: Callable[[str], object]) -> None:
        """Have badges told to `hear`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DockKit(Kit):
    """What a dock has besides."""

    config: DockRole
    dock: Dock
    badges: BadgeReader | None = None
