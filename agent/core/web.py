"""HTTP to a store of objects: bodies as streams, answers bounded in bytes and time, no redirects.

One connection a request, closed at once; `cut` ends it from any thread. A message never repeats
a URL's query: in a presigned one that is the key.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from agent.core.errors import MalformedMessage, UplinkDown

MAX_REPLY_BYTES: Final = 1 << 20
MAX_URL_LETTERS: Final = 2048
BLOCK_BYTES: Final = 1 << 18
SILENCE_S: Final = 30.0  # longest that a single read or write may take
REPLY_S: Final = 120.0  # from the last byte of the body to the last one of the answer

HTTPS_PORT: Final = 443
_PORTS: Final = {"http": 80, "https": HTTPS_PORT}
_TROUBLE: Final = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Place:
    """A URL taken apart; `target` is what the request line has."""

    scheme: str
    netloc: str
    host: str
    port: int
    target: str

    @property
    def said(self) -> str:
        """The place in words, without the query."""
        return f"{self.scheme}://{self.host}:{self.port}{self.target.split('?')[0]}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def place(url: str) -> Place:
    """Take a URL apart.

    Raises:
        MalformedMessage: it is not a plain http or https URL.
    """
    allowed = "allowed: http(s)://host[:port]/path of printable ASCII, without a user"
    is_plain = url.isascii() and url.isprintable() and " " not in url and "#" not in url
    if not is_plain or len(url) > MAX_URL_LETTERS:
        raise MalformedMessage(f"url of {len(url)} letters; {allowed}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise MalformedMessage(f"url: {error}; {allowed}") from error
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc or port == 0:
        raise MalformedMessage(f"url to {parts.scheme}://{host}; {allowed}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(parts.scheme, parts.netloc, host, port or _PORTS[parts.scheme], target)


class Web:
    """Makes requests one after another; used by one thread, but for `cut`."""

    def __init__(self, tls: ssl.SSLContext | None = None, silence_s: float = SILENCE_S) -> None:
        self._tls = tls
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cut = False
        self._is_over = False  # for this request

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Iterable[bytes] = (),
    ) -> Reply:
        """Make a request and read the whole answer; a redirect is an answer like any other.

        Raises:
            UplinkDown: no whole answer in time, or one that is too long.
            MalformedMessage: the URL is none.
        """
        with self._asked(method, url, headers, body) as answer:
            parts, size_bytes = [], 0
            while size_bytes <= MAX_REPLY_BYTES and (part := answer.read1(BLOCK_BYTES)):
                parts.append(part)
                size_bytes += len(part)
            self._check_whole(answer, size_bytes, has_body=method != "HEAD")
            if size_bytes > MAX_REPLY_BYTES:
                raise ValueError(f"an answer of over {MAX_REPLY_BYTES} bytes; allowed: less")
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, told, b"".join(parts))

    def read(self, url: str, headers: Mapping[str, str]) -> Iterator[bytes]:
        """Give the body of a 200 piece by piece, whole or with an error; close what is not read.

        Raises:
            UplinkDown: another status, or the body broke off.
        """
        with self._asked("GET", url, headers, (), has_budget=False) as answer:
            if answer.status != http.client.OK:
                raise UplinkDown(f"{place(url).said}: status {answer.status}; allowed: 200")
            size_bytes = 0
            while block := answer.read(BLOCK_BYTES):
                size_bytes += len(block)
                yield block
            self._check_whole(answer, size_bytes)

    def _check_whole(
        self, answer: http.client.HTTPResponse, size_bytes: int, *, has_body: bool = True
    ) -> None:
        """Refuse what broke off: http.client takes any end for the end of the body."""
        length = answer.getheader("content-length")
        if has_body and length is not None and size_bytes < int(length):
            raise ValueError(f"broke off {int(length) - size_bytes} bytes before the end")
        if self._is_over:
            raise TimeoutError(f"no whole answer within {REPLY_S:g} s")

    def cut(self) -> None:
        """End what is under way and refuse what comes; from any thread."""
        with self._lock:
            self._is_cut = True
        self._end()

    @contextlib.contextmanager
    def _asked(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Iterable[bytes],
        *,
        has_budget: bool = True,
    ) -> Iterator[http.client.HTTPResponse]:
        where = place(url)
        link = self._link(where)
        timer = threading.Timer(REPLY_S, self._end)
        self._is_over = False
        timer.daemon = True
        try:
            self._say(link, method, where, headers, body)
            if has_budget:
                timer.start()
            yield link.getresponse()
        except _TROUBLE as error:
            reason = "stopped" if self._is_cut else str(error) or type(error).__name__
            raise UplinkDown(f"{where.said}: {reason[:160]}") from error
        finally:
            timer.cancel()
            with self._lock:
                self._socket = None
            link.close()

    def _say(
        self,
        link: http.client.HTTPConnection,
        method: str,
        where: Place,
        headers: Mapping[str, str],
        body: Iterable[bytes],
    ) -> None:
        link.connect()
        with self._lock:
            if self._is_cut:
                raise ConnectionAbortedError("stopped")
            self._socket = link.sock
        link.putrequest(method, where.target, skip_host=True, skip_accept_encoding=True)
        for name, value in {**headers, "host": where.netloc}.items():  # as it was signed
            link.putheader(name, value)
        link.endheaders()
        # Who turns a request down may hang up before the end of the body: its answer is waiting.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for block in body:
                link.send(block)

    def _link(self, where: Place) -> http.client.HTTPConnection:
        if where.scheme == "http":
            return http.client.HTTPConnection(where.host, where.port, timeout=self._silence_s)
        tls = self._tls or ssl.create_default_context()
        return http.client.HTTPSConnection(
            where.host, where.port, timeout=self._silence_s, context=tls
        )

    def _end(self) -> None:
        self._is_over = True
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
