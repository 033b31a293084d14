"""The reference receiver: listens for one site, stores, and signs for what it has stored.

A PUBACK goes out before anything is on our disk, so it promises nothing: devices send again until
they hold a signed receipt, and everything here may be repeated.
"""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from agent.core import log, wire
from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import (
    AgentError,
    MalformedMessage,
    OutboxFull,
    StorageError,
    UplinkDown,
)
from agent.core.store import Store
from agent.core.wire import Address, Topics
from agent.delivery.batch import batch_id
from agent.delivery.link import Link, SessionFactory
from agent.delivery.session import (
    Acked,
    Lost,
    MqttSession,
    Received,
    Session,
    SessionEvent,
    SessionOptions,
)
from agent.evidence.keys import DeviceKey, PublicKey
from agent.receiver import replay
from agent.receiver.archive import Full, Refused, is_full
from agent.receiver.config import ReceiverConfig
from agent.receiver.files import Answer, Files
from agent.receiver.identity import Words
from agent.receiver.inbox import Inbox, Incoming, read, read_line
from agent.receiver.registry import Registry
from agent.receiver.rejects import Rejects
from agent.receiver.replay import Replays
from agent.receiver.rows import RowReceipts
from agent.receiver.unpack import Unpacker, is_batch

UP = (
    "birth",
    "death",
    "beat",
    "time",
    "position",
    "state/+",
    "event/+",
    "gap/+",
    "report/+",
    "footage/+",
    "backfill/+",
    "command/+/status",
    "file/+/+",
)
_ALONE = re.compile(  # kinds of envelopes
    "|".join(
        part.replace("+", "[^/]+")
        for part in UP
        if part.partition("/")[0] not in ("death", "file", "backfill")
    )
)
OURS = ("need", "receipt")  # our own answers come back: file/+/+ covers them
RECONNECT_MAX_S = 10.0
POLL_S, BUSY_POLL_S = 0.2, 0.02
MOST_WAITING = 10_000  # answers; devices ask again for those beyond
MAX_OFFSET_DIGITS = 16
MOST_BATCHES = 4  # between two answers
MAX_INCOMING_BYTES = 2 << 20
MS_PER_S = 1000
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
        self._link = Link(self.name, make_session, clock, RECONNECT_MAX_S)
        self._registry = Registry(config.devices_dir)
        self._inbox = Inbox(store, clock, int(config.replay_after_s * MS_PER_S))
        self._replays = Replays(store, config, key, clock)
        self._files = Files(store, config, key, clock)
        self._rows = RowReceipts(config.name, key, clock)
        self._rejects = Rejects(store, clock)
        self._words = Words(config, key, store, clock)
        self._out: deque[tuple[str, bytes, bool]] = deque(maxlen=MOST_WAITING)
        self._unpacker = Unpacker(config.dictionaries_dir or config.store_dir / "dictionaries")
        self._clock = clock
        self._no_room: set[tuple[str, str]] = set()  # whose chunks are not taken until an offer
        self._in_flight: dict[int, int] = {}  # token: when it went, oldest first

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Serve until `stop`; connection losses are dealt with here.

        Raises:
            StorageError: the store cannot be read.
        """
        try:
            self._files.tidy()
            self._link.run(lambda session: self._serve(session, stop, progress), stop, progress)
        except OSError as error:
            raise StorageError(f"store {self._config.store_dir}: {error}") from error
        finally:
            self._files.close()

    @property
    def is_busy(self) -> bool:
        """Whether an answer is due without a further message."""
        return self._rows.is_waiting or self._files.is_checking or bool(self._out)

    def _serve(self, session: Session, stop: threading.Event, progress: Callable[[], None]) -> None:
        root = f"{wire.PREFIX}/{self._config.site}/+"
        session.subscribe([f"{root}/{part}" for part in UP])
        self._in_flight.clear()
        self._words.reconnected()
        while not stop.is_set():
            for events in _portions(session.poll(BUSY_POLL_S if self.is_busy else POLL_S)):
                self._turn(events)
                self._send(session)
                progress()
            self._check_overdue()

    def _turn(self, events: Sequence[SessionEvent]) -> None:
        self._take([found for found in events if isinstance(found, Received)])
        self._files.flush_due()
        for answer, wrong in self._files.checked():
            if wrong:
                device = answer.device if answer is not None else ""
                self._rejects.add("file", device, wrong)
            if answer is not None:
                self._answer(answer)
        self._rejects.flush()
        self._sign_due()
        for found in events:
            if isinstance(found, Acked):
                self._in_flight.pop(found.token, None)
            elif isinstance(found, Lost):
                raise UplinkDown(found.reason)

    def _sign_due(self) -> None:
        for device, document in self._rows.due():
            self._put(Topics(self._config.site, device).receipt, document)
        for command in self._replays.due():
            topics = Topics(self._config.site, command["device"])
            self._put(topics.command(command["id"]), command)

    def _take(self, received: Iterable[Received]) -> None:
        messages: list[Incoming] = []
        batches: list[tuple[str, str]] = []  # devices and ids
        for found in received:
            try:
                taken, batch = self._take_one(found)
            except (AgentError, OSError) as error:
                self._rejects.add(found.topic, _device(found.topic), str(error))
                continue
            messages += taken
            batches += [(_device(found.topic), batch)] if batch else []
        if messages and not self._keep(messages):
            return
        for device, batch in batches:
            self._rows.add_batch(device, batch)

    def _keep(self, messages: list[Incoming]) -> bool:
        """Store messages and sign for them; false if the disk refuses."""
        try:
            self._inbox.keep(messages)
        except StorageError as error:
            _log.error("messages not stored, no receipt", messages=len(messages), reason=error)
            return False
        except MalformedMessage as error:
            return self._keep_each(messages, error)
        for message in messages:
            if message.wants_receipt:
                self._rows.add(message.envelope["device"], message.envelope["id"])
        return True

    def _keep_each(self, messages: list[Incoming], error: MalformedMessage) -> bool:
        """One that the index refuses must not take the others down."""
        if len(messages) > 1:
            half = len(messages) // 2
            return self._keep(messages[:half]) and self._keep(messages[half:])
        envelope = messages[0].envelope
        topics = Topics(self._config.site, envelope["device"])
        self._rejects.add(topics.up(envelope["kind"]), envelope["device"], str(error))
        return True

    def _take_one(self, found: Received) -> tuple[list[Incoming], str]:
        """Give what is to be stored, and the id of the batch that it came in, if it did."""
        topic = wire.address(found.topic)
        is_ours = topic.rest == ("receipt",) or (topic.rest[0] == "file" and topic.rest[-1] in OURS)
        if is_ours or not found.payload:
            return [], ""
        key = self._registry.key(topic.device)
        if key is None:
            raise MalformedMessage(f"device {topic.device[:63]!r} is not registered")
        self._tell(topic.device)
        if topic.rest == ("death",):
            wire.decode("death", found.payload)
            _log.warning("device gone", device=topic.device)
            return [], ""
        if topic.rest[0] == "file":
            self._take_file(topic, found.payload, key)
            return [], ""
        if topic.rest[0] == "backfill" and is_batch(found.payload):
            return self._take_batch(found, topic, key), batch_id(found.payload)
        return [_proven(read(topic, found.payload), key)], ""

    def _take_batch(self, found: Received, topic: Address, key: PublicKey) -> list[Incoming]:
        """Take what is good of a batch: a bad line costs the others nothing."""
        messages = []
        for line in self._unpacker.lines(found.payload):
            try:
                message = _proven(read_line(topic, line), key)
                if not _ALONE.fullmatch(message.envelope["kind"]):
                    raise MalformedMessage(f"kind {message.envelope['kind']!r} in a batch")
                messages.append(message)
            except AgentError as error:
                self._rejects.add(found.topic, topic.device, str(error))
        return messages

    def _tell(self, device: str) -> None:
        """Say, once on each connection, what the device is to know."""
        topics = Topics(self._config.site, device)
        for name, document in self._words.for_device(device):
            self._put(topics.want(name), document, is_retained=True)

    def _take_file(self, topic: Address, payload: bytes, key: PublicKey) -> None:
        if len(topic.rest) != _FILE_PARTS or len(topic.rest[1]) != _FID_HEX:
            raise MalformedMessage("topic of a file; allowed: file/<fid>/<part>")
        _, fid, part = topic.rest
        if part.isascii() and part.isdigit() and len(part) <= MAX_OFFSET_DIGITS:
            self._take_chunk(topic, int(part), payload, key)
            return
        if part not in ("offer", "done"):
            raise MalformedMessage(f"part {part[:40]!r}; allowed: offer, done, an offset")
        self._no_room.discard((topic.device, fid))
        document = _decoded(part, payload)
        if document["fid"] != fid:
            raise MalformedMessage(f"{part} of {document['fid']} on a topic of {fid}")
        try:
            answer = self._ask_files(topic, part, document, key)
        except (Refused, Full, OSError, OutboxFull) as error:
            if isinstance(error, Refused) or is_full(error):
                self._answer(self._files.refusal(topic.device, fid, error))
            raise
        if answer is not None:
            self._answer(answer)

    def _take_chunk(self, topic: Address, offset: int, data: bytes, key: PublicKey) -> None:
        """Write a chunk; of several that find no room the first one is answered."""
        device, fid = topic.device, topic.rest[1]
        if (device, fid) in self._no_room:
            return
        try:
            self._files.chunk(device, fid, offset, data, key)
        except OSError as error:
            if is_full(error):
                self._no_room.add((device, fid))
                self._answer(self._files.refusal(device, fid, error))
            raise

    def _ask_files(
        self, topic: Address, part: str, document: wire.Json, key: PublicKey
    ) -> Answer | None:
        if part == "done":
            return self._files.done(topic.device, document, key)
        if document["device"] != topic.device:
            raise MalformedMessage(f"offer of {document['device']!r} from {topic.device!r}")
        return self._files.offer(document, key)

    def _answer(self, answer: Answer) -> None:
        topics = Topics(self._config.site, answer.device)
        self._put(topics.file(answer.fid, answer.part), answer.document)

    def _put(self, topic: str, document: wire.Json, *, is_retained: bool = False) -> None:
        self._out.append((topic, wire.encode(document), is_retained))

    def _send(self, session: Session) -> None:
        while self._out and len(self._in_flight) < session.receive_maximum:
            topic, payload, is_retained = self._out[0]
            token = session.publish(topic, payload, is_retained=is_retained)
            self._in_flight[token] = self._clock.mono_ns()
            self._out.popleft()

    def _check_overdue(self) -> None:
        """Begin anew where the broker acknowledges nothing: a full window would end every answer.

        Devices ask again for what was lost with the connection.
        """
        oldest_ns = next(iter(self._in_flight.values()), None)
        limit_s = self._config.ack_timeout_s
        if oldest_ns is not None and self._clock.mono_ns() - oldest_ns > limit_s * NS_PER_S:
            raise UplinkDown(f"no acknowledgement in {limit_s:g} s")


def _portions(events: Sequence[SessionEvent]) -> Iterator[list[SessionEvent]]:
    """Cut events after every few batches, which are much more work than other messages."""
    portion: list[SessionEvent] = []
    batches = 0
    for found in events:
        portion.append(found)
        batches += isinstance(found, Received) and "/backfill/" in found.topic
        if batches >= MOST_BATCHES:
            yield portion
            portion, batches = [], 0
    yield portion


def _proven(message: Incoming, key: PublicKey) -> Incoming:
    """Check what a device has signed in its message."""
    if message.envelope["kind"].startswith("command/"):
        replay.check_answer(message.envelope, key)
    return message


def _decoded(schema: str, payload: bytes) -> wire.Json:
    """Read a message of a transfer: it holds whole numbers only, written as such."""
    document = wire.decode(schema, payload)
    try:
        wire.canonical(document)
    except (TypeError, ValueError) as error:
        raise MalformedMessage(f"{schema}: {error}") from error
    return document


def _device(topic: str) -> str:
    parts = topic.split("/", 4)
    return parts[3] if len(parts) > 3 else ""  # noqa: PLR2004 - prefix, version, site, device
