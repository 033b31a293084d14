"""The newest packets of one camera in memory, bounded in seconds and in bytes.

What a closed file holds leaves soon after that: of sixteen cameras it would be 100 MB kept twice.

Whole groups of pictures leave together, so that what stays always begins with a key frame.
"""

import threading
from collections import deque

from agent.core.clock import NS_PER_S
from agent.core.model import Packet

GRACE_NS = NS_PER_S


class Ring:
    """Filled by the recorder, read by the clip maker; safe from any thread."""

    def __init__(self, max_s: float, max_bytes: int) -> None:
        self._max_ns = round(max_s * NS_PER_S)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._groups: deque[list[Packet]] = deque()
        self._size_bytes = 0
        self._kept: deque[tuple[str, int, int]] = deque()  # run, last dts, when that was told
        self._evicted: tuple[str, int] | None = None  # run and dts of the newest that left

    @property
    def size_bytes(self) -> int:
        """Bytes of payload held."""
        return self._size_bytes

    @property
    def newest_utc_ns(self) -> int | None:
        """Evidence time of the newest packet."""
        with self._lock:
            return self._groups[-1][-1].utc_ns if self._groups else None

    def newest_key(self) -> Packet | None:
        """Give the newest key frame."""
        with self._lock:
            return self._groups[-1][0] if self._groups else None

    def put(self, packet: Packet) -> None:
        """Add a packet; one that follows no key frame of its run is left out."""
        with self._lock:
            is_continued = bool(self._groups) and self._groups[-1][-1].run == packet.run
            if packet.is_key:
                self._groups.append([packet])
            elif is_continued:
                self._groups[-1].append(packet)
            else:
                return
            self._size_bytes += len(packet.payload)
            self._evict(packet.utc_ns)

    def kept(self, run: str, dts: int) -> None:
        """Hear that a closed file holds a run up to a dts: soon that need not be held twice.

        Whoever read the rows just before still finds it here.
        """
        with self._lock:
            now_utc_ns = self._groups[-1][-1].utc_ns if self._groups else 0
            self._kept.append((run, dts, now_utc_ns + GRACE_NS))

    def runs(self) -> tuple[str, ...]:
        """Name the runs that packets are held of, oldest first."""
        with self._lock:
            return tuple(dict.fromkeys(group[0].run for group in self._groups))

    def after(self, run: str, dts: int | None) -> tuple[Packet, ...]:
        """Give the packets of a run whose dts is greater; all of the run for None."""
        with self._lock:
            return tuple(
                packet
                for group in self._groups
                if group[0].run == run
                for packet in group
                if dts is None or packet.dts > dts
            )

    def is_whole_after(self, run: str, dts: int | None) -> bool:
        """Whether nothing of a run with a greater dts has left: asked after `after`, never before.

        A run of which nothing is held any more is not whole.
        """
        with self._lock:
            if all(group[0].run != run for group in self._groups):
                return False
            if self._evicted is None or self._evicted[0] != run:
                return True
            return dts is not None and self._evicted[1] <= dts

    def _evict(self, now_utc_ns: int) -> None:
        while len(self._groups) > 1 and (
            self._size_bytes > self._max_bytes
            or self._groups[1][0].utc_ns < now_utc_ns - self._max_ns
            or self._is_kept(now_utc_ns)
        ):
            self._drop_oldest()
        if self._size_bytes > self._max_bytes:  # one endless group: a camera without key frames
            self._drop_oldest()

    def _is_kept(self, now_utc_ns: int) -> bool:
        """Whether a closed file has held the oldest group for a while."""
        newest = self._groups[0][-1]
        while self._kept and self._kept[0][2] <= now_utc_ns:
            run, dts, _ = self._kept[0]
            if run == newest.run and newest.dts <= dts:
                return True
            self._kept.popleft()
        return False

    def _drop_oldest(self) -> None:
        group = self._groups.popleft()
        self._size_bytes -= sum(len(packet.payload) for packet in group)
        self._evicted = (group[-1].run, group[-1].dts)
