"""HTTP to one camera as to a stranger: bounded bytes, bounded time, no redirects, closed at once.

http.client limits one line and counts headers, yet a peer that drips a byte before every timeout
could hold it for days. So one budget covers all the exchanges of a line, and a timer cuts the
connection when it is used up.
"""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from agent.core.errors import AuthRefused, SourceLost
from drivers._login import Login, authorization

MAX_BODY_BYTES: Final = 1 << 20

_PIECE_BYTES: Final = 1 << 16
_HTTP_PORT: Final = 80
_MAX_TOLD: Final = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Give every header of a name, in any case."""
        return [value for key, value in self.headers if key.lower() == name]


class Line:
    """All that is asked of one camera, within one budget of time."""

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._deadline_s: float | None = None  # counts from the first request
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_closed = False

    def send(
        self, method: str, url: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make one request.

        Raises:
            SourceLost: no whole answer in time, one that is too long, or a redirect.
        """
        host, port, path = _place(url)
        link = http.client.HTTPConnection(host, port, timeout=self._left_s(url))
        timer = threading.Timer(self._left_s(url), self._cut)
        timer.daemon = True
        timer.start()
        try:
            answer = self._exchange(link, method, path, content, headers or {})
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._left_s(url)
            raise SourceLost(f"{url}: {plain(str(error)) or type(error).__name__}") from None
        finally:
            timer.cancel()
            with self._lock:
                self._socket = None
            link.close()
        self._left_s(url)  # cut off, a body without a length looks whole
        if len(answer.body) > MAX_BODY_BYTES:
            raise SourceLost(f"{url}: an answer of over {MAX_BODY_BYTES} bytes; allowed: less")
        if http.client.MULTIPLE_CHOICES <= answer.status < http.client.BAD_REQUEST:
            raise SourceLost(
                f"{url}: status {answer.status}, a redirect; allowed: an answer over http, from"
                " the port that is asked"
            )
        return answer

    def send_signed(
        self,
        method: str,
        url: str,
        login: Login,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make a request, again with an HTTP login if the camera asks for one.

        Raises:
            AuthRefused: the login is turned down.
            SourceLost: as `send`.
        """
        answer = self.send(method, url, content, headers)
        if answer.status == http.client.UNAUTHORIZED and login.user:
            value = authorization(answer.values("www-authenticate"), method, _path(url), login)
            if value:
                answer = self.send(
                    method, url, content, {**(headers or {}), "Authorization": value}
                )
        if answer.status == http.client.UNAUTHORIZED:
            raise refused(url, login.user)
        return answer

    def close(self) -> None:
        """End what is being asked; from any thread."""
        with self._lock:
            self._is_closed = True
        self._cut()

    def _exchange(
        self,
        link: http.client.HTTPConnection,
        method: str,
        path: str,
        content: bytes,
        headers: Mapping[str, str],
    ) -> Answer:
        link.connect()
        with self._lock:
            if self._is_closed:
                raise ConnectionAbortedError("closed")
            self._socket = link.sock
        link.request(method, path, content, {k: v.encode() for k, v in headers.items()})
        answer = link.getresponse()
        parts: list[bytes] = []
        size = 0
        while size <= MAX_BODY_BYTES and (part := answer.read1(_PIECE_BYTES)):
            parts.append(part)
            size += len(part)
        return Answer(answer.status, answer.getheaders(), b"".join(parts))

    def _left_s(self, url: str) -> float:
        now_s = time.monotonic()
        if self._deadline_s is None:
            self._deadline_s = now_s + self._budget_s
        if self._is_closed:
            raise SourceLost(f"{url}: closed")
        if now_s >= self._deadline_s:
            raise SourceLost(f"{url}: no answer within {self._budget_s:g} s")
        return self._deadline_s - now_s

    def _cut(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)


def refused(url: str, user: str, said: str = "") -> AuthRefused:
    """Give the error of a login that a camera turns down."""
    who = f"user {user!r} turned down" if user else "it wants a login, and none is given"
    allowed = "allowed: the camera's own user and the password in password_path"
    return AuthRefused(f"{url}: {who}{': ' if said else ''}{plain(said)}; {allowed}")


def plain(text: str, most: int = _MAX_TOLD) -> str:
    """Give a stranger's text in one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:most]).strip()


def _place(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise SourceLost(f"{url}: allowed: http://host[:port]/path")
    return parts.hostname, parts.port or _HTTP_PORT, _path(url)


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
