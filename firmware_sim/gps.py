"""A satellite receiver behind a real pseudo-terminal: good, blind, garbled, leaping, unplugged.

`port` is a link that points at the terminal while it is plugged in. Sentences come every
`period_s` with the machine's own time, so that a listener can be compared with it.
"""

import os
import pty
import threading
import time
import tty
from datetime import UTC, datetime
from pathlib import Path

MODES = ("good", "no fix", "garbage", "wrong checksum", "silent")
LAT, LON = "4717.11260,N", "00833.91402,E"
NOISE = b"\xb5\x62\x01\x07$GPRMC,99\xff\x00*ZZ\r\n$$$GPGGA,,,*\r\n\x00\x80" + b"U" * 400


class GpsSim:
    """One receiver; `mode` and `leap_s` may be changed while it runs."""

    def __init__(self, port: Path, period_s: float = 0.05) -> None:
        self.port = port
        self.mode = "good"
        self.leap_s = 0.0
        self._period_s = period_s
        self._master: int | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.plug()
        self._thread.start()

    def plug(self) -> None:
        """Put the cable in: the port is there."""
        master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        self.port.symlink_to(os.ttyname(slave))
        os.close(slave)
        with self._lock:
            self._master = master

    def unplug(self) -> None:
        """Pull the cable: the port is gone, and whoever has it open is told."""
        with self._lock:
            master, self._master = self._master, None
        if master is not None:
            os.close(master)
            self.port.unlink()

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()
        self.unplug()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            content = self._content(time.time() + self.leap_s)
            with self._lock:
                if self._master is None:
                    continue
                try:
                    os.write(self._master, content)
                except OSError:  # nobody reads: it does not wait, as a real one would not
                    continue

    def _content(self, utc_s: float) -> bytes:
        if self.mode == "silent":
            return b""
        if self.mode == "garbage":
            return NOISE
        lines = sentences(utc_s, has_fix=self.mode != "no fix")
        if self.mode == "wrong checksum":
            lines = [line[:-2] + f"{int(line[-2:], 16) ^ 1:02X}" for line in lines]
        return "".join(f"{line}\r\n" for line in lines).encode()


def sentences(utc_s: float, *, has_fix: bool = True) -> list[str]:
    """Give what a receiver says in one go."""
    now = datetime.fromtimestamp(utc_s, UTC)
    clock = f"{now:%H%M%S}.{now.microsecond // 1000:03d}"
    place = f"{LAT},{LON}" if has_fix else ",,,"
    gga = f"{clock},{place},1,08,1.01,499.6,M,48.0,M,," if has_fix else f"{clock},,,,,0,00,,,M,,M,,"
    return [
        sentence(f"GPGGA,{gga}"),
        sentence(f"GPRMC,{clock},{'A' if has_fix else 'V'},{place},0.004,77.52,{now:%d%m%y},,,A"),
        sentence(f"GPZDA,{clock},{now:%d,%m,%Y},00,00"),
        sentence("GPGSV,1,1,00"),
    ]


def sentence(body: str) -> str:
    """Put a body between its mark and its checksum."""
    checksum = 0
    for byte in body.encode():
        checksum ^= byte
    return f"${body}*{checksum:02X}"
