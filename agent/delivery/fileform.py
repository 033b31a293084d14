"""How a transfer is spelled: on our own topics, or as EMQX's file transfer, which is an adapter.

EMQX takes the pieces itself and says by its PUBACK that it has put the file together. That is no
receipt: it neither syncs what it stores nor signs for it. So the file stays here, as in our own
form, until the centre's signed receipt comes; until then the broker is only not asked again soon.
Source: docs.emqx.com, "File Transfer Clients Development"; the commands are sent with QoS 1.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from agent.core import wire
from agent.core.clock import NS_PER_S
from agent.core.wire import Topics
from agent.delivery.sending import Chunk, Phase, Sending

OUTPOST, EMQX = "outpost", "emqx"
LARGEST_CHUNK_BYTES = 1 << 20
ASSEMBLY_S = 300.0  # EMQX answers a `fin` only when the file is put together
MOST_REST_S = 86_400.0

Said = tuple[str, bytes]
"""Topic and payload."""


class FileForm(Protocol):
    """The words of a transfer; used by the thread of its worker."""

    extra_patience_s: float  # for the acknowledgement of the end

    def offer(self, sending: Sending, chunk_bytes: int) -> Said:
        """Give the first message of a file."""
        ...

    def chunk(self, sending: Sending, chunk: Chunk) -> str:
        """Give the topic of a piece."""
        ...

    def done(self, sending: Sending) -> Said:
        """Give the last message; HashMismatch if the file has changed."""
        ...

    def topic_bytes(self, fid: str) -> int:
        """Give the length of the longest topic of a file."""
        ...

    def taken(self, sending: Sending, now_ns: int, *, is_done: bool) -> None:
        """Note that the broker has taken an offer or a done."""
        ...

    def rests(self, fid: str, now_ns: int) -> bool:
        """Whether only the receipt is missing of a file; it is then not to be sent for a while."""
        ...

    def resting(self, now_ns: int) -> Collection[str]:
        """Give the files that are not to be sent now."""
        ...

    def forget(self, fid: str) -> None:
        """Note that a file has its receipt."""
        ...


def form(name: str, topics: Topics, first_rest_s: float) -> FileForm:
    """Give a form by its name in the configuration."""
    return EmqxForm(topics, first_rest_s) if name == EMQX else OutpostForm(topics)


class OutpostForm:
    """Our own: the centre answers every offer and every done."""

    extra_patience_s = 0.0

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def offer(self, sending: Sending, chunk_bytes: int) -> Said:
        """See `FileForm`."""
        document = sending.offer(self._topics.device, chunk_bytes)
        return self._topics.file(sending.transfer.fid, "offer"), wire.encode(document)

    def chunk(self, sending: Sending, chunk: Chunk) -> str:
        """See `FileForm`."""
        return self._topics.file(sending.transfer.fid, str(chunk.offset))

    def done(self, sending: Sending) -> Said:
        """See `FileForm`."""
        return self._topics.file(sending.transfer.fid, "done"), wire.encode(sending.done())

    def topic_bytes(self, fid: str) -> int:
        """See `FileForm`."""
        return len(self._topics.file(fid, "9" * 20))

    def taken(self, sending: Sending, now_ns: int, *, is_done: bool) -> None:
        """Wait for the centre: the broker's word means nothing."""

    def rests(self, fid: str, now_ns: int) -> bool:
        """Ask again: the centre answers whatever was asked before."""
        del fid, now_ns
        return False

    def resting(self, now_ns: int) -> Collection[str]:
        """None."""
        del now_ns
        return ()

    def forget(self, fid: str) -> None:
        """Nothing is remembered."""


@dataclass(slots=True)
class _Rest:
    until_ns: int
    wait_s: float


class EmqxForm:
    """EMQX's: the broker takes the whole file; nobody says what is missing of one begun before."""

    extra_patience_s = ASSEMBLY_S

    def __init__(self, topics: Topics, first_rest_s: float) -> None:
        self._topics = topics
        self._first_rest_s = first_rest_s
        self._handed: dict[str, _Rest] = {}  # put together at the broker, without a receipt

    def offer(self, sending: Sending, chunk_bytes: int) -> Said:
        """Give the init; its user data is our offer, by which the centre can check and sign."""
        offer = sending.offer(self._topics.device, chunk_bytes)
        document = {
            "name": offer["name"],
            "size": offer["size_bytes"],
            "checksum": offer["sha256"],
            "user_data": offer,
        }
        return f"$file/{offer['fid']}/init", wire.encode(document)

    def chunk(self, sending: Sending, chunk: Chunk) -> str:
        """Give the topic of a segment, with its hash."""
        digest = hashlib.sha256(chunk.payload).hexdigest()
        return f"$file/{sending.transfer.fid}/{chunk.offset}/{digest}"

    def done(self, sending: Sending) -> Said:
        """Give the fin."""
        end = sending.done()
        return f"$file/{end['fid']}/fin/{end['size_bytes']}/{end['sha256']}", b""

    def topic_bytes(self, fid: str) -> int:
        """See `FileForm`."""
        return len(f"$file/{fid}/fin/{'9' * 20}/{'f' * 64}")

    def taken(self, sending: Sending, now_ns: int, *, is_done: bool) -> None:
        """Send all of it after an init; after a fin only the receipt is missing."""
        fid, size_bytes = sending.transfer.fid, sending.transfer.size_bytes
        if is_done:
            known = self._handed.get(fid)
            wait_s = self._first_rest_s if known is None else min(2 * known.wait_s, MOST_REST_S)
            self._handed[fid] = _Rest(now_ns + int(wait_s * NS_PER_S), wait_s)
        elif sending.phase is Phase.ANSWER:
            ranges = [[0, size_bytes]] if size_bytes else []
            need = {"ranges": ranges, "max_chunk_bytes": LARGEST_CHUNK_BYTES, "rate_bytes_per_s": 0}
            sending.need(need, now_ns)

    def rests(self, fid: str, now_ns: int) -> bool:
        """See `FileForm`."""
        known = self._handed.get(fid)
        return known is not None and known.until_ns > now_ns

    def resting(self, now_ns: int) -> Collection[str]:
        """See `FileForm`."""
        return [fid for fid, rest in self._handed.items() if rest.until_ns > now_ns]

    def forget(self, fid: str) -> None:
        """See `FileForm`."""
        self._handed.pop(fid, None)
