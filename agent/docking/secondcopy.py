"""Wiping in a long outage, off by default: two copies on two disks stand in for the receipt.

Only where the site has named a second disk, the centre has signed for nothing for days, the camera
is nearly full, and a supervisor has said so for this very docking. The copy on the second disk
stays until the centre has signed; each such wipe stands in the custody log with all of this.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import IntegrityError, MalformedMessage, StorageError
from agent.core.files import atomic, sync_directory
from agent.core.store import Store
from agent.docking.config import WipeConfig
from agent.docking.footage import Custody, Footage
from agent.docking.slotrows import Docking
from agent.evidence.hashing import copy_hashed, hash_file

DAY_NS = 86_400 * NS_PER_S
KEY = "wipe_without_receipt/"
MOST_WORDS = 256

_LAST_RECEIPT = "SELECT max(receipted_utc_ns) FROM footage"
_FIRST_SEALED = "SELECT min(sealed_utc_ns) FROM footage WHERE here = 'sealed'"


@dataclass(frozen=True, slots=True)
class SecondCopy:
    """Decides and copies."""

    config: WipeConfig
    state_dir: Path
    store: Store
    clock: Clock
    custody: Custody

    def allow(self, session_id: str, reason: str, by: str) -> None:
        """Note that a supervisor allows this docking's wipe without receipts.

        Raises:
            MalformedMessage: the site has no second disk, no such docking, or no reason or name.
        """
        if self.config.second_copy_dir is None:
            raise MalformedMessage("dock.wipe.second_copy_dir is not configured")
        if not 0 < len(reason) <= MOST_WORDS or not 0 < len(by) <= MOST_WORDS:
            raise MalformedMessage(f"reason and by; allowed: 1 to {MOST_WORDS} letters each")

        def change(connection: sqlite3.Connection) -> None:
            query = "SELECT 1 FROM dock_session WHERE id = ? AND ended_utc_ns IS NULL"
            if connection.execute(query, (session_id,)).fetchone() is None:
                raise MalformedMessage(f"docking {session_id[:64]!r}: no such camera hangs here")
            connection.execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                (KEY + session_id, by),
            )
            told = {"reason": reason, "by": by}
            self.custody(connection, "wipe.allowed", session_id, told)

        self.store.write(change)

    def is_open(self, docking: Docking, free_percent: float | None) -> bool:
        """Whether a docking's files may go on the word of two disks."""
        if self.config.second_copy_dir is None or free_percent is None:
            return False
        if 100 - free_percent < self.config.fuller_than_percent:
            return False
        with self.store.reading() as connection:
            allowed = connection.execute(
                "SELECT 1 FROM meta WHERE key = ?", (KEY + docking.id,)
            ).fetchone()
            times = [connection.execute(q).fetchone()[0] for q in (_LAST_RECEIPT, _FIRST_SEALED)]
        since_ns = max((time for time in times if time is not None), default=None)
        if allowed is None or since_ns is None:
            return False
        return bool(self.clock.utc_ns() - since_ns >= self.config.outage_days * DAY_NS)

    def ensure(self, item: Footage) -> None:
        """Make sure that a second disk holds the file's very bytes, read back from it.

        Raises:
            IntegrityError: it is no other disk, refuses, or gives back other bytes.
        """
        try:
            source = next((self.state_dir / item.path).glob("recording*"))
            target = self._target(item, source.name)
            if not target.is_file():
                with atomic(target) as stream:
                    copy_hashed(source, stream)
                sync_directory(target.parent)
            found = hash_file(target)
        except (OSError, StopIteration) as error:
            raise IntegrityError(f"second copy of {item.id}: {error}") from error
        if found.sha256 != item.sha256:
            raise IntegrityError(f"second copy of {item.id}: {found.sha256}; wanted {item.sha256}")

        def change(connection: sqlite3.Connection) -> None:
            detail: Mapping[str, object] = {"path": str(target), "sha256": item.sha256}
            self.custody(connection, "footage.second_copy", item.id, detail)

        self.store.write(change)

    def _target(self, item: Footage, name: str) -> Path:
        folder = self.config.second_copy_dir
        if folder is None:
            raise StorageError("dock.wipe.second_copy_dir is not configured")
        folder.mkdir(parents=True, exist_ok=True)
        if folder.stat().st_dev == self.state_dir.stat().st_dev:
            raise IntegrityError(f"{folder}: on the same disk as {self.state_dir}")
        return folder / item.evidence_id / name
