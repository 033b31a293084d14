"""Serves the figures on a local port to whoever scrapes them: one thread, nobody can hold it up.

So little of HTTP is needed (one GET, one answer, the end) that a library would only add weight.
A client has `PATIENCE_S` for all of it, and when there are too many the oldest one goes.
"""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.config import Doc, Range
from agent.core.errors import ConfigError, DeviceBusy, StorageError

PATIENCE_S = 2.0
MOST_CLIENTS = 8
BACKLOG = 128  # who the kernel keeps waiting for us
MOST_REQUEST_BYTES = 4096
FRESH_S = 1.0  # younger figures are given again: a flood of questions costs the database nothing
LOOK_S = 0.5
PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Figures for Prometheus, on a port of this box; off unless asked for."""

    enabled: Annotated[bool, Doc("Serve http://<bind>:<port>/metrics.")] = False
    bind: Annotated[
        str, Doc("Address to listen on. Whoever reaches it reads the figures: no login, no TLS.")
    ] = "127.0.0.1"
    port: Annotated[int, Doc("TCP port."), Range(1, 65_535)] = 9477

    def __post_init__(self) -> None:
        if _family(self.bind) is None:
            raise ConfigError(f"bind: {self.bind!r}; allowed: an IPv4 or IPv6 address")


@dataclass(slots=True)
class _Client:
    socket: socket.socket
    until_ns: int
    heard: bytes = b""
    answer: memoryview = field(default_factory=lambda: memoryview(b""))


class Scrape:
    """Worker that answers GET /metrics with what `render` gives.

    Raises:
        DeviceBusy: the port is taken; `run` may be called again.
    """

    name = "metrics"

    def __init__(self, config: MetricsConfig, render: Callable[[], str], clock: Clock) -> None:
        self._config = config
        self._render = render
        self._clock = clock
        self._clients: dict[int, _Client] = {}  # by descriptor, the oldest first
        self._text = b""
        self._text_ns: int | None = None

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """See `Worker.run`."""
        with self._listening() as listener, selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            try:
                while not stop.is_set():
                    for key, _ in selector.select(LOOK_S):
                        if key.data is None:
                            self._welcome(listener, selector)
                        else:
                            self._serve(key.data, selector)
                    self._dismiss_late(selector)
                    progress()
            finally:
                for client in tuple(self._clients.values()):
                    self._dismiss(client, selector)

    def _listening(self) -> socket.socket:
        bind, port = self._config.bind, self._config.port
        listener = socket.socket(_family(bind) or socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((bind, port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise DeviceBusy(f"metrics: {bind} port {port}: {error.strerror}") from error
        listener.setblocking(False)
        _log.info("figures are served", address=f"http://{bind}:{port}{PATH}")
        return listener

    def _welcome(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            accepted, _ = listener.accept()
        except OSError:  # gone again, or no descriptor left: the others go on
            return
        if len(self._clients) >= MOST_CLIENTS:
            self._dismiss(next(iter(self._clients.values())), selector)
        accepted.setblocking(False)
        client = _Client(accepted, self._clock.mono_ns() + int(PATIENCE_S * NS_PER_S))
        self._clients[accepted.fileno()] = client
        selector.register(accepted, selectors.EVENT_READ, client)

    def _serve(self, client: _Client, selector: selectors.BaseSelector) -> None:
        if client.socket.fileno() < 0:  # dismissed in this very turn
            return
        try:
            is_over = self._write(client) if client.answer else self._read(client)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            is_over = True
        if is_over:
            self._dismiss(client, selector)
        elif client.answer:
            selector.modify(client.socket, selectors.EVENT_WRITE, client)

    def _read(self, client: _Client) -> bool:
        heard = client.socket.recv(MOST_REQUEST_BYTES)
        client.heard += heard
        if b"\r\n\r\n" in client.heard or b"\n\n" in client.heard:
            client.answer = memoryview(self._answer(client.heard))
            return self._write(client)
        return not heard or len(client.heard) >= MOST_REQUEST_BYTES

    def _write(self, client: _Client) -> bool:
        client.answer = client.answer[client.socket.send(client.answer) :]
        return not client.answer

    def _dismiss_late(self, selector: selectors.BaseSelector) -> None:
        now_ns = self._clock.mono_ns()
        for client in [each for each in self._clients.values() if each.until_ns <= now_ns]:
            self._dismiss(client, selector)

    def _dismiss(self, client: _Client, selector: selectors.BaseSelector) -> None:
        selector.unregister(client.socket)
        del self._clients[client.socket.fileno()]
        with suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)
        client.socket.close()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.split(None, 1)[0] if rest.split() else b""
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"allowed: GET, HEAD\n")
        if path.partition(b"?")[0] != PATH.encode():
            return _response("404 Not Found", f"allowed: {PATH}\n".encode())
        try:
            body = self._figures()
        except StorageError as error:
            return _response("503 Service Unavailable", f"{error}\n".encode(errors="replace"))
        return _response("200 OK", body, is_head=method == b"HEAD")

    def _figures(self) -> bytes:
        now_ns = self._clock.mono_ns()
        if self._text_ns is None or now_ns - self._text_ns >= FRESH_S * NS_PER_S:
            self._text, self._text_ns = self._render().encode(), now_ns
        return self._text


def _response(status: str, body: bytes, *, is_head: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else body)


def _family(address: str) -> socket.AddressFamily | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except (OSError, ValueError):
            continue
        return family
    return None
