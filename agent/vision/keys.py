"""Waiting for key frames: a stream without them can neither be cut nor shown from its middle."""

from agent.core.clock import NS_PER_S
from agent.core.errors import SourceLost
from agent.core.model import Packet

LEAST_S, FIRST_MOST_S, MOST_S = 10.0, 60.0, 120.0
USUAL_WAITS = 3


class NoKeyFrame(SourceLost):
    """The stream goes on, but nothing of it could be cut or shown: it is opened anew."""


class KeyWatch:
    """Tells when the next key frame is overdue: after three usual waits, or ten seconds.

    A camera whose key frames come more rarely than that is found out by being opened again: each
    time it is given twice as long, until its own pace is known.
    """

    def __init__(self) -> None:
        self._limit_ns = round(LEAST_S * NS_PER_S)
        self._last_ns: int | None = None
        self.has_gop = False  # a whole group of pictures was seen since the start

    def restart(self) -> None:
        """Begin a session."""
        self._last_ns, self.has_gop = None, False

    def is_overdue(self, packet: Packet) -> bool:
        """Take the next packet, and say whether to wait no longer for a key frame."""
        now_ns = packet.arrival_mono_ns
        if self._last_ns is None:
            self._last_ns = now_ns
        elif packet.is_key:
            usual_ns = USUAL_WAITS * (now_ns - self._last_ns)
            self._last_ns = now_ns
            least_ns = round(LEAST_S * NS_PER_S)
            known_ns = self._limit_ns if self.has_gop else least_ns
            self._limit_ns = min(max(known_ns, usual_ns), round(MOST_S * NS_PER_S))
            self.has_gop = True
        elif now_ns - self._last_ns > self._limit_ns:
            if not self.has_gop:
                self._limit_ns = min(2 * self._limit_ns, round(FIRST_MOST_S * NS_PER_S))
            return True
        return False
