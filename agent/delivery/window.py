"""How much of a file to have under way: about 1.3 times bandwidth times delay, measured.

Bandwidth is the largest delivery rate of the last seconds, delay the smallest time to an
acknowledgement (the idea of BBR: Cardwell et al., "BBR: Congestion-Based Congestion Control",
2016; the rate sample is that of draft-cheng-iccrg-delivery-rate-estimation). A delay older than
ten seconds is measured anew with a single chunk under way, or our own queue would count as the
link's. More than the window only fills queues that an alarm would have to stand in.

Where the kernel itself keeps the queue short (BBR), the window grows to 3 once the rate has
settled: what waits does so in the socket, not on the link, and a lost packet does not leave the
link idle. Starved of data BBR never ends its start-up, in which it fills every queue; so from then
on the socket is held to a little over the measured rate. Measured: `./run bench goodput`.
Pure: instants are parameters.
"""

from collections import deque
from dataclasses import dataclass

from agent.core.clock import NS_PER_S

KIB = 1024
SMALL_CHUNK_BYTES = 16 * KIB
CHUNK_BYTES = 64 * KIB
LARGE_CHUNK_BYTES = 256 * KIB
LEAST_CHUNK_BYTES = 4 * KIB
MOST_WINDOW_BYTES = 1536 * KIB  # holds 100 Mbit/s at 80 ms, 20 Mbit/s at 300 ms
MOST_PACED_BYTES = 2048 * KIB
GAIN = 1.3
PACED_GAIN = 3.0
PACE_GAIN = 1.05  # over the measured rate: room to find out that the link has become faster
RISE = 1.1  # a rate that has not grown so much for a while has settled
SETTLE_NS = NS_PER_S // 2
SETTLE_DELAYS = 8
SLOW_BYTES_PER_S = 125_000  # 1 Mbit/s
LAN_BYTES_PER_S = 12_500_000
LAN_DELAY_NS = 10_000_000
MEMORY_NS = 10 * NS_PER_S
PACED_MEMORY_NS = 30 * NS_PER_S  # there a wrong delay only fills the socket


@dataclass(frozen=True, slots=True)
class _Sent:
    at_ns: int
    size_bytes: int
    delivered_bytes: int  # before it
    delivered_ns: int
    is_alone: bool  # nothing else was under way


class SendWindow:
    """Estimates from sends and acknowledgements of one connection after another."""

    def __init__(self) -> None:
        self._sent: dict[int, _Sent] = {}
        self._delivered_bytes = 0
        self._delivered_ns = 0
        self._rates: deque[tuple[int, float]] = deque()
        self._delay_at_ns = 0
        self._is_probing = False
        self._cap_bytes = LARGE_CHUNK_BYTES
        self._risen_rate = 0.0
        self._risen_ns = 0
        self._is_settled = False
        self.is_paced = False  # whether the kernel keeps the queue short by itself
        self.in_flight_bytes = 0
        self.bandwidth_bytes_per_s = 0.0  # largest rate lately, 0 before the first acknowledgement
        self.delay_ns = 0  # smallest time to an acknowledgement lately

    @property
    def chunk_bytes(self) -> int:
        """Size of the next chunk."""
        rate = self.bandwidth_bytes_per_s
        if not rate:
            size = CHUNK_BYTES
        elif rate < SLOW_BYTES_PER_S:
            size = SMALL_CHUNK_BYTES
        elif rate > LAN_BYTES_PER_S and self.delay_ns < LAN_DELAY_NS:
            size = LARGE_CHUNK_BYTES
        else:
            size = CHUNK_BYTES
        return min(size, self._cap_bytes)

    @property
    def window_bytes(self) -> int:
        """How much may be under way; at least one chunk, at most 1.5 MiB, where paced 2 MiB."""
        gain = PACED_GAIN if self._is_wide else GAIN
        most_bytes = MOST_PACED_BYTES if self._is_wide else MOST_WINDOW_BYTES
        wanted = int(gain * self.bandwidth_bytes_per_s * self.delay_ns / NS_PER_S)
        return min(max(wanted, self.chunk_bytes), most_bytes)

    @property
    def pace_bytes_per_s(self) -> int:
        """What the socket is to be held to; 0: not at all."""
        return int(PACE_GAIN * self.bandwidth_bytes_per_s) if self._is_wide else 0

    @property
    def _is_wide(self) -> bool:
        return self.is_paced and self._is_settled

    @property
    def has_room(self) -> bool:
        """Whether a chunk may go; it may reach over the edge, or the window could not grow."""
        limit_bytes = 1 if self._is_probing else self.window_bytes
        return self.in_flight_bytes < limit_bytes

    def sent(self, token: int, size_bytes: int, now_ns: int) -> None:
        """Note a chunk that was sent."""
        if not self._sent:
            self._delivered_ns = now_ns
        self._sent[token] = _Sent(
            now_ns, size_bytes, self._delivered_bytes, self._delivered_ns, not self._sent
        )
        self.in_flight_bytes += size_bytes

    def acked(self, token: int, now_ns: int) -> None:
        """Note its acknowledgement; an unknown token is ignored."""
        sent = self._sent.pop(token, None)
        if sent is None:
            return
        self.in_flight_bytes -= sent.size_bytes
        self._delivered_bytes += sent.size_bytes
        self._delivered_ns = now_ns
        took_ns = max(1, now_ns - sent.delivered_ns)
        rate = (self._delivered_bytes - sent.delivered_bytes) * NS_PER_S / took_ns
        self._note_rate(rate, now_ns)
        self._note_delay(sent, now_ns)
        if sent.size_bytes >= self._cap_bytes:
            self._cap_bytes = min(2 * self._cap_bytes, LARGE_CHUNK_BYTES)

    def dropped(self, token: int) -> None:
        """Note a chunk that the broker did not take: it says nothing about the link."""
        sent = self._sent.pop(token, None)
        if sent is not None:
            self.in_flight_bytes -= sent.size_bytes

    def reconnected(self, *, was_stuck: bool) -> None:
        """Forget what was under way; small chunks may come through where large ones got stuck."""
        self._sent.clear()
        self.in_flight_bytes = 0
        self._risen_rate, self._is_settled = 0.0, False
        if was_stuck:
            self._cap_bytes = max(LEAST_CHUNK_BYTES, self.chunk_bytes // 4)
            self._rates.clear()
            self.bandwidth_bytes_per_s, self.delay_ns = 0.0, 0

    def _note_rate(self, rate: float, now_ns: int) -> None:
        """Keep the largest rate of the last seconds and what may follow it."""
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((now_ns, rate))
        while self._rates[0][0] < now_ns - MEMORY_NS:
            self._rates.popleft()
        self.bandwidth_bytes_per_s = self._rates[0][1]
        if rate > RISE * self._risen_rate:
            self._risen_rate, self._risen_ns = rate, now_ns
        elif now_ns - self._risen_ns > max(SETTLE_NS, SETTLE_DELAYS * self.delay_ns):
            self._is_settled = True

    def _note_delay(self, sent: _Sent, now_ns: int) -> None:
        delay_ns = now_ns - sent.at_ns
        if not self.delay_ns or delay_ns <= self.delay_ns or (self._is_probing and sent.is_alone):
            self.delay_ns, self._delay_at_ns = delay_ns, now_ns
            self._is_probing = False
        elif now_ns - self._delay_at_ns > (PACED_MEMORY_NS if self._is_wide else MEMORY_NS):
            self._is_probing = True
