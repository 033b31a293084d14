"""What the analysis process says, made durable: event, message and wanted clip in one transaction.

The analysis may die at any line. An event that it left open is closed here with the time it was
last heard of, so that nothing that was reported stays open for ever.
"""

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import MalformedMessage, StorageError
from agent.core.model import Event, EventState, Lane, Message
from agent.core.store import Store
from agent.vision import lines

_log = log.get(__name__)

MOST_SPAN_NS = 7200 * NS_PER_S  # no event lasts so long: the clock was set while it went on
MOST_HELD = 1000  # lines that wait in memory for a disk that refuses

_UPSERT = """
    INSERT INTO event (id, camera, kind, rule, state, start_utc_ns, end_utc_ns, body)
    VALUES (:id, :camera, :kind, :rule, :state, :start, :end, :body)
    ON CONFLICT (id) DO UPDATE SET state = :state, end_utc_ns = :end, body = :body
"""


class Outbox(Protocol):
    """The part of the outbox that the intake needs."""

    def put_in(self, connection: sqlite3.Connection, message: Message) -> str:
        """Add a message inside a transaction; gives its id."""
        ...


Refusal = Callable[[Event], str]
"""Says why an event's clip gets no video now; empty: it gets one."""

Custody = Callable[[sqlite3.Connection, str, str, Mapping[str, object]], object]
"""Appends (kind, subject, detail) to the custody log inside a transaction."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Who says whether there is room for a clip, and who keeps on record that there was none."""

    refusal: Refusal
    custody: Custody


@dataclass(frozen=True, slots=True)
class AnalysisHealth:
    """What the analysis last said of one camera."""

    state: str
    detail: str
    frames: int
    inferences: int
    tracks: int
    lag_ms: int | None
    blind: tuple[Mapping[str, object], ...] = ()  # rule, reason (empty: it sees again), total_s


@dataclass(frozen=True, slots=True)
class DetectorHealth:
    """What the analysis last said of its detector: starting, ready, or degraded to motion only."""

    state: str
    since_utc_ns: int
    detail: str = ""


