"""Files to the centre: offer, need, chunks, done, and at last the receipt that lets go of them.

Runs on a connection of its own, so that the broker may limit files apart from alarms, and with a
window that follows the link, so that an alarm is never stuck behind a clip. Several files are
open at once: the next one's chunks fill the time in which the centre checks the last one.
"""

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import (
    IntegrityError,
    MalformedMessage,
    OutboxFull,
    UplinkDown,
)
from agent.core.wire import Json, Topics
from agent.delivery.config import DeliveryConfig
from agent.delivery.detour import Detour
from agent.delivery.fileform import Said, form
from agent.delivery.filelink import TransfersStatus, file_sessions
from agent.delivery.fullness import Fullness
from agent.delivery.ledger import (
    FOR_GOOD,
    REFUSED,
    Handover,
    Ledger,
    OutgoingFile,
    Transfer,
    enqueue,
)
from agent.delivery.link import Link, SessionFactory
from agent.delivery.meter import Meter
from agent.delivery.parts import ForbiddenHost
from agent.delivery.patience import Complaints, Pause
from agent.delivery.schedule import ScheduleConfig
from agent.delivery.sending import Harmed, Identity, Phase, Sending
from agent.delivery.session import FAILED, Acked, Lost, Session, SessionEvent, reason_words
from agent.delivery.window import SendWindow

__all__ = [
    "Handover",
    "Ledger",
    "OutgoingFile",
    "Transfer",
    "Transfers",
    "TransfersStatus",
    "enqueue",
    "file_sessions",
]

MOST_OPEN = 8
OPEN_AHEAD = 4
MOST_SHELVED = 1000
SHELF_NS = 300 * NS_PER_S
FULL_RETRY_S = 60.0  # of a centre that is full and does not say for how long
LOOK_NS = NS_PER_S // 5
BUSY_S, IDLE_S = 0.02, 0.2
PACKET_BYTES = 32  # of a PUBLISH beside topic and payload
LEAST_PACKET_BYTES = 512
NOBODY_LISTENING = 0x10
QUOTA_EXCEEDED = 0x97

_log = log.get(__name__)


FileReceiptCheck = Callable[[Json, Mapping[str, object]], object]
"""Raises ReceiptInvalid unless the pinned key signed it with these fields."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What a token of the session stands for."""

    sending: Sending
    at_ns: int
    offset: int = -1  # -1: an offer or a done
    size_bytes: int = 0
    is_done: bool = False


@dataclass(slots=True)
class _Counts:
    sent_bytes: int = 0
    receipted: int = 0
    refused: int = 0


