"""What a driver of each kind of hardware promises; checked by one suite over all drivers."""

from collections.abc import Iterator
from typing import Protocol

from agent.core.model import Packet, StreamInfo


class Source(Protocol):
    """A camera or a file that gives encoded video packets."""

    def open(self) -> StreamInfo:
        """Connect, within the driver's own time limit.

        Raises:
            SourceLost: not reachable now; worth another try.
            AuthRefused: the credentials are turned down.
            Unsupported: reachable, but no video that we can take.
        """
        ...

    def packets(self) -> Iterator[Packet]:
        """Give packets in decoding order from a key frame on, pts and dts always set.

        `run` is empty (the recorder names it) and `utc_ns` the wall time of arrival. Ends
        after `close`, and for a file at its end.

        Raises:
            SourceLost: the stream ended or stalled.
        """
        ...

    def close(self) -> None:
        """Let go; from any thread, any number of times; `packets` ends within two seconds."""
        ...
