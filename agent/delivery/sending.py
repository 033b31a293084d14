"""One file on its way: check, offer, chunks, done; and again from the offer until the receipt.

The device never keeps a picture of what the centre has: every `need` says it anew, so a lost
chunk, a restart on either side and a repeated message all end in the same place. A `need` counts
only as the answer to an offer or a done, which bounds what an absurd one can set off.
"""

import enum
import hashlib
import os
import stat
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.core.clock import NS_PER_S
from agent.core.errors import HashMismatch, MalformedMessage
from agent.core.wire import SCHEMA_VERSION, Json
from agent.delivery.ledger import Transfer
from agent.delivery.parts import Part, read_parts

HASH_STEP_BYTES = 4 << 20  # a turn of the worker stays short whatever the size of the file
MOST_WAIT_S = 300.0
MOST_STALLS = 3  # answers in a row that ask for no less than the one before
LEAST_RATE_BYTES_PER_S = 1024


Identity = tuple[int, int, int]
"""Size, time of change and inode: the same while nobody touches the file."""


class Harmed(HashMismatch):
    """The file here is not what was sealed; `harm` is one of `ledger.HARMS`."""

    def __init__(self, harm: str, message: str) -> None:
        super().__init__(message)
        self.harm = harm


class Phase(enum.Enum):
    """What the file waits for."""

    CHECK = "check"  # its hash
    OFFER = "offer"  # its turn to be offered
    ANSWER = "answer"  # need or receipt
    SEND = "send"  # room in the window
    UPLOAD = "upload"  # its parts, which go another way


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the file and where it belongs."""

    offset: int
    payload: bytes


class Sending:
    """State of one open transfer; owned by the thread of the worker, which closes it."""

    def __init__(
        self,
        transfer: Transfer,
        path: Path,
        answer_timeout_s: float,
        verified: Identity | None = None,
        *,
        takes_parts: bool = False,
    ) -> None:
        self.transfer = transfer
        self.parts: tuple[Part, ...] = ()  # in UPLOAD
        self._takes_parts = takes_parts
        self.phase = Phase.CHECK
        self.unacked = 0
        self.asked_ns = 0
        self.due_ns = 0  # in ANSWER: when to ask again; in OFFER: not before
        self.max_chunk_bytes = 0
        self._path = path
        self._first_wait_s = self._wait_s = answer_timeout_s
        self._descriptor = -1
        self._identity = verified
        self._is_verified = verified is not None
        self._hash = hashlib.sha256()
        self._hashed_bytes = 0
        self._todo: deque[tuple[int, int]] = deque()
        self._least_missing_bytes = transfer.size_bytes + 1
        self._stalls = 0
        self.rate_bytes_per_s = 0
        self._next_chunk_ns = 0

    def check(self) -> None:
        """Hash a piece of the file; at its end the phase is OFFER.

        Raises:
            Harmed: the file is missing, unreadable or not what was sealed.
        """
        if self._descriptor < 0 and self._open():
            self.phase = Phase.OFFER
            return
        piece = self._read(self._hashed_bytes, HASH_STEP_BYTES)
        self._hash.update(piece)
        self._hashed_bytes += len(piece)
        if piece and self._hashed_bytes < self.transfer.size_bytes:
            return
        found = self._hash.hexdigest()
        if found != self.transfer.sha256:
            words = f"{self.transfer.path}: sha256 {found}; sealed as {self.transfer.sha256}"
            raise Harmed("altered", words)
        self._is_verified = True
        self.phase = Phase.OFFER

    @property
    def verified(self) -> Identity | None:
        """Which state of the file was hashed and found good, for the next time it is opened."""
        return self._identity if self._is_verified else None

    @property
    def is_unanswered(self) -> bool:
        """Whether the centre has let an offer or a done pass without an answer."""
        return self._wait_s > self._first_wait_s

    def offer(self, device: str, chunk_bytes: int) -> Json:
        """Give the offer."""
        transfer = self.transfer
        willing = {"bulk": True} if self._takes_parts else {}
        return willing | {
            "sv": SCHEMA_VERSION,
            "fid": transfer.fid,
            "device": device,
            "name": transfer.name,
            "size_bytes": transfer.size_bytes,
            "sha256": transfer.sha256,
            "chunk_bytes": chunk_bytes,
            "leaf_root": transfer.leaf_root,
            "event_ids": list(transfer.event_ids),
            "manifest": transfer.manifest,
        }

    def done(self) -> Json:
        """Give the done, after a last look at the file.

        Raises:
            Harmed: the file changed while it was sent, or was deleted.
        """
        found = self._identify()
        if not self._path.exists():
            raise Harmed("missing", f"{self.transfer.path}: deleted while it was sent")
        if found != self._identity:
            raise Harmed("altered", f"{self.transfer.path}: changed while it was sent")
        transfer = self.transfer
        return {
            "sv": SCHEMA_VERSION,
            "fid": transfer.fid,
            "size_bytes": transfer.size_bytes,
            "sha256": transfer.sha256,
        }

    def asked(self, now_ns: int) -> None:
        """Note that an offer or a done went out: an answer is due."""
        self.phase = Phase.ANSWER
        self.asked_ns = now_ns
        self.due_ns = now_ns + int(self._wait_s * NS_PER_S)

    def postpone(self, now_ns: int) -> None:
        """Offer again after the present wait, and wait longer the next time."""
        if self.phase in (Phase.ANSWER, Phase.SEND, Phase.UPLOAD):
            self.phase = Phase.OFFER
            self.due_ns = now_ns + int(self._wait_s * NS_PER_S)
            self._wait_longer()

    def unanswered(self) -> None:
        """Offer again now, and wait longer for the answer."""
        self.phase = Phase.OFFER
        self.due_ns = 0
        self._wait_longer()

    def reconnected(self) -> None:
        """Offer again on a new connection: the answer says what came through."""
        self.unacked = 0
        self._least_missing_bytes, self._stalls = self.transfer.size_bytes + 1, 0
        self._wait_s = self._first_wait_s  # what was not answered may never have arrived
        if self.phase not in (Phase.CHECK, Phase.UPLOAD):
            self.phase = Phase.OFFER
            self.due_ns = 0

    def uploaded(self, now_ns: int, *, is_whole: bool, has_moved: bool) -> None:
        """Note that an upload has ended: done if whole, else offered again for other URLs."""
        self.parts = ()
        if is_whole:
            self.phase = Phase.SEND
        elif has_moved:
            self.phase = Phase.OFFER
            self.due_ns = 0
        else:
            self.postpone(now_ns)

    def spoken_to(self) -> None:
        """Offer again at once if an answer is due: the centre speaks after a silence."""
        if self.phase is Phase.ANSWER and self.is_unanswered:
            self.phase = Phase.OFFER
            self.due_ns = 0
            self._wait_s = self._first_wait_s

    def need(self, need: Json, now_ns: int) -> None:
        """Take the centre's answer; the phase is then SEND, or OFFER later if it asks in circles.

        Raises:
            MalformedMessage: it answers nothing, or no range of it lies in the file.
        """
        if self.phase is not Phase.ANSWER:
            raise MalformedMessage(f"need {self.transfer.fid}: not asked for")
        ranges = _merged(need["ranges"], self.transfer.size_bytes)
        parts = read_parts(need, self.transfer.size_bytes) if self._takes_parts else ()
        if self._is_in_circles(sum(end - start for start, end in ranges)):
            self.postpone(now_ns)
            return
        self.phase = Phase.SEND
        self.max_chunk_bytes = int(need["max_chunk_bytes"])
        rate = int(need["rate_bytes_per_s"])
        self.rate_bytes_per_s = max(rate, LEAST_RATE_BYTES_PER_S) if rate else 0
        self._todo = deque(() if parts else ranges)
        if parts:
            self.parts, self.phase = parts, Phase.UPLOAD

    def chunk(self, size_bytes: int, now_ns: int) -> Chunk | None:
        """Give the next chunk, or None when none may go now.

        Raises:
            Harmed: the file is no longer as long as it was.
        """
        if not self._todo or now_ns < self._next_chunk_ns:
            return None
        start, end = self._todo.popleft()
        size = max(1, min(size_bytes, self.max_chunk_bytes, end - start))
        payload = self._read(start, size)
        if len(payload) < size:
            words = f"{self.transfer.path}: shorter than sealed; read to {start}"
            raise Harmed("truncated", words)
        if start + size < end:
            self._todo.appendleft((start + size, end))
        if self.rate_bytes_per_s:
            wait_ns = size * NS_PER_S // self.rate_bytes_per_s
            self._next_chunk_ns = max(now_ns, self._next_chunk_ns) + wait_ns
        self.unacked += 1
        return Chunk(start, payload)

    def landed(self) -> None:
        """Note that the broker answered for a chunk."""
        self.unacked = max(0, self.unacked - 1)

    def give_back(self, offset: int, size_bytes: int) -> None:
        """Take back a chunk that the broker did not take."""
        if self.phase is Phase.SEND:
            self._todo.appendleft((offset, offset + size_bytes))

    @property
    def is_all_sent(self) -> bool:
        """Whether everything asked for went out and was acknowledged."""
        return self.phase is Phase.SEND and not self._todo and not self.unacked

    @property
    def has_chunks(self) -> bool:
        """Whether chunks are waiting for room."""
        return self.phase is Phase.SEND and bool(self._todo)

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def _is_in_circles(self, missing_bytes: int) -> bool:
        """Whether to wait before serving this: answers that never ask for less get ever slower."""
        if missing_bytes < self._least_missing_bytes:
            self._least_missing_bytes, self._stalls = missing_bytes, 0
            self._wait_s = self._first_wait_s
            return False
        self._stalls += 1
        return self._stalls >= MOST_STALLS and self._stalls % 2 == MOST_STALLS % 2

    def _wait_longer(self) -> None:
        self._wait_s = min(2 * self._wait_s, max(MOST_WAIT_S, self._first_wait_s))

    def _open(self) -> bool:
        """Open the file; true if it is the one that was hashed before."""
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            harm = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
            raise Harmed(harm, f"{self.transfer.path}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise Harmed("altered", f"{self.transfer.path}: no plain file")
        identity = self._identify()
        found_bytes, sealed_bytes = identity[0], self.transfer.size_bytes
        if found_bytes != sealed_bytes:
            harm = "truncated" if found_bytes < sealed_bytes else "altered"
            words = f"{self.transfer.path}: {found_bytes} bytes; sealed with {sealed_bytes}"
            raise Harmed(harm, words)
        is_known = self._is_verified and identity == self._identity
        self._identity, self._is_verified = identity, is_known
        return is_known

    def _identify(self) -> Identity:
        facts = os.fstat(self._descriptor)
        return facts.st_size, facts.st_mtime_ns, facts.st_ino

    def _read(self, offset: int, size_bytes: int) -> bytes:
        try:
            return os.pread(self._descriptor, size_bytes, offset)
        except OSError as error:
            raise Harmed("unreadable", f"{self.transfer.path}: {error.strerror}") from error


def _merged(ranges: Sequence[Sequence[int]], size_bytes: int) -> list[tuple[int, int]]:
    """Give the ranges that lie in the file, sorted, without overlap.

    Raises:
        MalformedMessage: there are ranges and none of them does.
    """
    good = sorted(
        (int(start), int(end)) for start, end in ranges if 0 <= start <= end <= size_bytes
    )
    if ranges and not good:
        raise MalformedMessage(f"need: ranges {ranges[:3]}; allowed: within 0 to {size_bytes}")
    merged: list[tuple[int, int]] = []
    for start, end in good:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return [(start, end) for start, end in merged if end > start]