class Intake:
    """Takes the lines of the analysis process; called from one thread at a time."""

    def __init__(
        self, store: Store, outbox: Outbox, clock: Clock, admission: Admission | None = None
    ) -> None:
        self._admission = admission
        self._store = store
        self._outbox = outbox
        self._clock = clock
        self._lock = threading.Lock()
        self._health: dict[str, AnalysisHealth] = {}
        self._model = ""
        self._detector = DetectorHealth("starting", clock.utc_ns())
        self._held: deque[Event] = deque(maxlen=MOST_HELD)
        self._left_open_reason = ""

    @property
    def model(self) -> str:
        """Id of the detector that the analysis runs, empty before it is ready."""
        return self._model

    @property
    def detector(self) -> DetectorHealth:
        """Give what the analysis last said of its detector."""
        return self._detector

    def health(self, camera: str) -> AnalysisHealth:
        """Give the analysis state of a camera."""
        with self._lock:
            return self._health.get(camera, AnalysisHealth("starting", "", 0, 0, 0, None))

    def line(self, text: str) -> None:
        """Take one line of the child's standard output.

        An event that the store refuses (the disk is full) waits here until it takes it.
        """
        try:
            said = json.loads(text)
            kind = said["type"]
        except (ValueError, KeyError, TypeError):
            _log.warning("analysis line not understood", line=text[:120])
            return
        if kind == "event":
            self._take_event(text)
        elif kind in ("camera", "stats"):
            self._note(said)
        elif kind in ("ready", "degraded"):
            self._detector_said(said)
        else:
            _log.warning("analysis line of unknown type", type=kind)

    def close_left_open(self, reason: str) -> int:
        """Close every event that is still open, at the time its camera was last recorded.

        Returns:
            How many were closed.
        """
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT e.*, (SELECT max(end_utc_ns) FROM segment s WHERE s.camera = e.camera"
                " AND s.end_utc_ns > e.start_utc_ns) AS recorded_utc_ns"
                " FROM event e WHERE state = 'open'"
            ).fetchall()
        for row in rows:
            self._store_event(_ended(row, reason))
        return len(rows)

    def _take_event(self, text: str) -> None:
        try:
            event = lines.from_line(text)
        except MalformedMessage as error:
            _log.warning("event of the analysis refused", reason=error)
            return
        self._held.append(event)
        self._settle()

    def _settle(self) -> None:
        """Store what waits, oldest first; what the store refuses waits on."""
        had_waited = len(self._held) > 1 or bool(self._left_open_reason)
        try:
            if self._left_open_reason:
                self.close_left_open(self._left_open_reason)
                self._left_open_reason = ""
            while self._held:
                self._store_event(self._held[0])
                self._held.popleft()
        except StorageError as error:
            if not had_waited:
                _log.error("events wait for the disk", reason=error)

    def _store_event(self, event: Event) -> None:
        is_new = self._store.write(lambda connection: self._insert(connection, event))
        if is_new:
            _log.info(
                f"event {event.state.value}",
                event_id=event.event_id,
                camera=event.camera,
                kind=event.kind,
                rule=event.rule,
            )

    def _insert(self, connection: sqlite3.Connection, event: Event) -> bool:
        known = connection.execute(
            "SELECT state FROM event WHERE id = ?", (event.event_id,)
        ).fetchone()
        if known is not None and _is_old(connection, known["state"], event):
            return False
        connection.execute(
            _UPSERT,
            {
                "id": event.event_id,
                "camera": event.camera,
                "kind": event.kind,
                "rule": event.rule,
                "state": event.state,
                "start": event.start_utc_ns,
                "end": event.end_utc_ns,
                "body": lines.to_line(event),
            },
        )
        refused = ""
        if _is_clip_due(event) and not _has_clip(connection, event):
            refused = self._want_clip(connection, event)
        body = lines.event_body(event, refused)
        self._outbox.put_in(
            connection, Message(Lane.ALARM, f"event/{event.kind}", body, needs_receipt=True)
        )
        return True

    def _want_clip(self, connection: sqlite3.Connection, event: Event) -> str:
        """Add the wanted clip; gives why it gets no video, empty where it does."""
        refused = "" if self._admission is None else self._admission.refusal(event)
        clip_id = self._clock.new_id()
        last_utc_ns = event.end_utc_ns or event.clip_until_utc_ns or event.start_utc_ns
        span_ns = min(max(0, last_utc_ns - event.start_utc_ns), MOST_SPAN_NS)
        end_utc_ns = event.start_utc_ns + span_ns
        connection.execute(
            "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state, snapshot,"
            " track_path, refused) VALUES (?, ?, ?, ?, ?, 'wanted', ?, ?, ?)",
            (
                clip_id,
                event.event_id,
                event.camera,
                max(0, event.start_utc_ns - round(event.pre_s * NS_PER_S)),
                end_utc_ns + round(event.post_s * NS_PER_S),
                str(event.snapshot or ""),
                json.dumps(event.path),
                refused,
            ),
        )
        if refused and self._admission is not None:
            detail = {"event_id": event.event_id, "kind": event.kind, "severity": event.severity}
            detail["reason"] = refused
            self._admission.custody(connection, "clip.refused", clip_id, detail)
            _log.warning("no video of an event", event_id=event.event_id, reason=refused)
        return refused

    def _note(self, said: Mapping[str, Any]) -> None:
        camera = str(said.get("camera", ""))
        before = self.health(camera)
        if said["type"] == "camera":
            after = replace(
                before, state=str(said.get("state")), detail=str(said.get("detail", ""))
            )
        else:
            after = replace(
                before,
                frames=int(said.get("frames", 0)),
                inferences=int(said.get("inferences", 0)),
                tracks=int(said.get("tracks", 0)),
                lag_ms=said.get("lag_ms"),
                blind=_blind(said.get("blind", {})),
            )
        with self._lock:
            self._health[camera] = after
        self._settle()

    def _detector_said(self, said: Mapping[str, Any]) -> None:
        self._model = str(said.get("model", ""))
        state, reason = str(said["type"]), str(said.get("reason", ""))
        self._detector = DetectorHealth(state, self._clock.utc_ns(), reason)
        _log.info("detector " + said["type"], model=self._model, reason=said.get("reason", ""))
        self._left_open_reason = "analysis restarted"
        self._settle()


def _blind(said: Mapping[str, Mapping[str, Any]]) -> tuple[Mapping[str, object], ...]:
    return tuple(
        {
            "rule": rule,
            "reason": str(item.get("reason", "")),
            "total_s": float(item.get("total_s", 0)),
        }
        for rule, item in sorted(said.items())
    )


def _is_old(connection: sqlite3.Connection, known_state: str, event: Event) -> bool:
    if known_state == EventState.CLOSED:
        return True
    is_told = known_state == event.state
    return is_told and (event.clip_until_utc_ns is None or _has_clip(connection, event))


def _is_clip_due(event: Event) -> bool:
    is_over = event.state is EventState.CLOSED and event.has_clip
    return is_over or event.clip_until_utc_ns is not None


def _has_clip(connection: sqlite3.Connection, event: Event) -> bool:
    wanted = "SELECT 1 FROM clip WHERE event_id = ?"
    return connection.execute(wanted, (event.event_id,)).fetchone() is not None


def _ended(row: sqlite3.Row, reason: str) -> Event:
    return replace(
        lines.from_line(row["body"]),
        state=EventState.CLOSED,
        end_utc_ns=max(row["start_utc_ns"], row["recorded_utc_ns"] or 0),
        reason=reason,
    )
