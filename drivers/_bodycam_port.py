"""A serial line to a body camera: bytes out, bytes in until a moment, nothing for ever."""

import termios
from typing import Any, Final

from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import DeviceBusy, SourceLost

POLL_S = 0.05
MOST_BYTES = 16 * 1024  # of an answer: what is longer is none
BUSY = "exclusively lock"
GONE: Final = (OSError, ValueError, TypeError, termios.error)  # what a line that is gone raises


class Port:
    """An open serial line, used by one thread."""

    def __init__(self, path: str, baud: int, clock: Clock) -> None:
        """Open it for us alone.

        Raises:
            SourceLost: it is not there or cannot be opened.
            DeviceBusy: somebody else has it open.
        """
        import serial  # noqa: PLC0415 - only docks that speak to cameras need it

        self._path = path
        self._clock = clock
        try:
            self._serial: Any = serial.Serial(
                path, baud, timeout=POLL_S, write_timeout=1.0, exclusive=True
            )
        except (OSError, ValueError) as error:
            if BUSY in str(error):
                raise DeviceBusy(f"camera {path}: somebody else speaks to it") from error
            raise SourceLost(f"camera {path}: {error}") from error

    @property
    def path(self) -> str:
        """Where it is, for messages."""
        return self._path

    def send(self, content: bytes) -> None:
        """Send an order; what had come before it is no answer to it. SourceLost if it is gone."""
        try:
            self._serial.reset_input_buffer()
            self._serial.write(content)
            self._serial.flush()
        except GONE as error:
            raise self._lost(error) from error

    def until(self, deadline_ns: int, enough: bytes | int) -> bytes:
        """Read up to a mark, or so many bytes; what has come by then if it is less.

        Args:
            deadline_ns: monotonic instant.
            enough: the mark that ends an answer, or an answer's size.

        Raises:
            SourceLost: the line is gone.
        """
        found = b""
        while self._clock.mono_ns() < deadline_ns and len(found) < MOST_BYTES:
            if isinstance(enough, int) and len(found) >= enough:
                break
            try:
                found += self._serial.read(1)
                if found and (waiting := self._serial.in_waiting):
                    wanted = waiting if isinstance(enough, bytes) else enough - len(found)
                    found += self._take(wanted, enough, found)
            except GONE as error:
                raise self._lost(error) from error
            if isinstance(enough, bytes) and enough in found:
                break
        return found

    def _take(self, wanted: int, enough: bytes | int, found: bytes) -> bytes:
        """Read what is there, up to a mark: what comes after it is the next answer."""
        if isinstance(enough, int):
            return bytes(self._serial.read(min(wanted, self._serial.in_waiting)))
        more = b""
        while len(more) < wanted and enough not in found + more:
            more += self._serial.read(1)
        return more

    def close(self) -> None:
        """Let go; any number of times."""
        self._serial.close()

    def _lost(self, error: Exception) -> SourceLost:
        return SourceLost(f"camera {self._path}: {error}")


def deadline(clock: Clock, seconds: float) -> int:
    """Give the instant so many seconds from now."""
    return clock.mono_ns() + round(seconds * NS_PER_S)