class Transfers:
    """Worker of the file link."""

    name = "transfers"

    def __init__(
        self,
        sessions: SessionFactory,
        ledger: Ledger,
        topics: Topics,
        check_receipt: FileReceiptCheck,
        clock: Clock,
        config: DeliveryConfig,
    ) -> None:
        self._ledger = ledger
        self._topics = topics
        self._check_receipt = check_receipt
        self._clock = clock
        self._config = config
        self._link = Link(self.name, sessions, clock, config.reconnect_max_s)
        self._form = form(config.file_form, topics, config.refused_retry_s)
        self._window = SendWindow()
        self._meter = Meter(ScheduleConfig(), clock)
        self._pause = Pause()
        self._complaints = Complaints(_log)
        self._full = Complaints(_log)
        self._counts = _Counts()
        self._fullness = Fullness(random.Random())  # noqa: S311 - spreads waits, keeps no secret
        self._detour = Detour(ledger, config, clock)
        self._open: dict[str, Sending] = {}  # in the order to send them
        self._tickets: dict[int, _Ticket] = {}
        self._shelf: dict[str, int] = {}  # unanswered while others were: not before
        self._verified: dict[str, Identity | None] = {}  # so that no file is hashed twice
        self._answered_ns = 0
        self._look_ns = 0
        self._retry_ns = 0
        self._was_stuck = False
        self._pace = 0  # of the socket; 0: none
        self._last_receipt_utc_ns: int | None = None

    def obey(self, meter: Meter) -> None:
        """Keep to the site's schedule; to be called before `run`."""
        self._meter = meter

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Send until `stop`; connection losses are dealt with here."""
        try:
            self._link.run(lambda session: self._serve(session, stop, progress), stop, progress)
        finally:
            for fid in tuple(self._open):
                self._drop(fid)

    def status(self) -> TransfersStatus:
        """Give the state now; safe from any thread."""
        window = self._window
        return TransfersStatus(
            link=self._link.status,
            open=len(self._open),
            sent_bytes=self._counts.sent_bytes + self._detour.sent_bytes,
            receipted=self._counts.receipted,
            refused=self._counts.refused,
            bad_messages=self._complaints.count,
            window_bytes=window.window_bytes,
            chunk_bytes=window.chunk_bytes,
            bandwidth_bytes_per_s=int(window.bandwidth_bytes_per_s),
            delay_ms=window.delay_ns // NS_PER_MS,
            last_receipt_utc_ns=self._last_receipt_utc_ns,
            is_centre_full=self._fullness.is_full,
        )

    def _serve(self, session: Session, stop: threading.Event, progress: Callable[[], None]) -> None:
        if session.max_packet_bytes < LEAST_PACKET_BYTES:
            raise UplinkDown(
                f"broker takes packets of {session.max_packet_bytes} bytes;"
                f" needed: {LEAST_PACKET_BYTES}"
            )
        self._tickets = {}
        self._window.reconnected(was_stuck=self._was_stuck)
        self._was_stuck = False
        self._window.is_paced, self._pace = session.is_paced, 0
        self._shelf.clear()
        for sending in self._open.values():
            sending.reconnected()
        session.subscribe(self._topics.file_down)
        while not stop.is_set():
            self._turn(session)
            progress()

    def _turn(self, session: Session) -> None:
        now_ns = self._clock.mono_ns()
        self._look(now_ns)
        for sending in tuple(self._open.values()):
            try:
                self._advance(session, sending)
            except Harmed as error:
                self._refuse(sending, str(error), error.harm)
        for event in session.poll(self._idle_s()):
            self._take(event)
        self._check_overdue()
        self._hold_back(session)

    def _hold_back(self, session: Session) -> None:
        """Hold the socket to the window's pace when that has changed."""
        pace = self._window.pace_bytes_per_s
        if pace != self._pace:
            self._pace = pace
            session.pace(pace)

    def _idle_s(self) -> float:
        phases = {sending.phase for sending in self._open.values()}
        if Phase.CHECK in phases:
            return 0.0
        return BUSY_S if phases & {Phase.SEND, Phase.OFFER} else IDLE_S

    def _look(self, now_ns: int) -> None:
        """Open what the ledger says is next; let refused files wait again after a while."""
        if now_ns >= self._retry_ns:
            self._retry_ns = now_ns + int(self._config.refused_retry_s * NS_PER_S)
            self._ledger.retry_refused()
        if now_ns < self._look_ns:
            return
        self._look_ns = now_ns + LOOK_NS
        self._meter.look()
        self._put_back_untimely()
        self._shelf = {fid: due_ns for fid, due_ns in self._shelf.items() if due_ns > now_ns}
        silent = [fid for fid, sending in self._open.items() if sending.is_unanswered]
        ranked: dict[str, Sending] = {}
        resting = self._form.resting(now_ns)
        exclude = (*self._shelf, *silent, *resting)
        below_bytes = min(self._fullness.below_bytes(now_ns), self._meter.below_bytes)
        for transfer in self._ledger.waiting(OPEN_AHEAD, exclude, below_bytes):
            sending = self._open.get(transfer.fid)
            if sending is None and len(self._open | ranked) < MOST_OPEN:
                sending = self._opened(transfer)
            if sending is not None:
                ranked[transfer.fid] = sending
        self._open = ranked | self._open

    def _put_back_untimely(self) -> None:
        """Close files whose time it is not; what the centre is about to answer stays for that."""
        for sending in tuple(self._open.values()):
            is_its_time = self._meter.lets_file(sending.transfer.size_bytes)
            if not is_its_time and sending.phase is not Phase.ANSWER:
                self._put_back(sending)

    def _opened(self, transfer: Transfer) -> Sending:
        return Sending(
            transfer,
            self._ledger.file(transfer),
            self._config.receipt_timeout_s,
            self._verified.pop(transfer.fid, None),
            takes_parts=self._detour.is_open,
        )

    def _advance(self, session: Session, sending: Sending) -> None:
        now_ns = self._clock.mono_ns()
        if sending.phase is Phase.CHECK and self._is_first_to_check(sending):
            sending.check()
        if sending.phase is Phase.ANSWER and now_ns >= sending.due_ns:
            self._unanswered(sending, now_ns)
        if sending.phase is Phase.UPLOAD:
            self._detour.turn(sending, self._meter)
        is_its_time = self._meter.lets_file(sending.transfer.size_bytes)
        is_open = sending.transfer.fid in self._open
        if not (is_open and is_its_time and self._may_send(session, now_ns)):
            return
        if sending.phase is Phase.OFFER and now_ns >= sending.due_ns:
            self._offer(session, sending)
        elif sending.phase is Phase.SEND:
            self._send_chunks(session, sending)
            if sending.is_all_sent and self._may_send(session, now_ns):
                self._ask(session, sending, self._form.done(sending), is_done=True)

    def _unanswered(self, sending: Sending, now_ns: int) -> None:
        """Ask again; but a file that only the centre's silence keeps open makes room for others.

        The first time it is asked again whatever the others do: one message may get lost.
        """
        if self._form.rests(sending.transfer.fid, now_ns):
            self._drop(sending.transfer.fid)
            return
        if self._form.extra_patience_s and self._is_ending(sending):
            return
        is_full = len(self._open) >= MOST_OPEN
        if sending.is_unanswered and (is_full or self._answered_ns > sending.asked_ns):
            self._shelf[sending.transfer.fid] = now_ns + SHELF_NS
            while len(self._shelf) > MOST_SHELVED:
                del self._shelf[next(iter(self._shelf))]
            self._put_back(sending)
        sending.unanswered()

    def _put_back(self, sending: Sending) -> None:
        """Close a file for now; it is not hashed again unless it changes."""
        self._verified[sending.transfer.fid] = sending.verified
        while len(self._verified) > MOST_SHELVED:
            del self._verified[next(iter(self._verified))]
        self._drop(sending.transfer.fid)

    def _is_ending(self, sending: Sending) -> bool:
        """Whether the broker has not yet said what it makes of the end of a file."""
        return any(
            ticket.sending is sending and ticket.is_done for ticket in self._tickets.values()
        )

    def _answered(self, fid: str) -> int:
        """Note that the centre speaks; after a silence every file gets another chance."""
        now_ns = self._clock.mono_ns()
        if now_ns - self._answered_ns > self._config.receipt_timeout_s * NS_PER_S:
            self._shelf.clear()
            for sending in self._open.values():
                if sending.transfer.fid != fid:
                    sending.spoken_to()
        self._answered_ns = now_ns
        return now_ns

    def _is_first_to_check(self, sending: Sending) -> bool:
        return sending is next(other for other in self._open.values() if other.phase is Phase.CHECK)

    def _may_send(self, session: Session, now_ns: int) -> bool:
        return self._pause.is_over(now_ns) and len(self._tickets) < session.receive_maximum

    def _offer(self, session: Session, sending: Sending) -> None:
        if not self._meter.may_chunk(1):
            return
        chunk_bytes = min(self._window.chunk_bytes, self._meter.chunk_bytes)
        said = self._form.offer(sending, chunk_bytes)
        size_bytes = len(said[1]) + self._overhead_bytes(sending)
        if size_bytes > session.max_packet_bytes:
            limit_bytes = session.max_packet_bytes
            self._refuse(sending, f"offer has {size_bytes} bytes; broker takes {limit_bytes}")
        else:
            self._ask(session, sending, said, is_done=False)

    def _ask(self, session: Session, sending: Sending, said: Said, *, is_done: bool) -> None:
        now_ns = self._clock.mono_ns()
        token = session.publish(*said)
        self._meter.sent_chunk(len(said[1]) + self._overhead_bytes(sending))
        self._tickets[token] = _Ticket(sending, now_ns, is_done=is_done)
        sending.asked(now_ns)

    def _send_chunks(self, session: Session, sending: Sending) -> None:
        overhead_bytes = self._overhead_bytes(sending)
        room_bytes = session.max_packet_bytes - overhead_bytes
        while sending.has_chunks and self._window.has_room:
            now_ns = self._clock.mono_ns()
            most_bytes = min(self._window.chunk_bytes, room_bytes, self._meter.chunk_bytes)
            if not (self._may_send(session, now_ns) and self._meter.may_chunk(most_bytes)):
                break
            chunk = sending.chunk(most_bytes, now_ns)
            if chunk is None:
                break
            size_bytes = len(chunk.payload)
            token = session.publish(self._form.chunk(sending, chunk), chunk.payload)
            self._window.sent(token, size_bytes, now_ns)
            self._meter.sent_chunk(size_bytes + overhead_bytes)
            self._tickets[token] = _Ticket(sending, now_ns, chunk.offset, size_bytes)
            self._counts.sent_bytes += size_bytes

    def _overhead_bytes(self, sending: Sending) -> int:
        return self._form.topic_bytes(sending.transfer.fid) + PACKET_BYTES

    def _take(self, event: SessionEvent) -> None:
        if isinstance(event, Lost):
            raise UplinkDown(event.reason)
        if isinstance(event, Acked):
            ticket = self._tickets.pop(event.token, None)
            if ticket is not None:
                self._acked(event.token, ticket, event.code)
            return
        try:
            self._hear(event.topic, event.payload)
        except IntegrityError as error:
            self._complaints.add("message ignored", self._clock.mono_ns(), reason=error)
        except OutboxFull as error:  # the centre answers again when it is asked again
            self._full.add("no room to note it", self._clock.mono_ns(), reason=error)

    def _acked(self, token: int, ticket: _Ticket, code: int) -> None:
        now_ns = self._clock.mono_ns()
        if ticket.offset >= 0:
            ticket.sending.landed()
        if code < FAILED and code != NOBODY_LISTENING:
            self._pause.clear()
            self._window.acked(token, now_ns)
            if ticket.offset < 0:
                self._form.taken(ticket.sending, now_ns, is_done=ticket.is_done)
            return
        self._window.dropped(token)
        if ticket.offset >= 0:
            ticket.sending.give_back(ticket.offset, ticket.size_bytes)
        if code in (NOBODY_LISTENING, QUOTA_EXCEEDED):
            self._pause.extend(now_ns)
            if ticket.offset < 0:
                ticket.sending.reconnected()
            return
        ticket.sending.postpone(now_ns)
        self._complaints.add(
            "file refused by the broker",
            now_ns,
            fid=ticket.sending.transfer.fid,
            code=reason_words(code),
        )

    def _hear(self, topic: str, payload: bytes) -> None:
        fid, part = _file_topic(topic)
        if part == "need":
            self._need(fid, payload)
        elif part == "receipt":
            self._receipt(fid, payload)

    def _need(self, fid: str, payload: bytes) -> None:
        need = wire.decode("need", payload)
        sending = self._open.get(fid)
        if sending is None or need["fid"] != fid:
            raise MalformedMessage(f"need {fid}: no such file is open")
        if "refused" not in need or sending.phase is Phase.CHECK:
            try:
                if sending.phase is Phase.ANSWER:
                    self._detour.check(need)
            except ForbiddenHost as error:
                self._refuse(sending, str(error))
                return
            sending.need(need, self._answered(fid))
            self._has_room(sending.transfer)
        elif need.get("full"):
            retry_after_s = float(need.get("retry_after_s", FULL_RETRY_S))
            self._has_no_room(sending, str(need["refused"]), retry_after_s)
        else:
            why = FOR_GOOD if need.get("never") else REFUSED
            self._refuse(sending, f"the centre refuses it: {need['refused']}", why)

    def _has_no_room(self, sending: Sending, reason: str, retry_after_s: float) -> None:
        """Wait with this file, and with all as large, until there may be room."""
        fid, now_ns = sending.transfer.fid, self._answered(sending.transfer.fid)
        if not self._fullness.is_full:
            self._tell_centre("full", f"the centre takes no files: {reason}"[:256])
        self._fullness.refused(sending.transfer.size_bytes, retry_after_s, now_ns)
        below_bytes = min(self._fullness.below_bytes(now_ns), self._meter.below_bytes)
        for other in tuple(self._open.values()):
            is_as_large = other.transfer.size_bytes >= below_bytes
            if other.transfer.fid == fid or (is_as_large and other.phase is Phase.OFFER):
                self._put_back(other)

    def _has_room(self, transfer: Transfer) -> None:
        if self._fullness.taken(transfer.size_bytes):
            self._tell_centre("delivering", "the centre takes files again")

    def _tell_centre(self, state: str, detail: str) -> None:
        try:
            self._ledger.tell_centre(state, detail)
        except OutboxFull as error:
            self._full.add("no room to tell it", self._clock.mono_ns(), reason=error)

    def _receipt(self, fid: str, payload: bytes) -> None:
        document = wire.decode("file_receipt", payload)
        sending = self._open.get(fid)
        transfer = sending.transfer if sending is not None else self._ledger.find(fid)
        if transfer is None:
            raise MalformedMessage(f"receipt {fid}: no such file")
        expected = {
            "fid": fid,
            "device": self._topics.device,
            "sha256": transfer.sha256,
            "size_bytes": transfer.size_bytes,
        }
        self._check_receipt(document, expected)
        self._answered(fid)
        self._form.forget(fid)
        self._has_room(transfer)
        if self._ledger.receipted(transfer, document):
            self._counts.receipted += 1
            self._last_receipt_utc_ns = self._clock.utc_ns()
        self._drop(fid)

    def _refuse(self, sending: Sending, reason: str, why: str = REFUSED) -> None:
        try:
            self._ledger.refuse(sending.transfer, reason, why)
            self._counts.refused += 1
        except OutboxFull as error:
            now_ns = self._clock.mono_ns()
            self._full.add("no room to note a refusal", now_ns, reason=error)
            self._shelf[sending.transfer.fid] = now_ns + SHELF_NS
        self._drop(sending.transfer.fid)

    def _drop(self, fid: str) -> None:
        sending = self._open.pop(fid, None)
        if sending is not None:
            self._detour.drop(fid)
            sending.close()
            self._look_ns = 0

    def _check_overdue(self) -> None:
        now_ns, limit_s = self._clock.mono_ns(), self._config.ack_timeout_s
        for ticket in self._tickets.values():
            patience_s = limit_s + (self._form.extra_patience_s if ticket.is_done else 0)
            if now_ns - ticket.at_ns > patience_s * NS_PER_S:
                self._was_stuck = True
                raise UplinkDown(f"no acknowledgement in {patience_s:g} s")


def _file_topic(topic: str) -> tuple[str, str]:
    """Take `…/file/<fid>/<part>` apart."""
    rest = wire.address(topic).rest
    if len(rest) != len(("file", "fid", "part")) or rest[0] != "file":
        raise MalformedMessage(f"topic {topic[:80]!r}; allowed: …/file/<fid>/<part>")
    return rest[1], rest[2]
