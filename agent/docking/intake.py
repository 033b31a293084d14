"""Files of cameras into the dock: listed, copied within bounds, signed, and handed over."""

import mimetypes
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.dock import Storage
from agent.core.errors import HashMismatch, IntegrityError, SourceLost, StorageError
from agent.core.files import sync_directory, write_atomic
from agent.core.store import Store
from agent.core.wire import Json
from agent.delivery.ledger import Handover, OutgoingFile, enqueue
from agent.docking import copying, inventory, sessionlist
from agent.docking.bench import Copied, Surveyed, Tick
from agent.docking.codes import Code
from agent.docking.config import CopyConfig
from agent.docking.footage import Footage, Found, SealedFile
from agent.docking.slotrows import Docking
from agent.evidence import custody, docklist, manifest
from agent.evidence.hashing import LEAF_BYTES, LeafHasher, hash_file
from agent.evidence.keys import DeviceKey
from agent.evidence.manifest import FileEntry, ManifestFacts
from agent.evidence.verify import envelope_of

FOLDER, SESSIONS, PARTS, WORK = "footage", "sessions", "parts", "work"
OTHER = "other"
MIB_AT_ONCE = 2  # what a copy takes of memory
WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class Custodian:
    """Who seals: the device, its key, its store and its clock."""

    device: str
    site: str
    state_dir: Path
    store: Store
    key: DeviceKey
    clock: Clock
    clock_state: Callable[[], Mapping[str, object]]


