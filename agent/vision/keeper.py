"""The keeper: looks what lies on the disk, asks the plan what goes, and lets it go.

One thing at a time, and each in this order: in one transaction the row's state, the custody entry
and the names of the files in `garbage`; then the files. What a plan says is looked at once more
in that transaction: a hold or a pin that was placed meanwhile wins.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import StorageError
from agent.core.model import Event, Lane, Message
from agent.core.store import Store
from agent.delivery.config import RetentionConfig
from agent.delivery.retention import SEVERITIES, Action, Kind, Plan, Step, plan
from agent.evidence.hashing import hash_file
from agent.vision import aside, ballast, forget, garbage, stock
from agent.vision.config import RecordConfig
from agent.vision.disks import STATE_DIR, Disks, Folder
from agent.vision.recovery import Custody
from agent.vision.steady import Steadiness

EVERY_S, MOST_S = 10.0, 60.0
PAUSE_FACTOR = 50  # of what a look took: it costs no more than a fiftieth of a core
FORGET_EVERY_NS = 3600 * NS_PER_S
OK, SHORT, REFUSED, FULL = "ok", "short", "clips_refused", "no_room"
QUARANTINE_KIND = "state/quarantine"
MOST_DETAIL = 512  # letters, by the schema of states

_MAY_GO = """
    SELECT path FROM clip WHERE id = :id AND state = 'receipted'
    AND NOT EXISTS (SELECT 1 FROM pin WHERE clip_id = :id)
    AND NOT EXISTS (SELECT 1 FROM hold h WHERE h.camera = clip.camera
        AND h.start_utc_ns <= clip.end_utc_ns AND h.end_utc_ns >= clip.start_utc_ns)
"""

_log = log.get(__name__)

Tell = Callable[[sqlite3.Connection, Message], object]
"""Adds a message to the outbox inside a transaction."""


@dataclass(frozen=True, slots=True)
class Box:
    """What the keeper looks after."""

    state_dir: Path
    store: Store
    disks: Disks
    clock: Clock
    custody: Custody
    tell: Tell


@dataclass(frozen=True, slots=True)
class StorageHealth:
    """State of the disk's share for beats and people."""

    state: str  # ok, short (recordings make way), clips_refused, no_room
    since_utc_ns: int
    detail: str = ""


