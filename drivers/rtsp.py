"""An RTSP camera over TCP.

Loss on TCP shows as delay, not damage. Silver: contract suite passes, reconnects, logs once.
libavformat reports a stall only after twice its read timeout, and not at all on some servers,
so packets are read on a thread of its own and watched from here.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit, urlunsplit

import av
import av.error
import av.logging

from agent.core import log
from agent.core.clock import Clock
from agent.core.config import Doc, Range, ReadableFile
from agent.core.errors import AgentError, AuthRefused, ConfigError, SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from drivers import _demux

ANALYZE_US = "100000"  # the SDP says size and codec; the default would wait 1.9 s
QUEUE_PACKETS = 256
"""Packets read but not yet taken; a camera is never made to wait for us unseen."""
POLL_S = 0.25
JOIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a camera that speaks RTSP."""

    url: Annotated[str, Doc("rtsp:// or rtsps:// address without user and password")]
    user: Annotated[str, Doc("User name at the camera")] = ""
    password_path: Annotated[
        Path | None, Doc("File whose first line is the password"), ReadableFile()
    ] = None
    open_timeout_s: Annotated[float, Doc("Longest wait for the connection"), Range(1, 60)] = 10.0
    stall_s: Annotated[
        float, Doc("Silence after which the stream counts as lost"), Range(1, 60)
    ] = 4.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_good = parts.scheme in ("rtsp", "rtsps") and bool(parts.hostname)
            is_good = is_good and (parts.port is None or parts.port > 0)
        except ValueError:
            raise ConfigError(f"url: {log.redact(self.url)!r}; allowed: rtsp://host/…") from None
        if parts.username is not None or parts.password is not None:
            raise ConfigError("url: holds a user or password; allowed: user and password_path")
        if not is_good:
            raise ConfigError(f"url: {self.url!r}; allowed: rtsp://host[:port]/path")


def build(config: Config, clock: Clock) -> "RtspSource":
    """Make the source; nothing is opened yet."""
    return RtspSource(config, clock)


class RtspSource:
    """Gives the packets of an RTSP stream."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._container: av.container.InputContainer | None = None
        self._info: StreamInfo | None = None
        self._closed = threading.Event()

    def open(self) -> StreamInfo:
        """See `Source.open`."""
        self._closed.clear()
        av.logging.set_level(None)  # libav would print the address, password included
        container = self._connect()
        try:
            self._info = _demux.info_of(_demux.video_of(container, self._config.url))
        except AgentError:
            container.close()
            raise
        self._container = container
        return self._info

    def packets(self) -> Iterator[Packet]:
        """See `Source.packets`."""
        container, info = self._container, self._info
        if container is None or info is None:
            raise SourceLost(f"{self._config.url}: not open")
        reader = _Reader(container, info, self._clock, self._closed)
        reader.start()
        try:
            yield from self._watched(reader)
        finally:
            self._closed.set()
            self._container = None
            reader.end()

    def close(self) -> None:
        """See `Source.close`; the container is closed by the thread that reads it."""
        self._closed.set()

    def _watched(self, reader: "_Reader") -> Iterator[Packet]:
        silent_s = 0.0
        while not self._closed.is_set():
            try:
                item = reader.packets.get(timeout=POLL_S)
            except queue.Empty:
                silent_s += POLL_S
                if silent_s >= self._config.stall_s:
                    raise SourceLost(
                        f"{self._config.url}: no packet for {silent_s:.1f} s"
                    ) from None
                continue
            if isinstance(item, str):
                if self._closed.is_set():
                    return
                raise SourceLost(f"{self._config.url}: {item}")
            silent_s = 0.0
            yield item

    def _connect(self) -> av.container.InputContainer:
        url = self._config.url
        timeout_s = (self._config.open_timeout_s, max(1.0, self._config.stall_s / 2))
        options = {"rtsp_transport": "tcp", "analyzeduration": ANALYZE_US}
        try:
            return av.open(self._address(), options=options, timeout=timeout_s)
        except (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError):
            raise AuthRefused(
                f"{url}: user {self._config.user!r} turned down; allowed: the camera's own user"
                " and the password in password_path"
            ) from None
        except (av.error.HTTPNotFoundError, av.error.HTTPBadRequestError):
            raise Unsupported(f"{url}: the camera has no such path") from None
        except (av.error.FFmpegError, OSError) as error:
            raise SourceLost(f"{url}: {error.strerror or type(error).__name__}") from None

    def _address(self) -> str:
        if not self._config.user:
            return self._config.url
        parts = urlsplit(self._config.url)
        login = f"{quote(self._config.user, safe='')}:{quote(self._password(), safe='')}"
        return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))

    def _password(self) -> str:
        if self._config.password_path is None:
            return ""
        try:
            return self._config.password_path.read_text().splitlines()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            raise AuthRefused(
                f"{self._config.password_path}: no password; allowed: a text file of one line"
            ) from None


class _Reader:
    """Reads a container on its own thread, and closes it there."""

    def __init__(
        self,
        container: av.container.InputContainer,
        info: StreamInfo,
        clock: Clock,
        closed: threading.Event,
    ) -> None:
        self.packets: queue.Queue[Packet | str] = queue.Queue(QUEUE_PACKETS)
        self._container = container
        self._info = info
        self._clock = clock
        self._closed = closed
        self._thread = threading.Thread(target=self._read, name="rtsp", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def end(self) -> None:
        """Wait a little for the thread, which ends at its next packet or timeout."""
        self._thread.join(JOIN_S)

    def _read(self) -> None:
        reason = "the camera ended the stream"
        try:
            stream = self._container.streams.video[0]
            found = self._container.demux(stream)
            for packet in _demux.packets_of(found, self._info, self._clock, is_live=True):
                if not self._put(packet):
                    return
        except (av.error.FFmpegError, OSError) as error:
            reason = error.strerror or type(error).__name__
        finally:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.close()
        self._put(reason)

    def _put(self, item: Packet | str) -> bool:
        while not self._closed.is_set():
            try:
                self.packets.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False
