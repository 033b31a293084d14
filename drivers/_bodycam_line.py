"""Our own line protocol for body cameras: a JSON object a line, its CRC-16, a sequence number.

    {"seq":7,"do":"clock"}*1D0F            order
    {"seq":7,"ok":true,"utc_ns":…}*29B1    answer, or {"seq":7,"ok":false,"error":"login"}

The CRC is CRC-16/CCITT-FALSE (polynomial 0x1021, begun at 0xFFFF) of the object's bytes, in four
hex digits. An order that is sent again keeps its number, and the camera answers again without doing
it twice. What has no right CRC or another number is not looked at.
"""

import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from agent.core.clock import Clock
from agent.core.dock import Battery, ClockReading, Identity
from agent.core.errors import AuthRefused, SourceLost, Unsupported
from drivers._bodycam_port import Port, deadline

STRICTNESS = 30  # its answers have a checksum
TRIES = 3
MOST_TEXT = 128
MOST_MARKS = 1000
MOST_UTC_NS = 1 << 62


def build(port: Port, password: str, zone: ZoneInfo, timeout_s: float, clock: Clock) -> "Line":
    """Give a link in this dialect; nothing is said yet."""
    del zone  # it tells UTC
    return Line(port, password, timeout_s, clock)


class Line:
    """See `agent.core.dock.CameraLink`."""

    def __init__(self, port: Port, password: str, timeout_s: float, clock: Clock) -> None:
        self._port = port
        self._password = password
        self._timeout_s = timeout_s
        self._clock = clock
        self._seq = clock.mono_ns() & 0xFFFF
        self._is_in = False

    def identify(self) -> Identity:
        """See `CameraLink.identify`."""
        found = self._ask("identify")
        return Identity(*(self._text(found, k) for k in ("serial", "model", "firmware", "officer")))

    def read_clock(self) -> ClockReading:
        """See `CameraLink.read_clock`."""
        before_ns = self._clock.mono_ns()
        told_ns = self._whole(self._ask("clock"), "utc_ns", MOST_UTC_NS)
        rtt_ns = self._clock.mono_ns() - before_ns
        return ClockReading(told_ns, self._clock.utc_ns() - rtt_ns // 2, rtt_ns // 1_000_000)

    def set_clock(self, utc_ns: int) -> None:
        """See `CameraLink.set_clock`."""
        self._ask("set_clock", utc_ns=utc_ns)

    def battery(self) -> Battery:
        """See `CameraLink.battery`."""
        found = self._ask("battery")
        charging = found.get("charging")
        return Battery(
            self._whole(found, "percent", 100), charging if isinstance(charging, bool) else None
        )

    def marks(self) -> Sequence[str]:
        """See `CameraLink.marks`."""
        found = self._ask("marks").get("names")
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise self._nonsense("names", found)
        return tuple(found[:MOST_MARKS])

    def configure(self, settings: Mapping[str, str]) -> None:
        """See `CameraLink.configure`."""
        self._ask("configure", settings=dict(settings))

    def enter_storage(self) -> None:
        """See `CameraLink.enter_storage`."""
        self._ask("storage")
        self.close()

    def close(self) -> None:
        """See `CameraLink.close`."""
        self._port.close()

    def probe(self, timeout_s: float) -> bool:
        """Whether whoever is there speaks this."""
        try:
            self._told({"do": "hello"}, 1, timeout_s)
        except SourceLost:
            return False
        return True

    def _ask(self, word: str, **args: object) -> Mapping[str, Any]:
        if not self._is_in:
            self._answered("login", self._told({"do": "login", "password": self._password}))
            self._is_in = True
        return self._answered(word, self._told({"do": word, **args}))

    def _answered(self, word: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        if answer.get("ok") is True:
            return answer
        error = str(answer.get("error"))[:MOST_TEXT]
        if error == "login":
            raise AuthRefused(f"camera {self._port.path}: does not take our password")
        if error == "unknown":
            raise Unsupported(f"camera {self._port.path}: does not know {word!r}")
        raise SourceLost(f"camera {self._port.path}: {word}: {error!r}")

    def _told(
        self, order: Mapping[str, object], tries: int = TRIES, timeout_s: float | None = None
    ) -> Mapping[str, Any]:
        self._seq = (self._seq + 1) & 0xFFFF
        frame = framed({"seq": self._seq, **order})
        heard = b""
        for _ in range(tries):
            self._port.send(frame)
            limit_ns = deadline(self._clock, timeout_s or self._timeout_s)
            while self._clock.mono_ns() < limit_ns:
                heard = self._port.until(limit_ns, b"\n")
                answer = unframed(heard)
                if answer is not None and answer.get("seq") == self._seq:
                    return answer
        what = "nothing" if not heard else repr(heard[:60])
        raise SourceLost(f"camera {self._port.path}: {order['do']}: answers {what}")

    def _text(self, found: Mapping[str, Any], key: str) -> str:
        value = found.get(key, "")
        if not isinstance(value, str) or len(value) > MOST_TEXT:
            raise self._nonsense(key, value)
        return value

    def _whole(self, found: Mapping[str, Any], key: str, most: int) -> int:
        value = found.get(key)
        if type(value) is not int or not 0 <= value <= most:
            raise self._nonsense(key, value)
        return value

    def _nonsense(self, key: str, value: object) -> SourceLost:
        return SourceLost(f"camera {self._port.path}: {key}: {str(value)[:60]!r} makes no sense")


def framed(document: Mapping[str, object]) -> bytes:
    """Give the line of an object."""
    content = json.dumps(document, separators=(",", ":")).encode()
    return b"%s*%04X\n" % (content, binascii.crc_hqx(content, 0xFFFF))


def unframed(line: bytes) -> Mapping[str, Any] | None:
    """Give the object of a line; None if it is none of ours, or has come damaged."""
    content, star, check = line.rstrip(b"\r\n").rpartition(b"*")
    if not star or check != b"%04X" % binascii.crc_hqx(content, 0xFFFF):
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
