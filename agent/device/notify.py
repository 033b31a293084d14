"""Messages to systemd (sd_notify), over its datagram socket and without its library.

Source: sd_notify(3) and systemd.exec(5), NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from agent.core import log

US_PER_S = 1_000_000
SEND_TIMEOUT_S = 1.0  # a full queue of systemd must not hold the agent up
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where to send; without an address every send does nothing."""

    address: str = ""  # a path, or an abstract name that begins with @
    watchdog_s: float | None = None  # silence after which systemd ends us; None: not watched

    def send(self, *assignments: str) -> bool:
        """Send lines such as `READY=1`; true if they went out. A failure is logged, not raised."""
        if not self.address:
            return False
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        text = "\n".join(line.replace("\n", " ") for line in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(SEND_TIMEOUT_S)
                sender.sendto(text.encode(), name)
        except OSError as error:
            _log.warning("systemd not told", text=text, reason=error)
            return False
        return True


def from_environment(environ: Mapping[str, str]) -> Notifier:
    """Read the variables that systemd sets; ones meant for another process count for nothing."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return Notifier()
    return Notifier(address, _watchdog_s(environ))


def without(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the environment for a child, which must not speak to systemd in our name."""
    return {name: value for name, value in environ.items() if name not in VARIABLES}


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    period = environ.get("WATCHDOG_USEC", "")
    if not period.isdecimal() or int(period) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(period) / US_PER_S
