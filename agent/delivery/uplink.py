"""The live link: rows of the outbox to the broker, and the centre's receipts back.

A PUBACK is not a receipt. It frees a slot of the window, and telemetry may be forgotten on it;
a row with `needs_receipt` stays until the centre's signed word names it, and goes again until
then. What the broker does not take stays in the outbox; docs/WIRE.md has the table of codes.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import IntegrityError, MalformedMessage, OutboxFull, UplinkDown
from agent.core.model import Lane, Message, Row
from agent.core.wire import Json, Topics
from agent.delivery.ahead import PACKET_BYTES, Ahead, packet_bytes
from agent.delivery.batch import Batch
from agent.delivery.batching import MOST_FLYING, Batching, forms
from agent.delivery.buckets import SHARES
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.lanes import Ask, LaneReader
from agent.delivery.link import Link, LinkStatus, SessionFactory
from agent.delivery.meter import Meter
from agent.delivery.outbox import DAMAGED, TOO_LARGE, Outbox
from agent.delivery.patience import AwaitedReceipts, Complaints, Holds, Pause
from agent.delivery.schedule import ScheduleConfig
from agent.delivery.session import (
    FAILED,
    Acked,
    Lost,
    MqttSession,
    Session,
    SessionEvent,
    SessionOptions,
    Will,
    reason_words,
)

IDLE_S = 0.05  # longest a new row waits to be seen
LOOK_NS = 1 * NS_PER_S  # a held topic or a receipt may fall due without any commit
AHEAD_ROWS = 200  # read at once
AHEAD_NS = 20 * NS_PER_MS  # what was read ahead is good for so long, whatever is committed
FORGET_ROWS = 100  # deleted at once
MOST_AWAITED = 500  # rows taken by the broker and not yet signed for
MOST_RETAINED = 256
WINDOW_BYTES = 256 * 1024  # an alarm never stands behind more than this
MOST_TOPIC_BYTES = 256  # of a batch, with the header
MOST_TRIES = 5
FIRST_BATCH_BYTES = 64 * 1024
URGENT = (Lane.ALARM, Lane.STATE)
NOBODY_LISTENING = 0x10
QUOTA_EXCEEDED = 0x97

_log = log.get(__name__)

RowReceiptCheck = Callable[[Json], Sequence[str]]
"""Gives the message ids of a receipt; raises ReceiptInvalid unless the pinned key signed it."""

Hear = Callable[[str, bytes], None]
"""Takes a message's topic and payload, at once."""


@dataclass(frozen=True, slots=True)
class UplinkStatus:
    """What the live link is doing, for beats and people."""

    link: LinkStatus
    published: int
    accepted: int  # rows forgotten on the broker's word
    receipted: int  # rows forgotten on the centre's
    kept: int  # came back: nobody listening, quota, refused
    set_aside: int
    bad_receipts: int
    in_flight: int
    awaited: int  # taken by the broker, not yet signed for
    held_topics: int
    last_receipt_utc_ns: int | None


@dataclass(slots=True)
class _Sent:
    row: Row | None  # None: repeated retained state, which is not stored, or a batch
    at_ns: int
    size_bytes: int
    is_receipted: bool = False
    batch: Batch | None = None


@dataclass(slots=True)
class _Counts:
    published: int = 0
    accepted: int = 0
    receipted: int = 0
    kept: int = 0
    set_aside: int = 0


def live_sessions(
    broker: BrokerConfig, config: DeliveryConfig, topics: Topics, boot: int, clock: Clock
) -> SessionFactory:
    """Make sessions of the live link; the broker publishes `death` when it stays away for 30 s."""
    death = {"sv": wire.SCHEMA_VERSION, "device": topics.device, "boot": boot, "kind": "death"}
    options = SessionOptions(
        client_id=topics.device,
        expiry_s=config.session_expiry_s,
        will=Will(topics.up("death"), wire.encode(wire.check("death", death))),
    )
    return lambda: MqttSession(broker, options, clock)


