"""The rows of files: transfers under way, what is stored, and the receipts that were given."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.store import Store
from agent.receiver import losses
from agent.receiver.assembly import Assembly
from agent.receiver.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Pending:
    """A transfer under way, as the index knows it."""

    fid: str
    size_bytes: int


class Records:
    """Reads and writes these rows; every method raises StorageError when the disk refuses."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def receipt(self, device: str, fid: str) -> wire.Json | None:
        """Give the receipt of a transfer that has ended."""
        row = self._one("SELECT body FROM receipt WHERE device = ? AND fid = ?", device, fid)
        return None if row is None else dict(json.loads(row["body"]))

    def stored_sha256(self, device: str, clip_id: str, name: str) -> str | None:
        """Give the hash of the file that is signed for under this name."""
        row = self._one(
            "SELECT sha256 FROM file WHERE device = ? AND clip_id = ? AND name = ?",
            *(device, clip_id, name),
        )
        return None if row is None else str(row["sha256"])

    def same_content(self, device: str, sha256: str) -> str | None:
        """Give the path of a stored file with these bytes, relative to the store."""
        row = self._one(
            "SELECT path FROM file WHERE device = ? AND sha256 = ? LIMIT 1", device, sha256
        )
        return None if row is None else str(row["path"])

    def places(self, device: str, sha256: str) -> list[str]:
        """Give the paths of all stored files with these bytes, relative to the store."""
        query = "SELECT path FROM file WHERE device = ? AND sha256 = ?"
        with self._store.reading() as connection:
            return [row["path"] for row in connection.execute(query, (device, sha256))]

    def incoming(self, device: str, fid: str) -> tuple[wire.Json, Ranges] | None:
        """Give the offer of a transfer under way and what of it is on the disk."""
        row = self._one(
            "SELECT offer, have FROM incoming WHERE device = ? AND fid = ?", device, fid
        )
        return None if row is None else (json.loads(row["offer"]), Ranges(json.loads(row["have"])))

    def pending(self, device: str) -> list[Pending]:
        """Give a device's transfers under way, the longest untouched first."""
        with self._store.reading() as connection:
            return [
                Pending(row["fid"], row["size_bytes"])
                for row in connection.execute(
                    "SELECT fid, size_bytes FROM incoming WHERE device = ? ORDER BY updated_utc_ms",
                    (device,),
                )
            ]

    def missing_bytes(self, since_utc_ms: int) -> int:
        """Give what transfers touched since then still lack: room that is promised to them."""
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT size_bytes, have FROM incoming WHERE updated_utc_ms >= ?", (since_utc_ms,)
            ).fetchall()
        return sum(
            row["size_bytes"] - sum(end - start for start, end in json.loads(row["have"]))
            for row in rows
        )

    def all_pending(self) -> set[tuple[str, str]]:
        """Give device and fid of every transfer under way."""
        with self._store.reading() as connection:
            return {tuple(row) for row in connection.execute("SELECT device, fid FROM incoming")}

    def save(self, assemblies: Sequence[Assembly]) -> None:
        """Note what is on the disk of these transfers."""
        now_ms = self._clock.utc_ns() // NS_PER_MS
        rows = [
            (
                *(item.device, item.fid, item.size_bytes),
                *(json.dumps(item.offer), json.dumps(item.have.spans), now_ms),
            )
            for item in assemblies
        ]
        self._store.write(
            lambda connection: (
                connection.executemany(
                    "INSERT OR REPLACE INTO incoming"
                    " (device, fid, size_bytes, offer, have, updated_utc_ms)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    rows,
                ).rowcount
            )
        )

    def forget(self, device: str, fid: str) -> None:
        """Drop a transfer that will not go on."""
        self._store.write(
            lambda connection: (
                connection.execute(
                    "DELETE FROM incoming WHERE device = ? AND fid = ?", (device, fid)
                ).rowcount
            )
        )

    def settle(self, receipt: wire.Json, clip_id: str, name: str, path: str) -> None:
        """End a transfer: its file is stored and signed for, all in one transaction."""
        device, fid = receipt["device"], receipt["fid"]

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO file"
                " (device, clip_id, name, size_bytes, sha256, path, stored_utc_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(device, clip_id, name, receipt["size_bytes"], receipt["sha256"]),
                    *(path, receipt["stored_utc_ms"]),
                ),
            )
            connection.execute(
                "INSERT OR REPLACE INTO receipt (device, fid, body) VALUES (?, ?, ?)",
                (device, fid, json.dumps(receipt)),
            )
            connection.execute("DELETE FROM incoming WHERE device = ? AND fid = ?", (device, fid))
            losses.came(connection, device, fid)

        self._store.write(change)

    def _one(self, query: str, *values: str) -> sqlite3.Row | None:
        with self._store.reading() as connection:
            row: sqlite3.Row | None = connection.execute(query, values).fetchone()
            return row
