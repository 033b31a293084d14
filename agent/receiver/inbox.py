"""Outbox messages of the devices: stored once, events kept up to date, gaps noted."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import MalformedMessage, RowRefused
from agent.core.store import Store
from agent.receiver import gaps, losses, replay, times

ASK_AFTER_MS = 60_000
RECEIPTED = ("event", "command", "time", "gap")  # kinds, up to the stroke, that devices keep for it
MAX_INTEGER = (1 << 53) - 1  # what JSON readers agree on; SQLite would refuse beyond 63 bits

_EVENT = """
    INSERT INTO event (event_id, device, camera, kind, rule, state, start_utc_ms, end_utc_ms, body)
    VALUES (:event_id, :device, :camera, :kind, :rule, :state, :start_utc_ms, :end_utc_ms, :body)
    ON CONFLICT (device, event_id) DO UPDATE
    SET state = :state, end_utc_ms = :end_utc_ms, body = :body WHERE event.state = 'open'
"""
_CLIP = "UPDATE event SET clip = ? WHERE device = ? AND event_id = ? AND clip IS NULL"
_TAKERS = {
    "command": replay.take_answer,
    "time": times.adjust,
    "gap/file": losses.note,
}
_EVENT_FIELDS = (
    *("event_id", "camera", "kind", "rule", "state"),
    *("start_utc_ms", "end_utc_ms"),
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """One envelope that passed its checks, with its exact bytes."""

    envelope: wire.Json
    payload: bytes

    @property
    def wants_receipt(self) -> bool:
        """Whether the device keeps it until we have signed."""
        kind: str = self.envelope["kind"]
        return self.envelope["lane"] == "alarm" or kind.partition("/")[0] in RECEIPTED


def read(topic: wire.Address, payload: bytes) -> Incoming:
    """Check an envelope against its schema and its topic.

    Raises:
        MalformedMessage: naming what is wrong.
    """
    return _checked(topic, wire.decode("envelope", payload), payload)


def read_line(topic: wire.Address, line: bytes) -> Incoming:
    """Check an envelope out of a batch as if it had come alone, on a topic of its own.

    Raises:
        MalformedMessage: naming what is wrong.
    """
    envelope = wire.decode("envelope", line)
    kind: str = envelope["kind"]
    if topic.rest[1:] != (kind.partition("/")[0],):
        raise MalformedMessage(f"kind {kind!r} in a batch on {'/'.join(topic.rest)!r}")
    alone = wire.Address(topic.site, topic.device, tuple(kind.split("/")))
    return _checked(alone, envelope, line)


def _checked(topic: wire.Address, envelope: wire.Json, payload: bytes) -> Incoming:
    if envelope["device"] != topic.device:
        raise MalformedMessage(f"envelope of {envelope['device']!r} on a topic of {topic.device!r}")
    if envelope["kind"] != "/".join(topic.rest):
        raise MalformedMessage(f"kind {envelope['kind']!r} on topic {'/'.join(topic.rest)!r}")
    schema = wire.BODIES.get(envelope["kind"].partition("/")[0])
    if schema is not None:
        wire.fit(schema, envelope["body"])
    _check_whole(envelope, ("boot", "seq", "t_utc_ms", "mono_ms"))
    if schema == "state":
        gaps.check_spans(envelope["body"].get("removed", ()))
    if schema == "event":
        _check_whole(envelope["body"], ("start_utc_ms", "end_utc_ms"))
    return Incoming(envelope, payload)


class Inbox:
    """Stores messages."""

    def __init__(self, store: Store, clock: Clock, ask_after_ms: int = ASK_AFTER_MS) -> None:
        self._store = store
        self._clock = clock
        self._ask_after_ms = ask_after_ms

    def keep(self, messages: Sequence[Incoming]) -> int:
        """Store what is new, all in one transaction; gives how many were new.

        Raises:
            StorageError: nothing was stored, for now.
            MalformedMessage: nothing was stored, and never will be: the index refuses one of them.
        """
        try:
            return self._store.write(lambda connection: self._insert_all(connection, messages))
        except (RowRefused, OverflowError) as error:
            raise MalformedMessage(f"message refused by the index: {error}") from error

    def _insert_all(self, connection: sqlite3.Connection, messages: Sequence[Incoming]) -> int:
        return sum(self._insert(connection, message) for message in messages)

    def _insert(self, connection: sqlite3.Connection, message: Incoming) -> bool:
        envelope = message.envelope
        now_ms = self._clock.utc_ns() // NS_PER_MS
        is_new = connection.execute(
            "INSERT OR IGNORE INTO message (id, device, boot, lane, seq, kind, t_utc_ms,"
            " received_utc_ms, mono_ms, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(envelope["id"], envelope["device"], envelope["boot"], envelope["lane"]),
                *(envelope["seq"], envelope["kind"], envelope["t_utc_ms"]),
                *(now_ms, envelope["mono_ms"], message.payload),
            ),
        ).rowcount
        if is_new:
            self._note_numbers(connection, envelope, now_ms)
        if is_new and envelope["kind"].startswith("event/"):
            body = envelope["body"]
            values = {name: body[name] for name in _EVENT_FIELDS}
            values |= {"device": envelope["device"], "body": json.dumps(body)}
            if body["state"] == "sealed":  # of an event that lasts it comes before the end
                values["state"] = "open" if body["end_utc_ms"] is None else "closed"
            connection.execute(_EVENT, values)
            if "clip" in body:
                key = (envelope["device"], body["event_id"])
                connection.execute(_CLIP, (json.dumps(body["clip"]), *key))
        if is_new:
            times.take(connection, envelope)
            kind, group = envelope["kind"], envelope["kind"].partition("/")[0]
            if (take := _TAKERS.get(kind) or _TAKERS.get(group)) is not None:
                take(connection, envelope)
        return bool(is_new)

    def _note_numbers(
        self, connection: sqlite3.Connection, envelope: wire.Json, now_ms: int
    ) -> None:
        gaps.note(connection, envelope, now_ms, self._ask_after_ms)
        if envelope["kind"] == "birth":
            gaps.note_earlier(connection, envelope, now_ms, self._ask_after_ms)
        elif envelope["kind"] == "state/outbox":
            gaps.tell_removed(connection, envelope, now_ms)


def _check_whole(document: wire.Json, names: Sequence[str]) -> None:
    for name in names:
        value = document[name]
        if value is not None and (not isinstance(value, int) or value > MAX_INTEGER):
            raise MalformedMessage(
                f"{name}: {str(value)[:40]}; allowed: whole numbers to {MAX_INTEGER}"
            )
