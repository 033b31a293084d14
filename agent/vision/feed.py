"""From the thread that reads a camera to the one that writes: groups of pictures, never waiting.

The writer is woken once a group, not once a picture: at fifteen pictures a second of sixteen
cameras that is a third of what recording costs. Nothing reaches the disk later by it, because a
group is written when the next one begins.
"""

import queue
import threading
from collections.abc import Sequence
from typing import TypeAlias

from agent.core.clock import NS_PER_S
from agent.core.model import Packet
from agent.vision.segment import Gap

LONGEST_NS = 2 * NS_PER_S  # of a group that waits to be handed over
TOO_SLOW = "the disk is too slow"

Item: TypeAlias = Packet | Gap | None


class Inbox:
    """What waits to be written, bounded in packets; None is the end."""

    def __init__(self, max_packets: int) -> None:
        self.max_packets = max_packets
        self._items: queue.SimpleQueue[Sequence[Item]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._held = 0

    def offer(self, items: Sequence[Item]) -> bool:
        """Put items in, all or, where there is no room, none."""
        with self._lock:
            if self._held + len(items) > self.max_packets:
                return False
            self._held += len(items)
        self._items.put(items)
        return True

    def end(self, items: Sequence[Item]) -> None:
        """Put the last items in, whatever the room."""
        with self._lock:
            self._held += len(items)
        self._items.put([*items, None])

    def take(self) -> Sequence[Item]:
        """Wait for items, and give those that were put in together."""
        items = self._items.get()
        with self._lock:
            self._held -= len(items)
        return items


class Feed:
    """Hands packets over a group at a time; when there is no room the group is left out."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._most = max(1, inbox.max_packets // 2)
        self._pending: list[Packet | Gap] = []
        self._lost: list[int] | None = None  # from, to, packets: what is being left out
        self._dropped = 0

    def put(self, packet: Packet) -> None:
        """Take a packet; never waits."""
        if self._lost is not None and not self._pending:
            if not packet.is_key:
                self._lose(packet)
                return
            self._begin_again(packet)
        ends_group = packet.is_key and isinstance(self._newest(), Packet)
        self._pending.append(packet)
        if ends_group or len(self._pending) >= self._most or self._is_long(packet):
            self._hand_over()

    def rest(self) -> list[Packet | Gap]:
        """Give what is left at the end of the session, with the gap that it ends in."""
        rest, self._pending = self._pending, []
        return rest if self._lost is None else [*rest, self._gap(self._lost, self._lost[1])]

    def take_dropped(self) -> int:
        """Give how many packets were left out since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _newest(self) -> Packet | Gap | None:
        return self._pending[-1] if self._pending else None

    def _is_long(self, packet: Packet) -> bool:
        first = self._pending[0]
        begun_ns = first.to_utc_ns if isinstance(first, Gap) else first.utc_ns
        return packet.utc_ns - begun_ns >= LONGEST_NS

    def _hand_over(self) -> None:
        if self._inbox.offer(self._pending):
            self._pending = []
            return
        *lost, last = self._pending
        self._pending = []
        for item in lost:
            self._lose(item)
        if isinstance(last, Packet) and last.is_key and lost:  # its group may find room yet
            self._begin_again(last)
            self._pending.append(last)
        else:
            self._lose(last)

    def _lose(self, item: Packet | Gap) -> None:
        if isinstance(item, Gap):
            self._lost = [item.from_utc_ns, item.to_utc_ns, item.packets]
            return
        lost = self._lost or [item.utc_ns, item.utc_ns, 0]
        self._lost = [lost[0], item.utc_ns, lost[2] + 1]
        self._dropped += 1

    def _begin_again(self, key: Packet) -> None:
        """Close the gap with a key frame: its row goes ahead of it."""
        if self._lost is not None:
            self._pending.append(self._gap(self._lost, key.utc_ns))
            self._lost = None

    @staticmethod
    def _gap(lost: Sequence[int], to_utc_ns: int) -> Gap:
        return Gap(lost[0], to_utc_ns, lost[2], TOO_SLOW)
