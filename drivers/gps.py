"""A satellite receiver on a serial port: true time, and where the box is.

Time counts once three sentences in a row agree with the monotonic clock; after a leap it has to
agree anew. A sentence comes some tenths of a second after the time it names: that is told as the
error. What is not a good sentence is counted and passed over.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.config import Doc, Range
from agent.core.errors import SourceLost
from drivers import _nmea

READ_BYTES = 512
TIMEOUT_S = 0.5
LINE_BYTES = 256  # without an end of line it is none
AGREE_NS = NS_PER_S // 2
AGREEMENTS = 3
PLACE_GOOD_FOR_NS = 3 * NS_PER_S

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a satellite receiver."""

    port: Annotated[str, Doc("Serial port; /dev/serial/by-id/… stays the same")]
    baud: Annotated[int, Doc("Bits a second"), Range(1200, 921_600)] = 9600


@dataclass(frozen=True, slots=True)
class Fix:
    """What the receiver said last, and when it came."""

    utc_ns: int
    mono_ns: int
    position: Mapping[str, object] | None


def build(config: Config, clock: Clock) -> "Gps":
    """Give the receiver; nothing is opened yet."""
    return Gps(config, clock)


class Gps:
    """Worker that listens to the receiver; `latest` is safe from any thread.

    Raises:
        SourceLost: there is no such port, or it has gone; `run` may be called again.
    """

    name = "gps"

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._latest: Fix | None = None
        self._place: tuple[int, _nmea.Place] | None = None
        self._offset_ns: int | None = None
        self._agreed = 0
        self._buffer = b""
        self.good = 0  # sentences
        self.bad = 0

    def latest(self) -> Fix | None:
        """Give the last time that can be relied on."""
        return self._latest

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Listen until `stop`."""
        import serial  # noqa: PLC0415 - only boxes with a receiver need it

        where = f"gps {self._config.port}"
        try:
            with serial.Serial(
                self._config.port, self._config.baud, timeout=TIMEOUT_S, exclusive=True
            ) as port:
                _log.info("listening", port=self._config.port, baud=self._config.baud)
                while not stop.is_set():
                    self.feed(_some(port))
                    progress()
        except (OSError, ValueError, TypeError) as error:  # pyserial's own is an OSError
            raise SourceLost(f"{where}: {error}") from error
        finally:
            self._forget()

    def feed(self, content: bytes) -> None:
        """Take bytes as they come off the port."""
        *lines, self._buffer = (self._buffer + content).split(b"\n")
        for line in lines:
            self._take(line[max(0, line.rfind(b"$")) :].rstrip(b"\r"))
        if len(self._buffer) > LINE_BYTES:
            self._buffer = b""
            self.bad += 1

    def _take(self, line: bytes) -> None:
        if not line:
            return
        said = _nmea.read(line)
        self.bad += said is False
        self.good += said is not False
        now_ns = self._clock.mono_ns()
        if isinstance(said, _nmea.Place):
            self._place = (now_ns, said)
        elif isinstance(said, _nmea.Moment):
            self._tell(said, now_ns)

    def _tell(self, moment: _nmea.Moment, now_ns: int) -> None:
        place = self._place
        if place is not None and now_ns - place[0] > PLACE_GOOD_FOR_NS:
            place = None
        has_fix = moment.is_valid
        if has_fix is None:  # ZDA goes on with the receiver's own clock when no satellite is seen
            has_fix = place is not None and place[1].quality > 0
        if not has_fix:
            self._forget()
            return
        offset_ns = moment.utc_ns - now_ns
        does_agree = self._offset_ns is not None and abs(offset_ns - self._offset_ns) <= AGREE_NS
        if self._offset_ns is not None and not does_agree:
            _log.warning("satellite time leapt", by_s=(offset_ns - self._offset_ns) / NS_PER_S)
            self._latest = None
        self._offset_ns = offset_ns
        self._agreed = self._agreed + 1 if does_agree else 1
        if self._agreed >= AGREEMENTS:
            position = None if place is None else _position(place[1], moment)
            self._latest = Fix(moment.utc_ns, now_ns, position)

    def _forget(self) -> None:
        self._latest = self._place = self._offset_ns = None
        self._agreed = 0


def _some(port: Any) -> bytes:
    """Read what there is, at least a byte unless nothing comes in time."""
    waiting = min(port.in_waiting, READ_BYTES)
    content: bytes = port.read(max(1, waiting))
    return content


def _position(place: _nmea.Place, moment: _nmea.Moment) -> Mapping[str, object] | None:
    """Give the body of a position message, or None without a fix."""
    if not place.quality or place.lat_deg is None or place.lon_deg is None:
        return None
    return {
        "lat_deg": round(place.lat_deg, 7),
        "lon_deg": round(place.lon_deg, 7),
        "altitude_m": place.altitude_m,
        "quality": place.quality,
        "satellites": place.satellites,
        "hdop": place.hdop,
        "fix_utc_ms": moment.utc_ns // NS_PER_MS,
    }
