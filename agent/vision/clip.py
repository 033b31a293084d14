"""The clip maker: a wanted clip becomes a sealed folder that waits for its receipt.

Where nothing was recorded the event's picture and path are still handed over, and `missing_ms`
says that the footage is not there. Every step may be killed. A folder is made under `work/`,
renamed into `clips/`, and only the last transaction says that it is sealed; as long as the row
says `wanted` it is simply made again.
"""

import json
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import AgentError, MalformedMessage, Unsupported
from agent.core.files import atomic, sync_directory
from agent.core.model import Event, EventState, Lane, Message
from agent.core.store import Store
from agent.delivery.ledger import Handover, OutgoingFile, enqueue
from agent.evidence import custody, manifest
from agent.evidence.hashing import HashingWriter, copy_hashed
from agent.evidence.keys import DeviceKey
from agent.evidence.manifest import FileEntry, ManifestFacts
from agent.vision import cut, lines
from agent.vision.footage import Footage, Span, gather
from agent.vision.ring import Ring

SILENT_NS = 15 * NS_PER_S  # a source silent for so long past a clip's end has no more for it
EVERY_S = 0.5
POST_NS = 60 * NS_PER_S  # no clip goes on for longer after its event
UNSETTLED_NS = 120 * NS_PER_S  # longest wait for a segment that the ring does not cover
RETRY_NS = 20 * NS_PER_S
LENIENT_NS = 600 * NS_PER_S  # after that what cannot be read is left out, and told as missing
NO_PACKETS = "the camera sent nothing"
TIME_OF_A_PICTURE_MS = 250  # a span begins and ends between two pictures: that is no loss
FOLDER, WORK, SPOOL = "clips", "work", "spool"

_log = log.get(__name__)

ClockState = Callable[[], Mapping[str, object]]
Tell = Callable[[sqlite3.Connection, Message], object]
"""Adds a message to the outbox inside a transaction."""


@dataclass(frozen=True, slots=True)
class Custodian:
    """Who seals: the device, its key, its store and its clock."""

    device: str
    site: str
    state_dir: Path
    store: Store
    key: DeviceKey
    clock: Clock
    clock_state: ClockState


@dataclass(frozen=True, slots=True)
class _Wanted:
    clip_id: str
    event_id: str
    camera: str
    start_utc_ns: int
    end_utc_ns: int
    snapshot: str
    track_path: str
    event_line: str
    event_state: str
    refused: str  # why it gets no video
    kind: str
    rule: str


@dataclass(frozen=True, slots=True)
class _Trial:
    """A clip that could not be made."""

    since_ns: int
    not_before_ns: int


