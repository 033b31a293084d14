"""Commands of the centre: signed by its pinned key, done once, answered by `command/<id>/status`.

The live link hands over what it hears; a thread of its own does it, so that no alarm waits for a
command. What is not signed by the centre is ignored and logged; what is signed and cannot be done
is refused with the reason. A known id is not done again.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import IntegrityError, MalformedMessage
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.core.wire import Json
from agent.delivery.outbox import Outbox
from agent.delivery.patience import Complaints

MOST_WAITING = 64  # the centre sends again what falls out
MOST_BYTES = 64 * 1024  # of one: what waits is held in memory
MOST_KNOWN = 1000
WAIT_S = 0.5
MOST_DETAIL = 512  # letters, by the schema
AHEAD_MS = 86_400_000  # a centre's clock may be so far ahead of ours
_FLOOR = "command/floor"  # in the table meta

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a word has done."""

    detail: str
    record: Json | None = None  # signed


Word = Callable[[str, Json], Answer]
"""Does one word, given the command's id and args; raises MalformedMessage to refuse it."""


class Commands:
    """Worker that does what the centre says."""

    name = "commands"

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        check: Callable[[Json], Json],
        words: Mapping[str, Word],
        clock: Clock,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._check = check
        self._words = words
        self._clock = clock
        self._queue: queue.Queue[tuple[str, bytes]] = queue.Queue(MOST_WAITING)
        self._complaints = Complaints(_log)

    @property
    def topic(self) -> str:
        """What the live link listens to for us."""
        return self._outbox.topics.command("+")

    @property
    def ignored(self) -> int:
        """How many were not the centre's."""
        return self._complaints.count

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message of `topic`; called by the live link."""
        if len(payload) > MOST_BYTES:
            self._ignore(f"{len(payload)} bytes; allowed: {MOST_BYTES}")
            return
        try:
            self._queue.put_nowait((topic, payload))
        except queue.Full:
            self._ignore(f"more than {MOST_WAITING} are waiting")

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Do what comes until `stop`."""
        while not stop.is_set():
            try:
                topic, payload = self._queue.get(timeout=WAIT_S)
            except queue.Empty:
                progress()
                continue
            self._take(topic, payload)
            progress()

    def _take(self, topic: str, payload: bytes) -> None:
        try:
            command = self._check(wire.decode("command", payload))
            if topic != self._outbox.topics.command(command["id"]):
                raise MalformedMessage(f"command {command['id']} on topic {topic[:120]!r}")
        except IntegrityError as error:
            self._ignore(error)
            return
        if self._is_known(command["id"]):
            return
        if command["issued_utc_ms"] <= self._floor_ms():
            self._ignore(f"command {command['id']}: issued before others that are forgotten here")
            return
        record = None
        try:
            answer = self._done(command)
        except MalformedMessage as error:
            state, detail = "refused", str(error)
        else:
            state, detail, record = "done", answer.detail, answer.record
        body: Json = {"command": command["id"], "word": command["word"], "state": state}
        body["detail"] = detail[:MOST_DETAIL]
        if record is not None:
            body["record"] = record
        issued_ms = command["issued_utc_ms"]
        self._store.write(lambda connection: self._answer(connection, body, issued_ms))
        _log.info("command", word=command["word"], state=state, detail=detail)

    def _done(self, command: Json) -> Answer:
        if command["device"] != self._outbox.topics.device:
            raise MalformedMessage(f"device {command['device']!r}; this is another")
        word = self._words.get(command["word"])
        if word is None:
            raise MalformedMessage(f"word {command['word']!r}; allowed: {', '.join(self._words)}")
        return word(command["id"], command["args"])

    def _answer(self, connection: sqlite3.Connection, body: Json, issued_ms: int) -> None:
        connection.execute(
            "INSERT INTO command (command_id, word, utc_ns, state, detail, issued_utc_ms)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(body["command"], body["word"], self._clock.utc_ns()),
                *(body["state"], body["detail"], issued_ms),
            ),
        )
        self._forget(connection)
        kind = f"command/{body['command']}/status"
        self._outbox.put_in(connection, Message(Lane.STATE, kind, body, needs_receipt=True))

    def _forget(self, connection: sqlite3.Connection) -> None:
        """Forget the oldest ids; what was issued before them is not done any more either.

        But for one issued in the future: a centre whose clock was wrong once would stay unheard.
        """
        gone = connection.execute(
            "SELECT id, issued_utc_ms FROM command WHERE id <= (SELECT max(id) FROM command) - ?",
            (MOST_KNOWN,),
        ).fetchall()
        most_ms = self._clock.utc_ns() // NS_PER_MS + AHEAD_MS
        for row in gone:
            if row["issued_utc_ms"] <= most_ms:
                connection.execute(
                    "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE"
                    " SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
                    (_FLOOR, str(row["issued_utc_ms"])),
                )
            connection.execute("DELETE FROM command WHERE id = ?", (row["id"],))

    def _floor_ms(self) -> int:
        with self._store.reading() as connection:
            query = "SELECT value FROM meta WHERE key = ?"
            row = connection.execute(query, (_FLOOR,)).fetchone()
        return -1 if row is None else int(row["value"])

    def _is_known(self, command_id: str) -> bool:
        with self._store.reading() as connection:
            query = "SELECT 1 FROM command WHERE command_id = ?"
            return connection.execute(query, (command_id,)).fetchone() is not None

    def _ignore(self, reason: object) -> None:
        self._complaints.add("command ignored", self._clock.mono_ns(), reason=reason)
