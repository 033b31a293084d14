"""Dialect A of common body cameras, over a serial line: `@Word;length;payload;#`.

Source: public importers that speak it over USB bulk transfers, where an answer fills 64 bytes; on a
byte stream an answer ends with `#`. It tells an identity and takes date and time, in local time;
it tells neither its clock nor its charge. It has no checksum: what matters is asked twice.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from agent.core.clock import NS_PER_S, Clock
from agent.core.dock import Battery, ClockReading, Identity
from agent.core.errors import AuthRefused, SourceLost, Unsupported
from drivers._bodycam_port import Port, deadline

STRICTNESS = 10  # any text may be an answer, and asking is a login
TRIES = 3
PASSWORD_LETTERS = 8
OK, NO = "OK", "NO"


def build(port: Port, password: str, zone: ZoneInfo, timeout_s: float, clock: Clock) -> "DialectA":
    """Give a link in this dialect; nothing is said yet."""
    return DialectA(port, password, zone, timeout_s, clock)


class DialectA:
    """See `agent.core.dock.CameraLink`."""

    def __init__(
        self, port: Port, password: str, zone: ZoneInfo, timeout_s: float, clock: Clock
    ) -> None:
        self._port = port
        self._password = password
        self._zone = zone
        self._timeout_s = timeout_s
        self._clock = clock
        self._login = ""  # what it answered to ours

    def identify(self) -> Identity:
        """See `CameraLink.identify`; asked until two answers are the same."""
        serial, officer = [*self._twice("Gdv").split(","), ""][:2]
        return Identity(serial.strip(), officer=officer.strip())

    def read_clock(self) -> ClockReading:
        """See `CameraLink.read_clock`."""
        raise self._unknown("clock")

    def set_clock(self, utc_ns: int) -> None:
        """See `CameraLink.set_clock`."""
        moment = datetime.fromtimestamp(utc_ns / NS_PER_S, UTC).astimezone(self._zone)
        self._log_in()
        self._done("Sdt", f"{moment:%Y%m%d}")
        self._done("Stm", f"{moment:%H%M%S}")

    def battery(self) -> Battery:
        """See `CameraLink.battery`."""
        raise self._unknown("battery")

    def marks(self) -> Sequence[str]:
        """See `CameraLink.marks`."""
        raise self._unknown("marks")

    def configure(self, settings: Mapping[str, str]) -> None:
        """See `CameraLink.configure`."""
        raise self._unknown(f"settings {', '.join(settings)}")

    def enter_storage(self) -> None:
        """See `CameraLink.enter_storage`."""
        self._log_in()
        self._done("ATH", "")
        self.close()

    def close(self) -> None:
        """See `CameraLink.close`."""
        self._port.close()

    def probe(self, timeout_s: float) -> bool:
        """Whether whoever is there speaks this.

        By the login, as it has no other question; its answer counts, so none is tried twice.
        """
        try:
            self._login = self._told("Ver", self._padded, 1, timeout_s)
        except SourceLost:
            return False
        return self._login != ""

    @property
    def _padded(self) -> str:
        return self._password.rjust(PASSWORD_LETTERS, "0")

    def _log_in(self) -> None:
        self._login = self._login or self._told("Ver", self._padded)
        if self._login != OK:
            raise AuthRefused(f"camera {self._port.path}: does not take our password")

    def _twice(self, word: str) -> str:
        self._log_in()
        last = self._told(word, "")
        for _ in range(TRIES):
            answer = self._told(word, "")
            if answer == last == NO:
                raise self._refused(word)
            if answer == last:
                return answer
            last = answer
        raise SourceLost(f"camera {self._port.path}: {word}: never the same answer twice")

    def _done(self, word: str, payload: str) -> None:
        answer = self._told(word, payload)
        if answer == NO:
            raise self._refused(word)
        if answer != OK:
            raise SourceLost(f"camera {self._port.path}: {word}: {answer[:60]!r}")

    def _told(
        self, word: str, payload: str, tries: int = TRIES, timeout_s: float | None = None
    ) -> str:
        frame = f"@{word};{len(payload)};{payload};#".encode()
        heard = b""
        for _ in range(tries):
            self._port.send(frame)
            heard = self._port.until(deadline(self._clock, timeout_s or self._timeout_s), b"#")
            text = heard.strip(b"\0").decode("latin-1")
            if text.startswith(f"{word};") and text.endswith("#") and text.isprintable():
                return text[len(word) + 1 : -1].rstrip(";")
        what = "nothing" if not heard else repr(heard[:60])
        raise SourceLost(f"camera {self._port.path}: {word}: answers {what}")

    def _refused(self, word: str) -> Unsupported:
        self._login = ""  # it may have forgotten it: the next order logs in again
        return Unsupported(f"camera {self._port.path}: refuses {word}")

    def _unknown(self, what: str) -> Unsupported:
        return Unsupported(f"camera {self._port.path}: dialect a has no word for {what}")
