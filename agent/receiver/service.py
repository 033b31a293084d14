"""The reference receiver: listens for one site, stores, and signs for what it has stored.

A PUBACK goes out before anything is on our disk, so it promises nothing: devices send again until
they hold a signed receipt, and everything here may be repeated.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import AgentError, MalformedMessage, StorageError, UplinkDown
from agent.core.store import Store
from agent.core.wire import Address, Topics
from agent.delivery.link import Link, SessionFactory
from agent.delivery.patience import Complaints
from agent.delivery.session import Acked, Lost, MqttSession, Received, Session, SessionOptions
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import sign_row_receipt
from agent.receiver.config import ReceiverConfig
from agent.receiver.files import Answer, Files, Refused
from agent.receiver.inbox import Inbox, Incoming, read
from agent.receiver.registry import Registry

UP = ("birth", "death", "beat", "state/+", "event/+", "backfill/+", "file/+/+")
OURS = ("need", "receipt")  # our own answers, which come back where the broker knows no no-local
RECONNECT_MAX_S = 10.0
POLL_S = 0.2
MOST_IDS = 500
MOST_WAITING = 10_000
MOST_REJECTED_ROWS = 10_000
MAX_OFFSET_DIGITS = 16
MAX_INCOMING_BYTES = 2 << 20
_FID_HEX = 32
_FILE_PARTS = 3

_log = log.get(__name__)


def sessions(config: ReceiverConfig, clock: Clock) -> SessionFactory:
    """Make sessions of a receiver; the broker keeps what comes while it is away."""
    options = SessionOptions(f"{config.name}-{config.site}", max_incoming_bytes=MAX_INCOMING_BYTES)
    return lambda: MqttSession(config.broker, options, clock)


class Receiver:
    """Worker that serves one site."""

    name = "receiver"

    def __init__(
        self,
        config: ReceiverConfig,
        make_session: SessionFactory,
        store: Store,
        key: DeviceKey,
        clock: Clock,
    ) -> None:
        self._config = config
        self._store = store
        self._key = key
        self._clock = clock
        self._link = Link(self.name, make_session, clock, RECONNECT_MAX_S)
        self._registry = Registry(config.devices_dir)
        self._inbox = Inbox(store, clock)
        self._files = Files(store, config, key, clock)
        self._complaints = Complaints(_log)
        self._out: deque[tuple[str, bytes]] = deque(maxlen=MOST_WAITING)
        self._in_flight: set[int] = set()

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Serve until `stop`; connection losses are dealt with here."""
        try:
            self._link.run(lambda session: self._serve(session, stop, progress), stop, progress)
        finally:
            self._files.close()

    def _serve(self, session: Session, stop: threading.Event, progress: Callable[[], None]) -> None:
        root = f"{wire.PREFIX}/{self._config.site}/+"
        session.subscribe([f"{root}/{part}" for part in UP])
        self._in_flight.clear()
        while not stop.is_set():
            events = session.poll(POLL_S)
            self._take([found for found in events if isinstance(found, Received)])
            self._files.flush_due()
            for found in events:
                if isinstance(found, Acked):
                    self._in_flight.discard(found.token)
                elif isinstance(found, Lost):
                    raise UplinkDown(found.reason)
            self._send(session)
            progress()

    def _take(self, received: Iterable[Received]) -> None:
        messages: list[Incoming] = []
        for found in received:
            try:
                messages += self._take_one(found)
            except (AgentError, OSError) as error:
                self._set_aside(found, error)
        if not messages:
            return
        try:
            self._inbox.keep(messages)
        except StorageError as error:
            _log.error("messages not stored, no receipt", messages=len(messages), reason=error)
            return
        self._sign_rows(messages)

    def _take_one(self, found: Received) -> list[Incoming]:
        topic = wire.address(found.topic)
        if topic.rest[-1] in OURS or not found.payload:
            return []
        if topic.rest == ("death",):
            wire.decode("death", found.payload)
            _log.warning("device gone", device=topic.device)
            return []
        key = self._registry.key(topic.device)
        if key is None:
            raise MalformedMessage(f"device {topic.device!r} is not registered")
        if topic.rest[0] == "file":
            self._take_file(topic, found.payload)
            return []
        return [read(topic, found.payload)]

    def _take_file(self, topic: Address, payload: bytes) -> None:
        if len(topic.rest) != _FILE_PARTS or len(topic.rest[1]) != _FID_HEX:
            raise MalformedMessage("topic of a file; allowed: file/<fid>/<part>")
        _, fid, part = topic.rest
        answer: Answer | None = None
        try:
            if part.isascii() and part.isdigit() and len(part) <= MAX_OFFSET_DIGITS:
                self._files.chunk(topic.device, fid, int(part), payload)
            elif part in ("offer", "done"):
                answer = self._ask_files(topic, part, payload)
            else:
                raise MalformedMessage(f"part {part[:40]!r}; allowed: offer, done, an offset")
        except Refused as error:
            self._answer(topic, fid, self._files.refusal(fid, str(error)))
            raise
        if answer is not None:
            self._answer(topic, fid, answer)

    def _ask_files(self, topic: Address, part: str, payload: bytes) -> Answer | None:
        document = wire.decode(part, payload)
        key = self._registry.key(topic.device)
        if document["fid"] != topic.rest[1] or key is None:
            raise MalformedMessage(f"{part} of {document['fid']} on a topic of {topic.rest[1]}")
        if part == "done":
            return self._files.done(topic.device, document, key)
        if document["device"] != topic.device:
            raise MalformedMessage(f"offer of {document['device']!r} from {topic.device!r}")
        return self._files.offer(document, key)

    def _sign_rows(self, messages: Iterable[Incoming]) -> None:
        by_device: dict[str, list[str]] = {}
        for message in messages:
            if message.wants_receipt:
                by_device.setdefault(message.envelope["device"], []).append(message.envelope["id"])
        for device, ids in by_device.items():
            for first in range(0, len(ids), MOST_IDS):
                fields = {
                    "device": device,
                    "ids": list(dict.fromkeys(ids[first : first + MOST_IDS])),
                    "stored_utc_ms": self._clock.utc_ns() // NS_PER_MS,
                    "receiver": self._config.name,
                }
                receipt = sign_row_receipt(fields, self._key)
                self._out.append((Topics(self._config.site, device).receipt, wire.encode(receipt)))

    def _answer(self, topic: Address, fid: str, answer: Answer) -> None:
        target = Topics(topic.site, topic.device).file(fid, answer.part)
        self._out.append((target, wire.encode(answer.document)))

    def _send(self, session: Session) -> None:
        while self._out and len(self._in_flight) < session.receive_maximum:
            topic, payload = self._out[0]
            self._in_flight.add(session.publish(topic, payload))
            self._out.popleft()

    def _set_aside(self, found: Received, error: Exception) -> None:
        device = found.topic.split("/")[3:4]
        name = device[0][:63] if device else ""
        self._complaints.add(
            "message set aside",
            self._clock.mono_ns(),
            topic=found.topic[:120],
            reason=str(error)[:200],
        )
        now_ms = self._clock.utc_ns() // NS_PER_MS
        values = (now_ms, name, found.topic[:200], str(error)[:500])
        try:
            self._store.write(
                lambda connection: (
                    connection.execute(
                        "INSERT INTO rejected (utc_ms, device, topic, reason) VALUES (?, ?, ?, ?)",
                        values,
                    ),
                    connection.execute(
                        "DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - ?",
                        (MOST_REJECTED_ROWS,),
                    ),
                )
            )
        except StorageError as failure:
            _log.error("rejected message not recorded", reason=failure)
