"""Transfers of files: an offer is checked against its manifest, a file is signed for when stored.

Nothing is believed that is not signed: the manifest by the device's registered key, the bytes by
the hashes in it. Ranges count only after a sync, so a killed receiver asks again for what it is
not sure of. Each answer is a `need` or a receipt, and every question may be repeated.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core import wire
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import HashMismatch, IntegrityError, MalformedMessage
from agent.core.files import sync_directory, write_atomic
from agent.core.store import Store
from agent.evidence import manifest
from agent.evidence.hashing import hash_file
from agent.evidence.keys import DeviceKey, PublicKey
from agent.evidence.receipt import sign_file_receipt
from agent.receiver.assembly import FLUSH_BYTES, Assembly
from agent.receiver.config import ReceiverConfig
from agent.receiver.ranges import Ranges

INCOMING, REJECTED = "incoming", "rejected"
FLUSH_NS = NS_PER_S
MS_PER_DAY = 86_400_000


class Refused(IntegrityError):
    """An offer or a file that is set aside; the text goes to the device."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A message back to the device: its topic's last part and its document."""

    part: str  # need or receipt
    document: wire.Json


class Files:
    """All transfers of a receiver; used by one thread."""

    def __init__(self, store: Store, config: ReceiverConfig, key: DeviceKey, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._key = key
        self._clock = clock
        self._open: dict[str, Assembly] = {}
        self._flushed_ns = 0

    def offer(self, document: wire.Json, key: PublicKey) -> Answer:
        """Take an offer, already valid against its schema.

        Raises:
            Refused: with the reason for the device.
        """
        if (receipt := self._known_receipt(document["fid"], document["device"])) is not None:
            return Answer("receipt", receipt)
        promised, entry = self._promised(document, key)
        stored = self._stored_path(document["device"], promised["clip_id"], document["name"])
        if self._is_there(document, stored):
            return Answer("receipt", self._sign(document, promised))
        assembly = self._open.get(document["fid"]) or self._begin(document, entry)
        return Answer("need", self._need(assembly))

    def chunk(self, device: str, fid: str, offset: int, data: bytes) -> None:
        """Take a chunk; one of a transfer that is not open is left out.

        Raises:
            MalformedMessage: it does not lie inside the file.
        """
        assembly = self._find(fid, device)
        if assembly is None:
            raise MalformedMessage(f"chunk of transfer {fid}, which is not open")
        assembly.write(offset, data)
        if assembly.dirty_bytes >= FLUSH_BYTES:
            self._flush([assembly])

    def done(self, device: str, document: wire.Json, key: PublicKey) -> Answer | None:
        """Answer that all was sent; None for a transfer that has to be offered again.

        Raises:
            Refused: the bytes are not those of the manifest.
        """
        if (receipt := self._known_receipt(document["fid"], device)) is not None:
            return Answer("receipt", receipt)
        assembly = self._find(document["fid"], device)
        if assembly is None:
            return None
        self._flush([assembly])
        if assembly.missing:
            return Answer("need", self._need(assembly))
        try:
            assembly.check()
        except HashMismatch as error:
            self._set_aside(assembly)
            raise Refused(f"{document['fid']}: {error}") from error
        promised, _ = self._promised(assembly.offer, key)
        self._into_store(assembly, promised)
        return Answer("receipt", self._sign(assembly.offer, promised))

    def flush_due(self) -> None:
        """Sync what has been written for a second."""
        now_ns = self._clock.mono_ns()
        if now_ns - self._flushed_ns >= FLUSH_NS:
            self._flushed_ns = now_ns
            self._flush([item for item in self._open.values() if item.dirty_bytes])

    def refusal(self, fid: str, reason: str) -> Answer:
        """Say that a file is not taken, and why."""
        document = {
            "sv": wire.SCHEMA_VERSION,
            "fid": fid,
            "ranges": [],
            "max_chunk_bytes": self._config.max_chunk_bytes,
            "rate_bytes_per_s": 0,
            "refused": reason[:256],
        }
        return Answer("need", document)

    def close(self) -> None:
        """Sync and close all."""
        self._flush([item for item in self._open.values() if item.dirty_bytes])
        for assembly in self._open.values():
            assembly.close()
        self._open.clear()

    def _promised(self, offer: wire.Json, key: PublicKey) -> tuple[wire.Json, wire.Json]:
        try:
            promised = manifest.read(offer["manifest"], key)
        except IntegrityError as error:
            raise Refused(f"manifest: {error}") from error
        if (promised["device"], promised["site"]) != (offer["device"], self._config.site):
            raise Refused(
                f"manifest of {promised['site']}/{promised['device']};"
                f" allowed: {self._config.site}/{offer['device']}"
            )
        for entry in promised["files"]:
            fields = ("name", "size_bytes", "sha256", "leaf_root")
            if all(entry[field] == offer[field] for field in fields):
                return promised, entry
        raise Refused(f"file {offer['name']!r} does not stand so in its manifest")

    def _begin(self, offer: wire.Json, entry: wire.Json) -> Assembly:
        device, size_bytes = offer["device"], offer["size_bytes"]
        if size_bytes > self._config.max_file_bytes:
            raise Refused(f"{size_bytes} bytes; allowed: {self._config.max_file_bytes}")
        is_open = [item for item in self._open.values() if item.offer["device"] == device]
        if len(is_open) >= self._config.max_open_per_device:
            self._shelve(is_open[0])
        free_bytes = shutil.disk_usage(self._config.store_dir).free
        if size_bytes > free_bytes - self._config.keep_free_bytes:
            raise Refused(f"full: {free_bytes} bytes are free")
        have = self._have(offer)
        assembly = Assembly(self._part_path(device, offer["fid"]), offer, entry, have).open()
        self._open[offer["fid"]] = assembly
        self._store.write(lambda connection: self._save(connection, assembly))
        return assembly

    def _have(self, offer: wire.Json) -> Ranges:
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT offer, have FROM incoming WHERE fid = ?", (offer["fid"],)
            ).fetchone()
        path = self._part_path(offer["device"], offer["fid"])
        if row is None or not path.exists():
            return Ranges()
        before = json.loads(row["offer"])
        is_same = all(before[name] == offer[name] for name in ("device", "sha256", "size_bytes"))
        return Ranges(json.loads(row["have"])) if is_same else Ranges()

    def _find(self, fid: str, device: str) -> Assembly | None:
        assembly = self._open.get(fid)
        return assembly if assembly and assembly.offer["device"] == device else None

    def _need(self, assembly: Assembly) -> wire.Json:
        return {
            "sv": wire.SCHEMA_VERSION,
            "fid": assembly.offer["fid"],
            "ranges": [list(span) for span in assembly.missing],
            "max_chunk_bytes": self._config.max_chunk_bytes,
            "rate_bytes_per_s": self._config.rate_bytes_per_s,
        }

    def _flush(self, assemblies: list[Assembly]) -> None:
        if not assemblies:
            return
        for assembly in assemblies:
            assembly.sync()

        def change(connection: sqlite3.Connection) -> None:
            for assembly in assemblies:
                self._save(connection, assembly)

        self._store.write(change)

    def _save(self, connection: sqlite3.Connection, assembly: Assembly) -> None:
        connection.execute(
            "INSERT INTO incoming (fid, device, offer, have, updated_utc_ms)"
            " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (fid) DO UPDATE"
            " SET device = ?2, offer = ?3, have = ?4, updated_utc_ms = ?5",
            (
                *(assembly.offer["fid"], assembly.offer["device"]),
                *(json.dumps(assembly.offer), json.dumps(assembly.have.spans)),
                self._clock.utc_ns() // NS_PER_MS,
            ),
        )

    def _into_store(self, assembly: Assembly, promised: wire.Json) -> None:
        offer = assembly.offer
        target = self._stored_path(offer["device"], promised["clip_id"], offer["name"])
        target.parent.mkdir(parents=True, exist_ok=True)
        self._write_manifest(offer, target.parent)
        assembly.close()
        assembly.path.rename(target)
        sync_directory(target.parent)
        sync_directory(target.parent.parent)
        del self._open[offer["fid"]]

    def _is_there(self, offer: wire.Json, target: Path) -> bool:
        """Whether the same bytes are stored already, here or under another transfer."""
        if target.exists():
            return hash_file(target).sha256 == str(offer["sha256"])
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT path FROM file WHERE device = ? AND sha256 = ? AND size_bytes = ?",
                (offer["device"], offer["sha256"], offer["size_bytes"]),
            ).fetchone()
        if row is None or not (self._config.store_dir / row["path"]).exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        self._write_manifest(offer, target.parent)
        os.link(self._config.store_dir / row["path"], target)
        sync_directory(target.parent)
        return True

    def _write_manifest(self, offer: wire.Json, folder: Path) -> None:
        path = folder / manifest.FILE_NAME
        if not path.exists():
            write_atomic(path, wire.encode(offer["manifest"]))

    def _sign(self, offer: wire.Json, promised: wire.Json) -> wire.Json:
        now_ms = self._clock.utc_ns() // NS_PER_MS
        target = self._stored_path(offer["device"], promised["clip_id"], offer["name"])
        receipt = sign_file_receipt(
            {
                "fid": offer["fid"],
                "device": offer["device"],
                "sha256": offer["sha256"],
                "size_bytes": offer["size_bytes"],
                "stored_utc_ms": now_ms,
                "copies": 1,
                "retention_until_utc_ms": now_ms + self._config.retention_days * MS_PER_DAY,
                "receiver": self._config.name,
            },
            self._key,
        )
        write_atomic(target.with_name(f"receipt-{offer['name']}.json"), wire.encode(receipt))
        row = (offer["device"], promised["clip_id"], offer["name"], offer["size_bytes"])
        path = str(target.relative_to(self._config.store_dir))

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO file (device, clip_id, name, size_bytes, sha256, path,"
                " stored_utc_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, offer["sha256"], path, now_ms),
            )
            connection.execute(
                "INSERT OR REPLACE INTO receipt (fid, device, body) VALUES (?, ?, ?)",
                (offer["fid"], offer["device"], json.dumps(receipt)),
            )
            connection.execute("DELETE FROM incoming WHERE fid = ?", (offer["fid"],))

        self._store.write(change)
        return receipt

    def _known_receipt(self, fid: str, device: str) -> wire.Json | None:
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT body FROM receipt WHERE fid = ? AND device = ?", (fid, device)
            ).fetchone()
        body: Mapping[str, Any] | None = None if row is None else json.loads(row["body"])
        return None if body is None else dict(body)

    def _set_aside(self, assembly: Assembly) -> None:
        assembly.close()
        folder = self._config.store_dir / REJECTED
        folder.mkdir(exist_ok=True)
        fid = assembly.offer["fid"]
        assembly.path.rename(folder / f"{assembly.offer['device']}-{fid}.part")
        del self._open[fid]
        self._store.write(
            lambda connection: (
                connection.execute("DELETE FROM incoming WHERE fid = ?", (fid,)).rowcount
            )
        )

    def _shelve(self, assembly: Assembly) -> None:
        self._flush([assembly])
        assembly.close()
        del self._open[assembly.offer["fid"]]

    def _part_path(self, device: str, fid: str) -> Path:
        return self._config.store_dir / INCOMING / device / f"{fid}.part"

    def _stored_path(self, device: str, clip_id: str, name: str) -> Path:
        return self._config.store_dir / self._config.site / device / clip_id / name
