"""Receipts for messages: collected for an instant, signed once for many, given again when asked.

The first message of a quiet device is signed for at once; a flood, also of repeats, costs one
signature per device every 200 ms or 500 ids. Batches are signed for at once: the device has few
under way, and each has cost far more than a signature.
"""

from collections.abc import Iterator

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import sign_row_receipt

MOST_IDS = 500  # in one receipt, as the schema says
EVERY_NS = 200 * NS_PER_MS
MOST_WAITING = 20_000  # ids a device; those beyond are asked for again by the device


class RowReceipts:
    """Ids that are stored and not yet signed for; used by one thread."""

    def __init__(self, receiver: str, key: DeviceKey, clock: Clock) -> None:
        self._receiver = receiver
        self._key = key
        self._clock = clock
        self._waiting: dict[str, dict[str, None]] = {}  # device -> ids in order, each once
        self._signed_ns: dict[str, int] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether something will have to be signed soon."""
        return bool(self._waiting)

    def add(self, device: str, message_id: str) -> None:
        """Take a message that is on the disk."""
        ids = self._waiting.setdefault(device, {})
        if len(ids) < MOST_WAITING:
            ids[message_id] = None

    def add_batch(self, device: str, batch_id: str) -> None:
        """Take a batch that is on the disk: it stands for many messages, so it does not wait."""
        self.add(device, batch_id)
        self._signed_ns.pop(device, None)

    def due(self) -> Iterator[tuple[str, wire.Json]]:
        """Give the receipts to send now, each with its device."""
        now_ns = self._clock.mono_ns()
        for device in list(self._waiting):
            is_rested = now_ns - self._signed_ns.get(device, -EVERY_NS) >= EVERY_NS
            while len(ids := self._waiting[device]) >= MOST_IDS or (ids and is_rested):
                first = list(ids)[:MOST_IDS]
                for message_id in first:
                    del ids[message_id]
                self._signed_ns[device] = now_ns
                yield device, self._signed(device, first)
            if not ids:
                del self._waiting[device]

    def _signed(self, device: str, ids: list[str]) -> wire.Json:
        fields = {
            "device": device,
            "ids": ids,
            "stored_utc_ms": self._clock.utc_ns() // NS_PER_MS,
            "receiver": self._receiver,
        }
        return sign_row_receipt(fields, self._key)
