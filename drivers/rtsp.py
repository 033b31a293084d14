"""An RTSP camera over TCP or UDP.

Loss on TCP shows as delay, not damage: UDP is for cameras that know nothing else. libavformat
reports a stall only after twice its read timeout, and not at all on some servers, so packets are
read on a thread of its own and watched from here. It would follow a camera anywhere, so that is
asked first (`_redirect`).
"""

import contextlib
import errno
import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import av
import av.error
import av.logging

from agent.core import log
from agent.core.clock import Clock
from agent.core.config import Doc, Range, ReadableFile
from agent.core.errors import AgentError, AuthRefused, ConfigError, SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from drivers import _demux, _redirect
from drivers._login import Login
from drivers._opening import Opened, Opening

ANALYZE_US = "100000"  # the SDP says size and codec; the default would wait 1.9 s
QUEUE_PACKETS = 256
"""Packets read but not yet taken; a camera is never made to wait for us unseen."""
POLL_S = 0.25
JOIN_S = 1.5
AGAIN_S = 0.5
_SECRET = re.compile(r"pass|pwd|token|secret|auth", re.IGNORECASE)
PLACEHOLDER = "{password}"
"""Stands in a url's query where a camera wants its password there."""
MAX_SIDE_PX = 8192
MAX_OTHER_CODEC = 30
"""Packets in a row that are none of the codec that the camera announced."""
_WRONG_TRANSPORT = frozenset({errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


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
    transport: Annotated[
        Literal["tcp", "udp", "auto"],
        Doc("How packets come; auto tries tcp, then udp if the camera turns tcp down"),
    ] = "tcp"

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_good = parts.scheme in ("rtsp", "rtsps") and bool(parts.hostname)
            is_good = is_good and (parts.port is None or parts.port > 0)
            is_good = is_good and self.url.isprintable() and " " not in self.url
        except ValueError:
            raise ConfigError(f"url: {log.redact(self.url)!r}; allowed: rtsp://host/…") from None
        if parts.username is not None or parts.password is not None:
            raise ConfigError("url: holds a user or password; allowed: user and password_path")
        if not is_good:
            raise ConfigError(f"url: {self.url!r}; allowed: rtsp://host[:port]/path")
        asked = parse_qs(parts.query, keep_blank_values=True)
        if PLACEHOLDER in self.url and self.password_path is None:
            raise ConfigError(f"url: {PLACEHOLDER} without password_path; allowed: both")
        secrets = (key for key in asked if _SECRET.search(key) and asked[key] != [PLACEHOLDER])
        if secret := next(secrets, None):
            raise ConfigError(
                f"url: its query holds a secret ({secret}=…), which messages would show;"
                f" allowed: user and password_path, or {secret}={PLACEHOLDER}"
            )


def build(config: Config, clock: Clock) -> "RtspSource":
    """Make the source; nothing is opened yet."""
    return RtspSource(config, clock)


class RtspSource:
    """Gives the packets of an RTSP stream."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._container: av.container.InputContainer | None = None  # open, and not yet read
        self._info: StreamInfo | None = None
        self._closed = threading.Event()
        self._is_asked = False

    def open(self) -> StreamInfo:
        """See `Source.open`; `close` from another thread ends it."""
        self.close()
        closed = threading.Event()  # a new one: what still ends from before must not come alive
        with self._lock:
            self._closed = closed
        av.logging.set_level(None)  # libav would print the address, password included
        found = Opening(self._connect, self._config.url).wait(closed, self._config.open_timeout_s)
        if isinstance(found, AgentError):
            raise found
        try:
            info = replace(
                _demux.info_of(_demux.video_of(found, self._config.url)),
                transport=found.options["rtsp_transport"],
            )
            _check_size(info, self._config.url)
        except AgentError:
            found.close()
            raise
        with self._lock:
            self._container, self._info = found, info
        return info

    def packets(self) -> Iterator[Packet]:
        """See `Source.packets`."""
        container, info, closed = self._take_container(), self._info, self._closed
        if container is None or info is None:
            raise SourceLost(f"{self._config.url}: not open")
        reader = _Reader(container, self._config.url, info, self._clock, closed)
        reader.start()
        try:
            yield from self._watched(reader, closed)
        finally:
            closed.set()
            reader.end()

    def close(self) -> None:
        """See `Source.close`; a container in use is closed by the thread that reads it."""
        self._closed.set()
        container = self._take_container()
        if container is not None:
            container.close()

    def _take_container(self) -> "av.container.InputContainer | None":
        with self._lock:
            container, self._container = self._container, None
        return container

    def _watched(self, reader: "_Reader", closed: threading.Event) -> Iterator[Packet]:
        silent_s = 0.0
        while not closed.is_set():
            try:
                item = reader.packets.get(timeout=POLL_S)
            except queue.Empty:
                silent_s += POLL_S
                if silent_s >= self._config.stall_s:
                    raise SourceLost(
                        f"{self._config.url}: no packet for {silent_s:.1f} s"
                    ) from None
                continue
            if isinstance(item, AgentError):
                if closed.is_set():
                    return
                raise item
            silent_s = 0.0
            yield item

    def _connect(self) -> Opened:
        if self._is_asked:
            return self._connect_as_configured()
        try:
            login = Login(self._config.user, self._password() if self._config.user else "")
            _redirect.refuse(self._config.url, self._path(), login, self._config.open_timeout_s)
        except (AuthRefused, SourceLost) as error:
            return error
        self._is_asked = True
        found = self._connect_as_configured()
        if not isinstance(found, _ServerError) or self._closed.wait(AGAIN_S):
            return found
        return self._connect_as_configured()  # it was still putting away what our question began

    def _connect_as_configured(self) -> Opened:
        if self._config.transport != "auto":
            return self._connect_by(self._config.transport)
        found = self._connect_by("tcp")
        return self._connect_by("udp") if isinstance(found, _TransportRefused) else found

    def _connect_by(self, transport: str) -> Opened:
        timeout_s = (self._config.open_timeout_s, max(1.0, self._config.stall_s / 2))
        options = {"rtsp_transport": transport, "analyzeduration": ANALYZE_US}
        # libav's errors hold the address with the password: ours are made here and raised
        # elsewhere, so that not even their context leads there.
        try:
            return av.open(self._address(), options=options, timeout=timeout_s)
        except AuthRefused as error:
            return error
        except (av.error.FFmpegError, OSError) as error:
            return self._refusal(error, transport)

    def _refusal(self, error: av.error.FFmpegError | OSError, transport: str) -> AgentError:
        """Say what a failed opening means."""
        url = self._config.url
        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return AuthRefused(
                f"{url}: user {self._config.user!r} turned down; allowed: the camera's own user"
                " and the password in password_path"
            )
        if isinstance(error, av.error.HTTPNotFoundError | av.error.HTTPBadRequestError):
            # Lost, not Unsupported: a starting camera says so too until its encoder runs, and a
            # recorder that gave up for good there would lose footage.
            return SourceLost(f"{url}: the camera has no such path")
        if isinstance(error, av.error.HTTPServerError):
            return _ServerError(f"{url}: the camera answers with an error of its own")
        if error.errno in _WRONG_TRANSPORT:
            return _TransportRefused(
                f"{url}: the camera does not send by {transport}; allowed: transport ="
                ' "auto", or the one it has'
            )
        return SourceLost(f"{url}: {error.strerror or type(error).__name__}")

    def _path(self) -> str:
        parts = urlsplit(self._config.url)
        path = urlunsplit(("", "", parts.path, parts.query, ""))
        if PLACEHOLDER in path:
            path = path.replace(PLACEHOLDER, quote(self._password(), safe=""))
        return path

    def _address(self) -> str:
        parts = urlsplit(self._config.url)
        login = ""
        if self._config.user:
            login = f"{quote(self._config.user, safe='')}:{quote(self._password(), safe='')}@"
        return f"{parts.scheme}://{login}{parts.netloc}{self._path()}"

    def _password(self) -> str:
        if self._config.password_path is None:
            return ""
        try:
            return self._config.password_path.read_text().splitlines()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            raise AuthRefused(
                f"{self._config.password_path}: no password; allowed: a text file of one line"
            ) from None


class _ServerError(SourceLost):
    """The camera answers that it cannot at present."""


class _TransportRefused(SourceLost):
    """The camera answers, but has another transport."""


def _check_size(info: StreamInfo, url: str) -> None:
    sides = (info.width_px, info.height_px)
    if max(sides) > MAX_SIDE_PX:
        raise Unsupported(
            f"{url}: pictures of {sides[0]}x{sides[1]}; allowed: {MAX_SIDE_PX}x{MAX_SIDE_PX}"
        )
    if min(sides) <= 0:
        # Lost, not Unsupported: so does a good camera whose first packets were damaged.
        raise SourceLost(
            f"{url}: pictures of {sides[0]}x{sides[1]}; allowed: 1x1 to {MAX_SIDE_PX}x{MAX_SIDE_PX}"
        )


class _Reader:
    """Reads a container on its own thread, and closes it there."""

    def __init__(
        self,
        container: av.container.InputContainer,
        url: str,
        info: StreamInfo,
        clock: Clock,
        closed: threading.Event,
    ) -> None:
        self.packets: queue.Queue[Packet | AgentError] = queue.Queue(QUEUE_PACKETS)
        self._container = container
        self._url = url
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
        try:
            end = self._read_on()
        finally:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.close()
        self._put(end)

    def _read_on(self) -> AgentError:
        try:
            stream = self._container.streams.video[0]
            found = self._container.demux(stream)
            strange = 0
            for packet in _demux.packets_of(found, self._info, self._clock, self._url):
                is_strange = _demux.is_of_other_codec(self._info.codec, packet.payload)
                strange = strange + 1 if is_strange else 0
                if strange >= MAX_OTHER_CODEC:
                    return SourceLost(f"{self._url}: it sends no {self._info.codec} any more")
                if not self._put(packet):
                    break
        except av.error.ExitError:  # libav's own limit, which comes before ours over UDP
            return SourceLost(f"{self._url}: no packet for a while")
        except (av.error.FFmpegError, OSError) as error:
            return SourceLost(f"{self._url}: {error.strerror or type(error).__name__}")
        except Unsupported as error:
            return error
        return SourceLost(f"{self._url}: the camera ended the stream")

    def _put(self, item: Packet | AgentError) -> bool:
        while not self._closed.is_set():
            try:
                self.packets.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False
