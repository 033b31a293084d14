"""Dialect B of common body cameras, over a serial line: binary orders of a fixed form.

Source: public importers that speak it over USB vendor control transfers. On a byte stream an order
is A1 B2 C3 D4 00, three bytes of code, 00, a length and a payload; an answer repeats the first
nine bytes with 80 as the seventh and has 100 bytes of data. Its clock is set in local time and
never told. It has no checksum: what matters is asked twice.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from agent.core.clock import NS_PER_S, Clock
from agent.core.dock import Battery, ClockReading, Identity
from agent.core.errors import AuthRefused, SourceLost, Unsupported
from drivers._bodycam_port import Port, deadline

STRICTNESS = 20  # its answers have a form, and a ping of their own
TRIES = 3
MAGIC: Final = bytes.fromhex("A1B2C3D400")
HEAD_BYTES, DATA_BYTES = 9, 100
OK_AT, OK = 6, 0x80
LOGIN: Final = bytes.fromhex("E10011")
PING: Final = bytes.fromhex("E10020")
DEVICE: Final = bytes.fromhex("E10030")
CLOCK: Final = bytes.fromhex("E10041")
STORAGE: Final = bytes.fromhex("E10051")
BATTERY: Final = bytes.fromhex("E10070")
PONG = b"ABCDE"
SERIAL, OFFICER = slice(0, 9), slice(9, 17)  # of the device's 100 bytes
FULL = 100


def build(port: Port, password: str, zone: ZoneInfo, timeout_s: float, clock: Clock) -> "DialectB":
    """Give a link in this dialect; nothing is said yet."""
    return DialectB(port, password, zone, timeout_s, clock)


class DialectB:
    """See `agent.core.dock.CameraLink`."""

    def __init__(
        self, port: Port, password: str, zone: ZoneInfo, timeout_s: float, clock: Clock
    ) -> None:
        self._port = port
        self._password = password
        self._zone = zone
        self._timeout_s = timeout_s
        self._clock = clock
        self._is_in = False

    def identify(self) -> Identity:
        """See `CameraLink.identify`; asked until two answers are the same."""
        found = self._twice(DEVICE)
        return Identity(_text(found[SERIAL]), officer=_text(found[OFFICER]))

    def read_clock(self) -> ClockReading:
        """See `CameraLink.read_clock`."""
        raise self._unknown("clock")

    def set_clock(self, utc_ns: int) -> None:
        """See `CameraLink.set_clock`."""
        moment = datetime.fromtimestamp(utc_ns / NS_PER_S, UTC).astimezone(self._zone)
        day = (moment.month, moment.day, moment.hour, moment.minute, moment.second)
        self._log_in()
        self._told(CLOCK, moment.year.to_bytes(2, "big") + bytes(day))

    def battery(self) -> Battery:
        """See `CameraLink.battery`."""
        percent = self._twice(BATTERY)[0]
        if percent > FULL:
            raise SourceLost(f"camera {self._port.path}: charge {percent}; allowed: 0 to {FULL}")
        return Battery(percent)

    def marks(self) -> Sequence[str]:
        """See `CameraLink.marks`."""
        raise self._unknown("marks")

    def configure(self, settings: Mapping[str, str]) -> None:
        """See `CameraLink.configure`."""
        raise self._unknown(f"settings {', '.join(settings)}")

    def enter_storage(self) -> None:
        """See `CameraLink.enter_storage`."""
        self._log_in()
        self._told(STORAGE, b"")
        self.close()

    def close(self) -> None:
        """See `CameraLink.close`."""
        self._port.close()

    def probe(self, timeout_s: float) -> bool:
        """Whether whoever is there speaks this."""
        try:
            return self._told(PING, b"", 1, timeout_s).startswith(PONG)
        except (SourceLost, Unsupported):
            return False

    def _log_in(self) -> None:
        if not self._is_in:
            self._told(LOGIN, self._password.encode("latin-1", "replace"))
            self._is_in = True

    def _twice(self, code: bytes) -> bytes:
        self._log_in()
        last = self._told(code, b"")
        for _ in range(TRIES):
            answer = self._told(code, b"")
            if answer == last:
                return answer
            last = answer
        raise SourceLost(f"camera {self._port.path}: {code.hex()}: never the same answer twice")

    def _told(
        self, code: bytes, payload: bytes, tries: int = TRIES, timeout_s: float | None = None
    ) -> bytes:
        frame = MAGIC + code + b"\0" + len(payload).to_bytes(1, "big") + payload
        heard, refusals = b"", 0
        for _ in range(tries):
            self._port.send(frame)
            limit_ns = deadline(self._clock, timeout_s or self._timeout_s)
            heard = self._port.until(limit_ns, HEAD_BYTES + DATA_BYTES)
            if len(heard) != HEAD_BYTES + DATA_BYTES or not _is_answer(heard, code):
                continue
            if heard[OK_AT] == OK:
                return heard[HEAD_BYTES:]
            if code == LOGIN:
                raise AuthRefused(f"camera {self._port.path}: does not take our password")
            refusals += 1
        if refusals == tries:
            self._is_in = False  # it may have forgotten our login: the next order logs in again
            raise Unsupported(f"camera {self._port.path}: refuses {code.hex()}")
        what = "nothing" if not heard else heard[: HEAD_BYTES + 8].hex(" ")
        raise SourceLost(f"camera {self._port.path}: {code.hex()}: answers {what}")

    def _unknown(self, what: str) -> Unsupported:
        return Unsupported(f"camera {self._port.path}: dialect b has no word for {what}")


def _is_answer(heard: bytes, code: bytes) -> bool:
    """Whether an answer is for this order: all of its head but the seventh byte says so."""
    return heard[:OK_AT] == MAGIC + code[:1] and heard[OK_AT + 1 : HEAD_BYTES] == code[2:] + b"\0"


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "replace").strip()