class ClipMaker:
    """Worker that makes wanted clips, oldest first."""

    name = "clips"

    def __init__(self, custodian: Custodian, rings: Mapping[str, Ring], tell: Tell) -> None:
        self._custodian = custodian
        self._rings = rings
        self._tell = tell
        self._trials: dict[str, _Trial] = {}
        self._ends: dict[str, int] = {}  # monotonic instant at which a wanted span is over

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Look twice a second until `stop`."""
        self._sweep()
        while not stop.is_set():
            found = self._wanted()
            self._ends = {item.clip_id: self._end_mono_ns(item) for item in found}
            for wanted in found:
                if stop.is_set():
                    return
                self._attempt(wanted)
                progress()
            progress()
            self._custodian.clock.wait(stop, EVERY_S)

    def _sweep(self) -> None:
        """Remove snapshots that a killed maker had sealed, but not yet taken out of the spool."""
        with self._custodian.store.reading() as connection:
            rows = connection.execute(
                "SELECT snapshot FROM clip WHERE state IN ('sealed', 'receipted')"
                " AND snapshot != ''"
            )
            sealed = {self._custodian.state_dir / row[0] for row in rows}
        for path in (self._custodian.state_dir / SPOOL).glob("*"):
            if path in sealed:
                path.unlink()

    def _attempt(self, wanted: _Wanted) -> None:
        now_ns = self._custodian.clock.mono_ns()
        trial = self._trials.get(wanted.clip_id, _Trial(now_ns, now_ns))
        if now_ns < trial.not_before_ns or not self._is_due(wanted):
            return
        try:
            self._make(wanted, is_lenient=now_ns - trial.since_ns >= LENIENT_NS)
        except (AgentError, OSError, ValueError) as error:
            if wanted.clip_id not in self._trials:
                _log.error(
                    "clip not made, will be tried again", clip_id=wanted.clip_id, reason=error
                )
            self._trials[wanted.clip_id] = replace(trial, not_before_ns=now_ns + RETRY_NS)
        else:
            self._trials.pop(wanted.clip_id, None)

    def _wanted(self) -> list[_Wanted]:
        with self._custodian.store.reading() as connection:
            rows = connection.execute(
                "SELECT c.id, c.event_id, c.camera, c.start_utc_ns, c.end_utc_ns, c.snapshot,"
                " c.track_path, coalesce(e.body, ''), coalesce(e.state, 'closed'),"
                " c.refused, coalesce(e.kind, 'unknown'), coalesce(e.rule, 'unknown')"
                " FROM clip c LEFT JOIN event e ON e.id = c.event_id"
                " WHERE c.state = 'wanted' ORDER BY c.end_utc_ns"
            ).fetchall()
        return [_Wanted(*row) for row in rows]

    def _is_due(self, wanted: _Wanted) -> bool:
        ring = self._rings.get(wanted.camera)
        newest_utc_ns = None if ring is None else ring.newest_utc_ns
        if wanted.refused:
            return True
        if newest_utc_ns is not None and newest_utc_ns >= wanted.end_utc_ns:
            return True
        return self._over_ns(wanted) > SILENT_NS

    def _end_mono_ns(self, wanted: _Wanted) -> int:
        """Give the end of a wanted span as it looked when it was first seen, on monotonic time."""
        clock = self._custodian.clock
        left_ns = wanted.end_utc_ns - clock.utc_ns()
        if wanted.event_state == EventState.CLOSED:
            left_ns = min(left_ns, POST_NS)
        return self._ends.get(wanted.clip_id, clock.mono_ns() + left_ns)

    def _over_ns(self, wanted: _Wanted) -> int:
        """Give how long a span is over; a clock that is set back does not make us wait for it."""
        clock = self._custodian.clock
        by_wall_ns = clock.utc_ns() - wanted.end_utc_ns
        return max(by_wall_ns, clock.mono_ns() - self._end_mono_ns(wanted))

    def _make(self, wanted: _Wanted, *, is_lenient: bool) -> None:
        footage = self._footage(wanted, is_lenient=is_lenient)
        if not footage.is_settled and self._over_ns(wanted) < UNSETTLED_NS:
            return
        work = self._custodian.state_dir / WORK / wanted.clip_id
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        written = self._write_parts(wanted, footage, work, is_lenient=is_lenient)
        snapshot = self._copy_snapshot(wanted, work)
        if not written and not snapshot:
            shutil.rmtree(work)
            self._note_empty(wanted)
            return
        entries = [
            FileEntry(f"clip-{number}.mp4", "clip", "video/mp4", part.hash)
            for number, part in enumerate(written, start=1)
        ]
        entries += snapshot
        entries.append(self._write_path(wanted, work))
        missing_ms = _missing_ms(wanted, written)
        facts = self._facts(wanted, footage, missing_ms)
        envelope = manifest.seal(work, facts, entries, self._custodian.key, self._custodian.clock)
        folder = self._into_place(wanted, work)
        handover = Handover(
            wanted.clip_id,
            folder,
            [
                OutgoingFile(item.name, item.hash.size_bytes, item.hash.sha256, item.hash.leaf_root)
                for item in entries
            ],
            envelope,
            (wanted.event_id,),
        )
        reason = ("; ".join(footage.reasons) or NO_PACKETS) if missing_ms else ""
        event = _event(wanted)

        def change(connection: sqlite3.Connection) -> None:
            self._note_sealed(connection, handover, missing_ms, reason)
            self._tell(connection, _sealed(event, handover, missing_ms, wanted.refused))

        self._custodian.store.write(change)
        if wanted.snapshot:
            (self._custodian.state_dir / wanted.snapshot).unlink(missing_ok=True)
        _log.info("clip sealed", clip_id=wanted.clip_id, parts=len(written), missing_ms=missing_ms)

    def _footage(self, wanted: _Wanted, *, is_lenient: bool) -> Footage:
        if wanted.refused:
            return Footage((), (), None, (f"refused: {wanted.refused}",), is_settled=True)
        return gather(
            self._custodian.store,
            self._custodian.state_dir,
            self._rings.get(wanted.camera),
            Span(wanted.camera, wanted.start_utc_ns, wanted.end_utc_ns),
            is_lenient=is_lenient,
        )

    def _write_parts(
        self, wanted: _Wanted, footage: Footage, work: Path, *, is_lenient: bool
    ) -> list[cut.CutPart]:
        metadata = {"outpost_clip": wanted.clip_id, "outpost_camera": wanted.camera}
        written: list[cut.CutPart] = []
        for part in footage.parts:
            target = work / f"clip-{len(written) + 1}.mp4"
            try:
                done = cut.write(part, target, work / "muxing.mp4", metadata)
            except Unsupported as error:
                if not is_lenient:
                    raise
                _log.warning("part left out", clip_id=wanted.clip_id, reason=error)
                continue
            if done is not None:
                written.append(done)
        return written

    def _copy_snapshot(self, wanted: _Wanted, work: Path) -> list[FileEntry]:
        source = self._custodian.state_dir / wanted.snapshot
        if not wanted.snapshot or not source.is_file():
            return []
        with atomic(work / "snapshot.jpg") as stream:
            found = copy_hashed(source, stream)
        return [FileEntry("snapshot.jpg", "snapshot", "image/jpeg", found)]

    def _write_path(self, wanted: _Wanted, work: Path) -> FileEntry:
        points = _points(wanted)
        document = {"camera": wanted.camera, "event_id": wanted.event_id, "foot": points}
        with atomic(work / "path.json") as stream:
            writer = HashingWriter(stream)
            writer.write(json.dumps(document, separators=(",", ":")).encode())
        return FileEntry("path.json", "path", "application/json", writer.finish())

    def _facts(self, wanted: _Wanted, footage: Footage, missing_ms: int) -> ManifestFacts:
        event = _event(wanted)
        with self._custodian.store.reading() as connection:
            head = custody.head(connection)
        return ManifestFacts(
            clip_id=wanted.clip_id,
            device=self._custodian.device,
            site=self._custodian.site,
            camera=wanted.camera,
            event_ids=(wanted.event_id,),
            kind=event.kind,
            rule=event.rule,
            model=event.model,
            start_utc_ms=wanted.start_utc_ns // NS_PER_MS,
            end_utc_ms=wanted.end_utc_ns // NS_PER_MS,
            missing_ms=missing_ms,
            clock=self._custodian.clock_state(),
            camera_offset_ms=footage.camera_offset_ms,
            sources=tuple((_hash(sha256), start_ms) for sha256, start_ms in footage.sources),
            custody_seq=head.seq,
            custody_hash=head.hash,
        )

    def _into_place(self, wanted: _Wanted, work: Path) -> Path:
        folder = Path(FOLDER) / wanted.clip_id
        target = self._custodian.state_dir / folder
        target.parent.mkdir(exist_ok=True)
        if target.exists():  # of an attempt that was killed before its row said sealed
            shutil.rmtree(target)
        sync_directory(work)
        work.rename(target)
        sync_directory(target.parent)
        return folder

    def _note_sealed(
        self, connection: sqlite3.Connection, handover: Handover, missing_ms: int, reason: str
    ) -> None:
        connection.execute(
            "UPDATE clip SET state = 'sealed', path = ?, missing_ms = ?, reason = ? WHERE id = ?",
            (str(handover.folder), missing_ms, reason, handover.clip_id),
        )
        enqueue(connection, handover, self._custodian.clock)
        files = {item.name: item.sha256 for item in handover.files}
        detail = {"event_ids": list(handover.event_ids), "files": files}
        custody.append(connection, self._custodian.clock, "clip.sealed", handover.clip_id, detail)

    def _note_empty(self, wanted: _Wanted) -> None:
        state = "refused" if wanted.refused else "empty"
        reason = wanted.refused or "nothing was recorded in its span"
        span_ms = (wanted.end_utc_ns - wanted.start_utc_ns) // NS_PER_MS

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE clip SET state = ?, missing_ms = ?, reason = ? WHERE id = ?",
                (state, span_ms, reason, wanted.clip_id),
            )
            detail = {"reason": reason}
            custody.append(connection, self._custodian.clock, "clip.empty", wanted.clip_id, detail)

        self._custodian.store.write(change)
        _log.warning("clip empty", clip_id=wanted.clip_id, event_id=wanted.event_id, reason=reason)


def _sealed(event: Event, handover: Handover, missing_ms: int, refused: str) -> Message:
    files = [
        {"name": item.name, "size_bytes": item.size_bytes, "sha256": item.sha256}
        for item in handover.files
    ]
    body = lines.sealed_body(event, handover.clip_id, missing_ms, files)
    if refused:
        body["clip_refused"] = refused
    return Message(Lane.STATE, f"event/{event.kind}", body, needs_receipt=True)


def _hash(stored: str) -> str:
    """Give a segment's hash; none if the disk has changed it: a wrong one would name another."""
    return stored if re.fullmatch("[0-9a-f]{64}", stored) else ""


