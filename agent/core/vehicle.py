"""What a vehicle's link and the flight role say to each other.

A link is one wire (serial, UDP, TCP) on which one or more MAVLink vehicles are heard. It records
every byte, hands on every whole message, and sends only what an observer may send.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Heard:
    """One whole message that passed its checksum, and its signature where the link has a key."""

    link: str  # name of the link in the configuration; empty: read from a file
    name: str  # as in the protocol's definition: HEARTBEAT, GLOBAL_POSITION_INT, …
    sysid: int  # who sent it: vehicle
    compid: int  # and which part of it
    said: Any  # its fields as attributes, named and scaled as in the protocol's definition
    utc_ns: int  # our clock when it came; of a tlog: the logger's
    mono_ns: int  # our monotonic clock when it came; of a tlog: `utc_ns`, never falling
    seq: int = -1  # its number, 0 to 255, counted by its sender; -1: not told


@dataclass(frozen=True, slots=True)
class LinkState:
    """How a link does; counts are since it was made."""

    is_open: bool
    detail: str = ""  # why it is not open, or what is odd about it; empty: all is well
    messages: int = 0
    lost: int = 0  # by gaps in the sequence numbers, over all senders
    bad_crc: int = 0
    bad_signature: int = 0
    junk_bytes: int = 0  # that belonged to no message
    unread: int = 0  # messages that nobody took in time; the tlog has them
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One finished piece of the raw log of a link."""

    path: str
    sha256: str
    size_bytes: int
    start_utc_ns: int
    end_utc_ns: int


class VehicleLink(Protocol):
    """One wire to vehicles; it runs on a thread of its own between `open` and `close`.

    Attributes:
        name: as configured.
    """

    name: str

    def open(self) -> None:
        """Begin; a wire that is not there is tried again for ever.

        Raises:
            DeviceBusy: another program holds the port.
            ConfigError: no such address.
        """
        ...

    def hear(self, timeout_s: float) -> Sequence[Heard]:
        """Take what came since the last call, oldest first; waits for the first."""
        ...

    def send(self, name: str, fields: Mapping[str, Any]) -> None:
        """Send one message to the vehicle.

        Args:
            name: as in the protocol's definition.
            fields: by name, all of them, as the definition scales them; byte arrays as bytes.

        Raises:
            Unsupported: not on the list of what an observer may send.
            SourceLost: the wire is not there now.
        """
        ...

    def rate_bytes_per_s(self) -> float | None:
        """Give what the wire can carry, where that is known (serial: by its baud rate)."""
        ...

    def state(self) -> LinkState:
        """Give how it does; at once, from any thread."""
        ...

    def recorded(self) -> Sequence[Recorded]:
        """Give the pieces of the raw log that were finished since the last call."""
        ...

    def cut(self) -> None:
        """Finish the piece of the raw log that is being written, so that it can be handed over."""
        ...

    def close(self) -> None:
        """End; any number of times."""
        ...