class Intake:
    """See `agent.docking.bench.Ingest`; safe from several slots at once."""

    def __init__(self, custodian: Custodian, config: CopyConfig) -> None:
        self._custodian = custodian
        self._config = config
        self._parts = custodian.state_dir / PARTS
        self._budget = threading.BoundedSemaphore(max(1, config.at_once_mb // MIB_AT_ONCE))
        self._list_lock = threading.Lock()
        self._endings = frozenset(config.recordings)

    def survey(self, storage: Storage, marks: Sequence[str]) -> Surveyed:
        """See `Ingest.survey`."""
        limits = inventory.Limits(
            self._config.max_files, self._config.max_depth, storage.capacity_bytes
        )
        found = inventory.survey(storage.root, limits)
        marked = frozenset(marks)
        codes = [Code.TOO_MUCH] if found.is_cut else []
        codes += [Code.ODD_ENTRIES] if found.has_odd else []
        return Surveyed(
            [
                Found(item.name, item.size_bytes, item.mtime_ns, _is_marked(item.name, marked))
                for item in found.files
            ],
            [{"name": item.name, "reason": item.reason} for item in found.ignored],
            codes,
            found.free_percent,
        )

    def copy(self, storage: Storage, item: Footage, tick: Tick) -> Copied:
        """See `Ingest.copy`."""
        while not self._budget.acquire(timeout=WAIT_S):
            tick(0)
        try:
            self._recall(item.id)
            done = copying.copy(_source(storage, item), self._parts, item.id, self._room, tick)
        finally:
            self._budget.release()
        is_other = item.name.rpartition(".")[2].lower() not in self._endings
        flags = [*done.flags, *([OTHER] if is_other else [])]
        return Copied(done.hash, flags, done.bad)

    def seal(self, item: Footage, copied: Copied, docking: Docking) -> SealedFile:
        """See `Ingest.seal`."""
        name = f"recording{_ending(item.name)}"
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        entry = FileEntry(name, "recording", media_type, copied.hash)
        part = copying.part_path(self._parts, item.id)
        facts = self._facts(item, docking)
        envelope = self._into_place(FOLDER, item.id, {name: part}, [entry], facts)
        handover = Handover(item.id, Path(FOLDER) / item.id, [_outgoing(entry)], envelope, ())
        return SealedFile(
            *(item.id, handover, copied.hash.sha256, media_type, copied.flags), unread=copied.bad
        )

    def discard(self, item: Footage) -> None:
        """See `Ingest.discard`."""
        copying.discard(self._parts, item.id)

    def is_same(self, storage: Storage, item: Footage) -> bool:
        """See `Ingest.is_same`: its last 4 MiB, by the manifest of the sealed one."""
        try:
            leaves = self._entry(item)["leaves"]
            if not leaves:
                return item.size_bytes == 0
            start = (len(leaves) - 1) * LEAF_BYTES
            with inventory.opened(storage.root, item.name) as descriptor:
                return _leaf(descriptor, start) == str(leaves[-1])
        except IntegrityError:
            return False
        except OSError as error:
            if error.errno in copying.GONE:
                raise SourceLost(f"{item.name}: {error.strerror}") from error
            return False

    def supersede(self, item: Footage, docking: Docking) -> SealedFile | None:
        """See `Ingest.supersede`."""
        part = copying.part_path(self._parts, item.id)
        if not part.is_file() or part.stat().st_size == 0:
            return None
        found = hash_file(part)
        return self.seal(item, Copied(found, ["partial", "superseded"]), docking)

    def check_sealed(self, item: Footage) -> None:
        """Hash our own copy again; IntegrityError if it is not what was signed."""
        entry = self._entry(item)
        path = self._custodian.state_dir / item.path / entry["name"]
        try:
            manifest.check_file(hash_file(path), entry)
        except OSError as error:
            raise HashMismatch(f"{path}: {error.strerror}") from error
        if entry["sha256"] != item.sha256:
            raise HashMismatch(f"{path}: signed: {entry['sha256']}; row: {item.sha256}")

    def compare(self, storage: Storage, item: Footage, tick: Tick, *, is_full: bool) -> None:
        """Read the camera's file again; IntegrityError if it is not what was copied."""
        entry = self._entry(item)
        source = _source(storage, item)
        try:
            with inventory.opened(source.root, source.name) as descriptor:
                size_bytes = os.fstat(descriptor).st_size
                ends = {0, max(0, len(entry["leaves"]) - 1)} if entry["leaves"] else set()
                is_same = size_bytes == entry["size_bytes"] and all(
                    _leaf(descriptor, number * LEAF_BYTES) == entry["leaves"][number]
                    for number in ends
                )
            if is_same and is_full:
                is_same = copying.read_hash(source, tick).sha256 == entry["sha256"]
        except OSError as error:
            if error.errno in copying.GONE:
                raise SourceLost(f"{item.name}: {error.strerror}") from error
            raise HashMismatch(f"{item.name}: {error.strerror or error}") from error
        if not is_same:
            raise HashMismatch(f"{item.name}: the camera's file is not the one that was copied")

    def seal_list(self, docking: Docking, files: Sequence[Footage]) -> str:
        """See `Ingest.seal_list`; one at a time, as each list names the one before."""
        with self._list_lock:
            return self._seal_list(docking, files)

    def _seal_list(self, docking: Docking, files: Sequence[Footage]) -> str:
        who = self._custodian
        with who.store.reading() as connection:
            previous = sessionlist.previous(connection)
            head = custody.head(connection)
        facts = sessionlist.Facts(
            who.device, who.site, docking, files, who.clock_state(), previous, head
        )
        document = sessionlist.document(facts, self._hashes, who.clock)
        signed = sessionlist.signed(document, who.key)
        content = wire.encode(signed)
        hasher = LeafHasher()
        hasher.update(content)
        entry = FileEntry(docklist.FILE_NAME, "session", "application/json", hasher.finish())
        text = self._parts / f"{docking.id}{copying.PART}"
        write_atomic(text, content)
        told = self._facts(None, docking)
        envelope = self._into_place(SESSIONS, docking.id, {entry.name: text}, [entry], told)
        handover = Handover(
            docking.id, Path(SESSIONS) / docking.id, [_outgoing(entry)], envelope, ()
        )
        digest = manifest.payload_sha256(signed)

        def change(connection: sqlite3.Connection) -> None:
            sessionlist.note(connection, docking.id, previous, digest, who.clock.utc_ns())
            enqueue(connection, handover, who.clock)
            detail = {"sha256": digest, "previous_sha256": previous, "files": len(files)}
            custody.append(connection, who.clock, "dock.sealed", docking.id, detail)

        who.store.write(change)
        return digest

    def _hashes(self, item: Footage) -> Mapping[str, str]:
        """Give what the list names of a file besides its row."""
        who = self._custodian
        signed = envelope_of(who.state_dir / item.path)
        entry = manifest.read(signed, who.key.public)["files"][0]
        return {
            "leaf_root": entry["leaf_root"],
            "manifest_sha256": manifest.payload_sha256(signed),
        }

    def _recall(self, footage_id: str) -> None:
        """Take back a copy that was killed on its way into its place: no row speaks of it yet."""
        for folder in (FOLDER, WORK):
            place = self._custodian.state_dir / folder / footage_id
            for path in place.glob("recording*"):
                self._parts.mkdir(parents=True, exist_ok=True)
                path.replace(copying.part_path(self._parts, footage_id))
            shutil.rmtree(place, ignore_errors=True)

    def _room(self) -> None:
        space = shutil.disk_usage(self._custodian.state_dir)
        if space.free * 100 < self._config.keep_free_percent * space.total:
            raise StorageError(
                f"dock's disk: {space.free} of {space.total} bytes free;"
                f" allowed: from {self._config.keep_free_percent} % on"
            )

    def _facts(self, item: Footage | None, docking: Docking) -> ManifestFacts:
        who = self._custodian
        with who.store.reading() as connection:
            head = custody.head(connection)
        time_ns = docking.started_utc_ns if item is None else item.mtime_ns
        start_ms = max(0, time_ns // NS_PER_MS)
        return ManifestFacts(
            clip_id=docking.id if item is None else item.id,
            device=who.device,
            site=who.site,
            camera=docking.camera,
            event_ids=(),
            kind="bodycam",
            rule="docking",
            model=f"{docking.model} {docking.firmware}".strip()[:128],
            start_utc_ms=start_ms,
            end_utc_ms=start_ms,
            missing_ms=0,
            clock=who.clock_state(),
            camera_offset_ms=docking.clock_offset_ms,
            sources=(),
            custody_seq=head.seq,
            custody_hash=head.hash,
        )

    def _into_place(
        self,
        folder: str,
        name: str,
        files: Mapping[str, Path],
        entries: Sequence[FileEntry],
        facts: ManifestFacts,
    ) -> Json:
        """Make the folder of a hand-over; what a kill has left of it is made again."""
        who = self._custodian
        work, target = who.state_dir / WORK / name, who.state_dir / folder / name
        try:
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)
            work.mkdir(parents=True)
            for last, path in files.items():
                path.replace(work / last)
            signed = manifest.seal(work, facts, entries, who.key, who.clock)
            sync_directory(work)
            target.parent.mkdir(exist_ok=True)
            work.rename(target)
            sync_directory(target.parent)
        except OSError as error:
            raise StorageError(f"{target}: {error.strerror}") from error
        return signed

    def _entry(self, item: Footage) -> Json:
        who = self._custodian
        try:
            document = manifest.read(envelope_of(who.state_dir / item.path), who.key.public)
        except OSError as error:
            raise IntegrityError(f"{item.path}: {error.strerror}") from error
        entry: Json = document["files"][0]
        return entry


def _source(storage: Storage, item: Footage) -> copying.Source:
    return copying.Source(storage.root, item.name, item.size_bytes, item.mtime_ns)


def _leaf(descriptor: int, start: int) -> str:
    hasher = LeafHasher()
    end = start + LEAF_BYTES
    while start < end and (block := os.pread(descriptor, end - start, start)):
        hasher.update(block)
        start += len(block)
    return "".join(hasher.finish().leaves)


def _is_marked(name: str, marked: frozenset[str]) -> bool:
    return name in marked or name.rpartition("/")[2] in marked


def _ending(name: str) -> str:
    ending = name.rpartition("/")[2].rpartition(".")[2].lower()
    return f".{ending}" if re.fullmatch("[a-z0-9]{1,8}", ending) and "." in name else ""


def _outgoing(entry: FileEntry) -> OutgoingFile:
    return OutgoingFile(entry.name, entry.hash.size_bytes, entry.hash.sha256, entry.hash.leaf_root)