class Keeper:
    """Worker that keeps the box within its share of the disk."""

    name = "retention"

    def __init__(
        self, box: Box, config: RetentionConfig, record: RecordConfig, cameras: Sequence[str]
    ) -> None:
        self._box = box
        self._config = config
        self._record = record
        self._rules = stock.rules_of(config, record)
        self._cameras = tuple(cameras)
        self._steadiness = Steadiness(box.clock)
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._allowance: stock.Allowance | None = None
        self._health = StorageHealth(OK, box.clock.utc_ns())
        self._forgot_ns: int | None = None

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Look every ten seconds until `stop`, less often where a look takes long.

        Raises:
            StorageError: the database or the disk refuses.
        """
        while not stop.is_set():
            begun_ns = self._box.clock.mono_ns()
            self.tidy(progress)
            took_s = (self._box.clock.mono_ns() - begun_ns) / NS_PER_S
            for _ in range(round(min(MOST_S, max(EVERY_S, took_s * PAUSE_FACTOR)))):
                progress()
                if self._box.clock.wait(stop, 1.0):
                    break

    def tidy(self, progress: Callable[[], None] = lambda: None) -> int:
        """Do what is due now, with the ballast's room if the disk is full; gives how much went.

        Raises:
            StorageError: the database or the disk refuses.
        """
        try:
            gone = self._tidy(progress)
        except StorageError:
            if not ballast.release(self._box.state_dir):
                raise
            gone = self._tidy(progress)
        ballast.lay(self._box.state_dir)
        return gone

    def _tidy(self, progress: Callable[[], None]) -> int:
        found = self.look()
        gone = 0
        for step in found.steps:
            if step.action is Action.DELETE:
                gone += self._delete(step)
                progress()
        garbage.sweep(self._box.store, self._box.disks.present())
        self._forget()
        return gone

    def look(self) -> Plan:
        """Take stock and plan; the recording loop and the intake follow it from now on.

        Raises:
            StorageError: the database or the disk refuses.
        """
        site = stock.Site(self._box.state_dir, self._box.disks.present(), self._cameras)
        now = stock.Now(self._box.clock.utc_ns(), self._steadiness.look())
        for _, found in stock.quarantined(site):
            aside.count_from_now(found, now.utc_ns)
        before = 0 if self._plan is None else self._plan.refused
        try:
            rules = stock.rules_here(self._rules, self._box.state_dir, self._record)
            with self._box.store.reading() as connection:
                found_plan = plan(stock.take(connection, site, now), rules, before)
            near = stock.shared(site)
        except OSError as error:
            raise StorageError(f"{self._box.state_dir}: {error.strerror}") from error
        with self._lock:
            self._plan = found_plan
            self._allowance = stock.Allowance(near, found_plan.recordings_max_bytes)
            self._note(found_plan)
        return found_plan

    def allowance(self) -> stock.Allowance | None:
        """Give what recordings may take; None before the first look."""
        with self._lock:
            return self._allowance

    def health(self) -> StorageHealth:
        """Give the state of the disk's share."""
        with self._lock:
            return self._health

    def figures(self) -> Mapping[str, object]:
        """Give the last look in figures, empty before it."""
        with self._lock:
            last = self._plan
        if last is None:
            return {}
        return {
            "share_bytes": last.share_bytes,
            "used_bytes": last.used_bytes,
            "recordings_max_bytes": last.recordings_max_bytes,
            "headroom_bytes": max(0, last.headroom_bytes),
            "refused": list(SEVERITIES[: last.refused]),
        }

    def refusal(self, event: Event) -> str:
        """Say why an event gets no video now; empty: it gets one."""
        with self._lock:
            last = self._plan
        if last is None or self._rank(event) >= last.refused:
            return ""
        refused = ", ".join(SEVERITIES[: last.refused])
        return (
            f"no room: {max(0, last.headroom_bytes)} bytes left for clips;"
            f" refused for the time being: {refused}"
        )

    def _rank(self, event: Event) -> int:
        if event.kind in self._config.low_kinds:
            return 0
        if event.kind in self._config.high_kinds or event.severity not in SEVERITIES:
            return len(SEVERITIES) - 1
        return SEVERITIES.index(event.severity)

    def _note(self, found: Plan) -> None:
        state, detail = _state_of(found)
        if state != self._health.state:
            say = _log.info if state == OK else _log.warning
            say(f"storage {state}", detail=detail)
            self._health = StorageHealth(state, self._box.clock.utc_ns(), detail)
        else:
            self._health = replace(self._health, detail=detail)

    def _delete(self, step: Step) -> bool:
        try:
            if step.kind == Kind.RECEIPTED:
                return self._delete_clip(step)
            if step.kind == Kind.EXPORT:
                return self._delete_export(step)
            return self._delete_quarantined(step)
        except OSError as error:  # this one's file: the others go all the same
            _log.warning("not deleted, will be tried again", name=step.name, reason=error)
            return False

    def _delete_clip(self, step: Step) -> bool:
        def change(connection: sqlite3.Connection) -> bool:
            row = connection.execute(_MAY_GO, {"id": step.name}).fetchone()
            transfers = connection.execute(
                "SELECT name, sha256, size_bytes, state, receipt FROM transfer WHERE clip_id = ?",
                (step.name,),
            ).fetchall()
            receipts = [_receipt(transfer) for transfer in transfers]
            if row is None or not receipts or not all(receipts):
                return False
            folder = self._box.state_dir / row["path"]
            files = _files(folder) if row["path"] else ()
            root = self._box.state_dir
            garbage.note(connection, [(STATE_DIR, str(path.relative_to(root))) for path in files])
            connection.execute(
                "UPDATE clip SET state = 'deleted', reason = ?, track_path = '[]' WHERE id = ?",
                (f"{step.rule}: {step.reason}", step.name),
            )
            connection.execute(  # the centre has it, and it is most of the row
                "UPDATE transfer SET manifest = '' WHERE clip_id = ?", (step.name,)
            )
            detail = {
                **_why(step),
                "files": {transfer["name"]: transfer["sha256"] for transfer in transfers},
                "keyids": sorted({str(receipt["keyid"]) for receipt in receipts}),
                "size_bytes": sum(transfer["size_bytes"] for transfer in transfers),
            }
            self._box.custody(connection, "clip.deleted", step.name, detail)
            return True

        is_gone = self._box.store.write(change)
        if is_gone:
            _log.info("clip deleted here, the centre has it", clip_id=step.name, rule=step.rule)
        return is_gone

    def _delete_export(self, step: Step) -> bool:
        root = self._box.state_dir
        files = list(_files(root / step.name))
        listing = "".join(f"{_sha256(path)}  {path.relative_to(root)}\n" for path in files)
        detail = {
            **_why(step),
            "files": len(files),
            "size_bytes": step.size_bytes,
            "listing_sha256": hashlib.sha256(listing.encode()).hexdigest(),
        }
        gone = [(STATE_DIR, str(path.relative_to(root))) for path in files]

        def change(connection: sqlite3.Connection) -> None:
            garbage.note(connection, gone)
            self._box.custody(connection, "export.deleted", step.name, detail)

        if not files:
            (root / step.name).rmdir()
            return True
        self._box.store.write(change)
        return True

    def _delete_quarantined(self, step: Step) -> bool:
        folder_id, _, name = step.name.partition(":")
        folder = self._folder(folder_id)
        if folder is None:
            return False
        sha256 = hash_file(folder.path / name).sha256
        detail = {**_why(step), "sha256": sha256, "size_bytes": step.size_bytes}

        def change(connection: sqlite3.Connection) -> bool:
            if self._is_held(connection, Path(name).name):
                return False
            garbage.note(connection, [(folder_id, name)])
            self._box.custody(connection, "quarantine.deleted", name, detail)
            self._box.tell(connection, self._quarantine_told(step, name, sha256))
            return True

        return self._box.store.write(change)

    def _folder(self, folder_id: str) -> Folder | None:
        present = self._box.disks.present()
        return next((folder for folder in present if folder.folder_id == folder_id), None)

    def _is_held(self, connection: sqlite3.Connection, name: str) -> bool:
        cameras = connection.execute("SELECT DISTINCT camera FROM hold")
        return any(name.startswith(f"{row[0]}-") for row in cameras)

    def _quarantine_told(self, step: Step, name: str, sha256: str) -> Message:
        detail = f"{name}, {step.size_bytes} bytes, sha256 {sha256}: {step.reason}"
        body = {
            "state": "deleted",
            "since_utc_ms": max(0, self._box.clock.utc_ns() // NS_PER_MS),
            "detail": detail[:MOST_DETAIL],
        }
        return Message(Lane.STATE, QUARANTINE_KIND, body, is_retained=True)

    def _forget(self) -> None:
        """Take rows out that speak of nothing any more, once an hour."""
        now_ns = self._box.clock.mono_ns()
        is_due = self._forgot_ns is None or now_ns - self._forgot_ns >= FORGET_EVERY_NS
        if not is_due or not self._steadiness.look():
            return
        self._forgot_ns = now_ns
        before_utc_ns = self._box.clock.utc_ns() - round(self._config.history_days * 86_400e9)
        forget.forget(self._box.store, before_utc_ns)


def _state_of(found: Plan) -> tuple[str, str]:
    refused = ", ".join(SEVERITIES[: found.refused])
    room = f"{found.used_bytes} of {found.share_bytes} bytes used"
    if found.refused == len(SEVERITIES):
        return FULL, f"{room}; no video of any event; {found.lacking_reason}"[:MOST_DETAIL]
    if found.refused:
        return REFUSED, f"{room}; no video of events of severity {refused}"
    if any(step.action is Action.SHRINK for step in found.steps):
        return SHORT, f"{room}; the oldest recordings make way for clips without a receipt"
    return OK, room


def _why(step: Step) -> dict[str, object]:
    return {"rule": step.rule, "reason": step.reason}


def _receipt(transfer: sqlite3.Row) -> Mapping[str, object]:
    """Give a file's receipt if it is for that very file, else nothing."""
    try:
        found = json.loads(transfer["receipt"] or "")
    except ValueError:
        return {}
    is_for_it = (
        transfer["state"] == "receipted"
        and isinstance(found, dict)
        and found.get("sha256") == transfer["sha256"]
        and found.get("size_bytes") == transfer["size_bytes"]
        and "keyid" in found
    )
    return found if is_for_it else {}


def _sha256(path: Path) -> str:
    return "link" if path.is_symlink() else hash_file(path).sha256


def _files(path: Path) -> Iterator[Path]:
    """Give every file at or below a path; links as themselves."""
    if path.is_symlink() or not path.is_dir():
        if path.is_symlink() or path.exists():
            yield path
        return
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield from _files(Path(entry.path))