def _event(wanted: _Wanted) -> Event:
    """Give the event; of a line in which the disk has changed a byte what the columns say."""
    try:
        return lines.from_line(wanted.event_line)
    except MalformedMessage as error:
        _log.warning("event's line is damaged", event_id=wanted.event_id, reason=error)
        return Event(
            event_id=wanted.event_id,
            camera=wanted.camera,
            kind=wanted.kind,
            rule=wanted.rule,
            state=EventState.CLOSED,
            start_utc_ns=wanted.start_utc_ns,
            end_utc_ns=wanted.end_utc_ns,
            label="",
            score=0.0,
            track_ids=(),
            measured={},
            model="",
            reason="the box's record of it was damaged",
        )


def _points(wanted: _Wanted) -> list[object]:
    """Give the path of the object's foot; none if the disk has changed a byte of it."""
    with suppress(ValueError):
        found = json.loads(wanted.track_path)
        if isinstance(found, list):
            return found
    return []


def _missing_ms(wanted: _Wanted, written: list[cut.CutPart]) -> int:
    covered_ns, reached_ns = 0, wanted.start_utc_ns
    for part in sorted(written, key=lambda part: part.start_utc_ns):
        begin_ns = max(part.start_utc_ns, reached_ns)
        reached_ns = max(reached_ns, min(part.end_utc_ns, wanted.end_utc_ns))
        covered_ns += max(0, reached_ns - begin_ns - part.hole_ns)
    missing_ms = (wanted.end_utc_ns - wanted.start_utc_ns - covered_ns) // NS_PER_MS
    return missing_ms if missing_ms > TIME_OF_A_PICTURE_MS else 0
