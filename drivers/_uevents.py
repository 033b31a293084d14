"""Events of the kernel: something was plugged, pulled, or has changed.

The kernel tells them in plain text over a netlink socket, to anyone who listens. That takes forty
lines; pyudev would bring libudev and ctypes for the same, and udevd's own events a binary header.
What is lost when the socket overflows is told, so that the listener looks for itself.
"""

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
LONGEST_BYTES = 16_384
BUFFER_BYTES = 1 << 20  # a hub of cameras plugged at once


@dataclass(frozen=True, slots=True)
class News:
    """What came since the last time."""

    events: tuple[Mapping[str, str], ...] = ()
    has_gaps: bool = False  # events were lost


class Uevents:
    """The kernel's events; one thread at a time.

    Raises:
        OSError: from `open`, where netlink is not allowed.
    """

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._buffer_bytes = buffer_bytes
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Begin to listen."""
        opened = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT
        )
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
            opened.bind((0, KERNEL_GROUP))
        except OSError:
            opened.close()
            raise
        self._socket = opened

    def news(self) -> News:
        """Give what came since the last call, without waiting."""
        if self._socket is None:
            return News(has_gaps=True)
        events: list[Mapping[str, str]] = []
        has_gaps = False
        while True:
            try:
                content, sender = self._socket.recvfrom(LONGEST_BYTES)
            except BlockingIOError:
                return News(tuple(events), has_gaps)
            except OSError:  # ENOBUFS: the kernel had more to say than we read
                has_gaps = True
                continue
            # Anyone with the right may send here too: only the kernel has the address 0.
            if sender[0] == 0 and (event := parse(content)):
                events.append(event)

    def close(self) -> None:
        """Stop listening; any number of times."""
        opened, self._socket = self._socket, None
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.close()


def parse(content: bytes) -> Mapping[str, str]:
    """Read `add@/devices/…`, NUL, `KEY=value`, NUL, …; empty if it is no event."""
    head, *rest = content.decode(errors="replace").split("\0")
    if "@" not in head:
        return {}
    pairs = (line.partition("=") for line in rest)
    return {key: value for key, separator, value in pairs if separator}
