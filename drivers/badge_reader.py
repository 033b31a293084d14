"""A reader of badges: a line of text on a serial port, or a keyboard that nobody types on.

Readers of the second kind (HID) are Linux input devices: each key is an event of 24 bytes
(`struct input_event` of linux/input.h), Enter ends a badge. The device is taken for us alone, so
that a badge is not typed into anything else.
"""

import fcntl
import os
import select
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from agent.core import log
from agent.core.clock import Clock
from agent.core.config import Doc, Range
from agent.core.errors import SourceLost

POLL_S = 0.2
MOST_LETTERS = 64
READ_BYTES = 4096
EVENT: Final = struct.Struct("@llHHi")
KEY, DOWN, ENTER, KEYPAD_ENTER = 1, 1, 28, 96
GRAB = 0x40044590  # EVIOCGRAB
KEYS: Final = {
    **{2 + number: str((number + 1) % 10) for number in range(10)},
    **dict(zip(range(16, 26), "qwertyuiop", strict=True)),
    **dict(zip(range(30, 39), "asdfghjkl", strict=True)),
    **dict(zip(range(44, 51), "zxcvbnm", strict=True)),
    **dict(zip((71, 72, 73, 75, 76, 77, 79, 80, 81, 82), "7894561230", strict=True)),
    12: "-",
}

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """A reader of badges."""

    port: Annotated[Path, Doc("Serial port, or input device below /dev/input/by-id")]
    form: Annotated[Literal["serial", "hid"], Doc("serial: lines of text; hid: a keyboard")] = (
        "serial"
    )
    baud: Annotated[int, Doc("Speed of a serial port, in bit/s"), Range(300, 4_000_000)] = 9600


def build(config: Config, clock: Clock) -> "BadgeReader":
    """Give the reader; nothing is opened yet."""
    return BadgeReader(config, clock)


class BadgeReader:
    """Worker that tells each badge to whoever listens."""

    name = "badges"

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._hear: Callable[[str], object] = lambda _: None

    def listen(self, hear: Callable[[str], object]) -> None:
        """Have badges told to `hear`, in this worker's thread."""
        self._hear = hear

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Read until `stop`; SourceLost if the reader is not there."""
        feed = _Keys() if self._config.form == "hid" else _Lines()
        descriptor = self._open()
        try:
            _log.info("badge reader", port=self._config.port, form=self._config.form)
            while not stop.is_set():
                progress()
                if not select.select([descriptor], [], [], POLL_S)[0]:
                    continue
                content = os.read(descriptor, READ_BYTES)
                if not content:
                    raise SourceLost(f"badge reader {self._config.port}: gone")
                for badge in feed.take(content):
                    self._hear(badge)
        except OSError as error:
            raise SourceLost(f"badge reader {self._config.port}: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            descriptor = os.open(
                self._config.port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError as error:
            raise SourceLost(f"badge reader {self._config.port}: {error.strerror}") from error
        if self._config.form == "hid":
            self._grab(descriptor)
        else:
            _set_up(descriptor, self._config.baud)
        return descriptor

    def _grab(self, descriptor: int) -> None:
        try:
            fcntl.ioctl(descriptor, GRAB, 1)
        except OSError as error:
            _log.warning("badge reader is not ours alone", reason=error.strerror)


class _Lines:
    """Badges that come as lines."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, content: bytes) -> list[str]:
        *lines, self._rest = (self._rest + content.replace(b"\r", b"\n")).split(b"\n")
        self._rest = self._rest[-MOST_LETTERS:]
        return [badge for line in lines if (badge := _clean(line.decode("ascii", "replace")))]


class _Keys:
    """Badges that are typed."""

    def __init__(self) -> None:
        self._rest = b""
        self._typed = ""

    def take(self, content: bytes) -> list[str]:
        content = self._rest + content
        whole = len(content) - len(content) % EVENT.size
        self._rest = content[whole:]
        found = []
        for _, _, kind, code, value in EVENT.iter_unpack(content[:whole]):
            if kind != KEY or value != DOWN:
                continue
            if code in (ENTER, KEYPAD_ENTER):
                found.append(_clean(self._typed))
                self._typed = ""
            else:
                self._typed = (self._typed + KEYS.get(code, ""))[-MOST_LETTERS:]
        return [badge for badge in found if badge]


def _clean(text: str) -> str:
    """Give what a badge says: letters, digits, dashes; readers frame it with control characters."""
    return "".join(one for one in text if one.isascii() and (one.isalnum() or one in "-_"))[
        :MOST_LETTERS
    ]


def _set_up(descriptor: int, baud: int) -> None:
    """Set a serial port's speed; what is no terminal stays as it is."""
    if not os.isatty(descriptor):
        return
    import termios  # noqa: PLC0415 - only for terminals
    import tty  # noqa: PLC0415

    tty.setraw(descriptor)
    settings = termios.tcgetattr(descriptor)
    speed = getattr(termios, f"B{baud}", None)
    if speed is not None:
        settings[4] = settings[5] = speed
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