class Uplink:
    """Worker of the live link."""

    name = "uplink"

    def __init__(
        self,
        sessions: SessionFactory,
        outbox: Outbox,
        check_receipt: RowReceiptCheck,
        birth: Callable[[], Mapping[str, object]],
        clock: Clock,
        config: DeliveryConfig,
    ) -> None:
        self._outbox = outbox
        self._topics = outbox.topics
        self._check_receipt = check_receipt
        self._birth = birth
        self._clock = clock
        self._config = config
        self._link = Link(self.name, sessions, clock, config.reconnect_max_s)
        self._holds = Holds()
        self._pause = Pause()
        self._meter = Meter(ScheduleConfig(), clock)
        self._awaited = AwaitedReceipts(config.receipt_timeout_s)
        self._batching = Batching(forms(config), config.receipt_timeout_s)
        self._complaints = Complaints(_log)
        self._full = Complaints(_log)
        self._aside: set[int] = set()  # in this run, whether or not there was room to mark it
        self._counts = _Counts()
        self._retained: dict[str, bytes] = {}
        self._flight = _Flight(1)
        self._last_receipt_utc_ns: int | None = None
        self._is_born = False
        self._batch_due_bytes = FIRST_BATCH_BYTES  # when others have sent so much, one is due
        self._ears: dict[str, Hear] = {}  # by what their topics begin with
        self._again: deque[Sequence[str]] = deque()
        self._retried: deque[Sequence[int]] = deque()

    def listen(self, topic: str, hear: Hear) -> None:
        """Hand over what comes on `topic`, which ends in `+`; to be called before `run`."""
        self._ears[topic.removesuffix("+")] = hear

    def obey(self, meter: Meter) -> None:
        """Keep to the site's schedule; to be called before `run`."""
        self._meter = meter

    def resend(self, message_ids: Sequence[str]) -> None:
        """Send rows again without waiting longer for their receipts; safe from any thread."""
        self._again.append(message_ids)

    def retry(self, row_ids: Sequence[int]) -> None:
        """Send rows that were set aside and are no more; safe from any thread."""
        self._retried.append(row_ids)

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Deliver until `stop`; connection losses are dealt with here."""
        if not self._is_born:
            self._release(self._outbox.release)
        self._link.run(lambda session: self._serve(session, stop, progress), stop, progress)

    def status(self) -> UplinkStatus:
        """Give the state now; safe from any thread."""
        counts = self._counts
        return UplinkStatus(
            link=self._link.status,
            published=counts.published,
            accepted=counts.accepted,
            receipted=counts.receipted,
            kept=counts.kept,
            set_aside=counts.set_aside,
            bad_receipts=self._complaints.count,
            in_flight=len(self._flight),
            awaited=len(self._awaited),
            held_topics=len(self._holds),
            last_receipt_utc_ns=self._last_receipt_utc_ns,
        )

    def _serve(self, session: Session, stop: threading.Event, progress: Callable[[], None]) -> None:
        self._greet(session)
        try:
            with self._outbox.reading() as reader:
                while not stop.is_set():
                    self._meter.look()
                    self._turn(session, reader)
                    progress()
        finally:
            self._forget()
            self._meter.save()

    def _greet(self, session: Session) -> None:
        now_ns = self._clock.mono_ns()
        self._put_birth(now_ns)
        self._flight = _Flight(min(self._config.window, session.receive_maximum))
        self._holds.reconnected(now_ns)
        fits_bytes = session.max_packet_bytes - PACKET_BYTES
        self._release(lambda: self._outbox.release_fitting(fits_bytes))
        self._batching.reconnected(now_ns, session_present=session.session_present)
        if not session.session_present:
            self._awaited.forget_all()
        session.subscribe((self._topics.receipt, *(f"{root}+" for root in self._ears)))
        # An empty death says that the device is back; then whatever it is.
        for topic, payload in {self._topics.up("death"): b"", **self._retained}.items():
            if self._is_ours(topic) or not session.session_present:
                self._flight.repeats.append((topic, payload))

    def _release(self, take_up: Callable[[], object]) -> None:
        """Let rows that are set aside go; a box too full for it must deliver all the same."""
        self._aside.clear()  # what could not be marked is tried again; what is marked stays
        try:
            take_up()
        except OutboxFull as error:
            now_ns = self._clock.mono_ns()
            self._full.add("no room to take messages up again", now_ns, reason=error)

    def _put_birth(self, now_ns: int) -> None:
        """Put it once a start; a box too full for it must deliver all the same."""
        if self._is_born:
            return
        try:
            self._outbox.put(Message(Lane.STATE, "birth", self._birth(), is_retained=True))
            self._is_born = True
        except OutboxFull as error:
            self._full.add("no room for the birth", now_ns, reason=error)

    def _turn(self, session: Session, reader: LaneReader) -> None:
        flight, now_ns = self._flight, self._clock.mono_ns()
        while self._again:
            self._awaited.receipted(self._again.popleft())
        while self._retried:
            self._aside.difference_update(self._retried.popleft())
        self._batching.check(now_ns)
        self._gather(reader, now_ns)
        if flight.is_stale(reader.version(), now_ns):
            flight.refill(reader.take(self._ask(now_ns)), now_ns)
        if self._batch_due_bytes <= 0:  # a storm would leave it no room ever
            self._send_batches(session, reader, 1)
        self._send(session)
        self._send_batches(session, reader, MOST_FLYING)
        for event in session.poll(IDLE_S):
            self._take(event)
        now_ns = self._clock.mono_ns()
        is_due = now_ns - flight.forgot_ns >= LOOK_NS
        if len(flight.forget) >= FORGET_ROWS or not flight.ahead or is_due:
            flight.forgot_ns = now_ns
            self._forget()
        if flight.is_overdue(now_ns, self._config.ack_timeout_s):
            raise UplinkDown(f"no acknowledgement in {self._config.ack_timeout_s:g} s")

    def _ask(self, now_ns: int) -> Ask:
        waiting = self._awaited.waiting(now_ns)
        return Ask(
            limit=AHEAD_ROWS,
            exclude=waiting | self._aside | self._flight.row_ids() | frozenset(self._flight.forget),
            held_topics=self._holds.held(now_ns),
            takes_receipted=len(waiting) < MOST_AWAITED,
            takes_late=not self._batching,
        )

    def _send(self, session: Session) -> None:
        flight = self._flight
        now_ns = self._clock.mono_ns()
        while flight.repeats and flight.has_room():
            topic, payload = flight.repeats.popleft()
            self._publish(session, topic, payload, None)
        while flight.ahead and flight.has_room() and self._pause.is_over(now_ns):
            row = flight.ahead.next(self._may_go, now_ns)
            if row is None:
                break
            size_bytes = packet_bytes(row)
            if size_bytes > session.max_packet_bytes:
                self._set_aside(row, f"{size_bytes} {TOO_LARGE} {session.max_packet_bytes}")
            elif self._awaited.knows(row.row_id) and not self._is_whole(row):
                continue
            elif self._holds.allow(row.topic, now_ns):
                self._publish(session, row.topic, row.payload, row)

    def _is_whole(self, row: Row) -> bool:
        """Look again at a row that nobody has signed for: the disk may have changed it."""
        try:
            wrong = self._outbox.mended(row)
        except MalformedMessage as error:
            wrong = f"{DAMAGED}{error}"
        if wrong:
            self._set_aside(row, wrong)
        return not wrong

    def _may_go(self, row: Row) -> bool:
        """Whether a row may go now: no cap holds up an alarm or a state."""
        if row.lane in URGENT:
            return True
        if not self._flight.has_room_for(row):
            return False
        return not self._meter.has_cap or self._meter.may_row(packet_bytes(row))

    def _gather(self, reader: LaneReader, now_ns: int) -> None:
        """Make batches of what counts as backfill, before it is looked at for going singly."""
        batching = self._batching
        if batching.wants_rows(now_ns):
            exclude = {*self._ask(now_ns).exclude, *self._flight.ahead.row_ids()}
            rows = reader.take_late(batching.most_rows, batching.after_id, exclude)
            batching.offer(rows, self._topics.root, now_ns)

    def _send_batches(self, session: Session, reader: LaneReader, most: int) -> None:
        flight, now_ns = self._flight, self._clock.mono_ns()
        for _ in range(most):
            if not (flight.has_room() and self._pause.is_over(now_ns)):
                return
            self._gather(reader, now_ns)
            most_bytes = min(session.max_packet_bytes, self._meter.batch_bytes) - MOST_TOPIC_BYTES
            batch = self._batching.next(most_bytes, self._meter.may_row, now_ns)
            if batch is None:
                return
            token = session.publish(self._topics.up(f"backfill/{batch.kind}"), batch.payload)
            flight.launched(token, _Sent(None, now_ns, len(batch.payload), batch=batch))
            self._counts.published += 1
            size_bytes = len(batch.payload) + MOST_TOPIC_BYTES
            self._meter.sent_row(size_bytes, is_urgent=False)
            self._batch_due_bytes = int(size_bytes * (1 / SHARES[Lane.BACKFILL] - 1))

    def _publish(self, session: Session, topic: str, payload: bytes, row: Row | None) -> None:
        is_retained = row is None or row.is_retained
        token = session.publish(topic, payload, is_retained=is_retained)
        self._flight.launched(token, _Sent(row, self._clock.mono_ns(), len(payload)))
        self._counts.published += 1
        size_bytes = len(topic) + len(payload) + PACKET_BYTES
        self._meter.sent_row(size_bytes, is_urgent=row is None or row.lane in URGENT)
        self._batch_due_bytes -= size_bytes
        if row is not None and is_retained and self._may_retain(topic):
            self._retained[topic] = payload

    def _is_ours(self, topic: str) -> bool:
        return topic.startswith(f"{self._topics.root}/")

    def _may_retain(self, topic: str) -> bool:
        return topic in self._retained or len(self._retained) < MOST_RETAINED

    def _take(self, event: SessionEvent) -> None:
        if isinstance(event, Lost):
            raise UplinkDown(event.reason)
        if isinstance(event, Acked):
            sent = self._flight.landed(event.token)
            if sent is not None and sent.batch is not None:
                self._acked_batch(sent.batch, event.code)
            elif sent is not None and sent.row is not None and not sent.is_receipted:
                self._acked(sent.row, event.code)
        elif event.topic == self._topics.receipt:
            self._receipt(event.payload)
        else:
            for root, hear in self._ears.items():
                if event.topic.startswith(root):
                    hear(event.topic, event.payload)

    def _acked(self, row: Row, code: int) -> None:
        now_ns = self._clock.mono_ns()
        # What is for others is retained at the broker for whoever comes to listen.
        if code < FAILED and (code != NOBODY_LISTENING or not self._is_ours(row.topic)):
            self._holds.release(row.topic)
            self._pause.clear()
            if row.needs_receipt:
                self._awaited.sent(row, now_ns)
            else:
                self._flight.forget.append(row.row_id)
            return
        self._counts.kept += 1
        if code == QUOTA_EXCEEDED:
            self._pause.extend(now_ns)
            return
        self._holds.hold(row.topic, now_ns)
        if code >= FAILED and self._outbox.keep(row.row_id) >= MOST_TRIES:
            self._set_aside(row, f"refused by the broker: {reason_words(code)}")

    def _acked_batch(self, batch: Batch, code: int) -> None:
        now_ns = self._clock.mono_ns()
        if code == QUOTA_EXCEEDED:
            self._pause.extend(now_ns)
            self._batching.returned(batch)
        elif code == NOBODY_LISTENING or code >= FAILED:
            self._batching.refused(batch, reason_words(code), now_ns)
        else:
            self._pause.clear()
            self._batching.acked(batch, now_ns)

    def _receipt(self, payload: bytes) -> None:
        try:
            ids = self._check_receipt(wire.decode("row_receipt", payload))
        except IntegrityError as error:
            self._complaints.add("receipt ignored", self._clock.mono_ns(), reason=error)
            return
        if row_ids := self._batching.receipted(ids):
            self._counts.receipted += self._outbox.accept(row_ids)
        self._counts.receipted += self._outbox.accept_receipt(ids)
        self._awaited.receipted(ids)
        self._flight.receipted(frozenset(ids))
        self._last_receipt_utc_ns = self._clock.utc_ns()

    def _set_aside(self, row: Row, reason: str) -> None:
        self._aside.add(row.row_id)
        self._counts.set_aside += 1
        try:
            self._outbox.reject(row.row_id, reason)
        except OutboxFull as error:
            self._full.add("message not marked", self._clock.mono_ns(), reason=error)

    def _forget(self) -> None:
        row_ids, self._flight.forget = self._flight.forget, []
        if row_ids:
            self._counts.accepted += self._outbox.accept(row_ids)


class _Flight:
    """What is under way on one connection."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._version = -1
        self._is_changed = True
        self._read_ns = 0
        self._sent: dict[int, _Sent] = {}  # by token, oldest first
        self._bytes = 0
        self._backfill = 0
        self.ahead = Ahead()  # read, to be sent next
        self.repeats: deque[tuple[str, bytes]] = deque()
        self.forgot_ns = 0
        self.forget: list[int] = []  # taken by the broker, still in the outbox

    def __len__(self) -> int:
        return len(self._sent)

    def is_stale(self, version: int, now_ns: int) -> bool:
        """Whether the database may hold something better to send than what was read ahead."""
        self._is_changed = self._is_changed or version != self._version
        self._version = version
        age_ns = now_ns - self._read_ns
        if self.ahead and age_ns < AHEAD_NS:
            return False
        return self._is_changed or age_ns >= LOOK_NS

    def refill(self, rows: Sequence[Row], now_ns: int) -> None:
        self.ahead.refill(rows)
        self._is_changed = False
        self._read_ns = now_ns

    def launched(self, token: int, sent: _Sent) -> None:
        self._sent[token] = sent
        self._bytes += sent.size_bytes
        self._backfill += _is_backfill(sent)

    def landed(self, token: int) -> _Sent | None:
        sent = self._sent.pop(token, None)
        if sent is not None:
            self._bytes -= sent.size_bytes
            self._backfill -= _is_backfill(sent)
        return sent

    def row_ids(self) -> frozenset[int]:
        return frozenset(sent.row.row_id for sent in self._sent.values() if sent.row is not None)

    def has_room(self) -> bool:
        return not self._sent or (len(self._sent) < self._window and self._bytes < WINDOW_BYTES)

    def has_room_for(self, row: Row) -> bool:
        return row.lane is not Lane.BACKFILL or self._backfill < max(1, self._window // 2)

    def receipted(self, message_ids: frozenset[str]) -> None:
        """Note receipts that overtook the broker's own acknowledgement."""
        for sent in self._sent.values():
            if sent.row is not None and sent.row.message_id in message_ids:
                sent.is_receipted = True

    def is_overdue(self, now_ns: int, limit_s: float) -> bool:
        oldest = next(iter(self._sent.values()), None)
        return oldest is not None and now_ns - oldest.at_ns > limit_s * NS_PER_S


def _is_backfill(sent: _Sent) -> bool:
    return sent.batch is not None or (sent.row is not None and sent.row.lane is Lane.BACKFILL)
