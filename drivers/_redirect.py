"""Asks a camera once whether it would send us elsewhere.

libavformat follows a redirect to any host and logs in there with the camera's password, and no
option forbids that (`protocol_whitelist` knows protocols, not hosts). So the first question to a
camera is ours. One that answers later ones otherwise gains nothing by it that it could not have by
asking us for the password itself.
"""

import contextlib
import re
import socket
import ssl
import time
from typing import Final
from urllib.parse import urlsplit

from agent.core.errors import SourceLost
from drivers._login import Login, authorization
from drivers._web import plain, refused

PORTS: Final = {"rtsp": 554, "rtsps": 322}
MAX_HEAD_BYTES: Final = 16 * 1024
PATIENCE_S: Final = 2.0  # a slow camera is asked by libavformat all the same
_PIECE_BYTES: Final = 4096
_LEAST_WAIT_S: Final = 0.01
_END: Final = re.compile(rb"\n\r*\n")
_LOCATION: Final = re.compile(rb"^location:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_CHALLENGE: Final = re.compile(rb"^www-authenticate:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_MAX_TOLD: Final = 80


def refuse(url: str, path: str, login: Login, timeout_s: float) -> None:
    """Ask for the stream's description, and read no more than the head of the answer.

    Args:
        url: the configured address, as it is told in messages.
        path: what to ask for, with everything the camera wants in its query.
        login: who asks, if the camera wants to know.
        timeout_s: longest wait for the connection.

    Raises:
        AuthRefused: the login is turned down.
        SourceLost: the camera is not there, or sends us elsewhere.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    try:
        with _connected(parts.scheme, host, port, timeout_s) as link:
            question = _Question(link, f"{parts.scheme}://{parts.netloc}{path}")
            head = question.ask("")
            value = authorization(_values(head, _CHALLENGE), "DESCRIBE", question.uri, login)
            if _is_status(head, b"401") and login.user and value:
                head = question.ask(f"Authorization: {value}\r\n")
                if _is_status(head, b"401"):
                    raise refused(url, login.user)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise SourceLost(f"{url}: {reason or error}") from None
    if _is_status(head, rb"3\d\d"):
        named = _values(head, _LOCATION)
        raise SourceLost(
            f"{url}: the camera sends us on to {_place(named[-1] if named else '')}; allowed: only"
            " the address that the configuration names"
        )


class _Question:
    """DESCRIBE, asked on one connection within one time limit."""

    def __init__(self, link: socket.socket, uri: str) -> None:
        self.uri = uri
        self._link = link
        self._until_s = time.monotonic() + PATIENCE_S
        self._asked = 0

    def ask(self, header: str) -> bytes:
        """Give the head of the answer, or what came of it in time."""
        self._asked += 1
        question = f"DESCRIBE {self.uri} RTSP/1.0\r\nCSeq: {self._asked}\r\n{header}\r\n"
        head = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            self._link.settimeout(PATIENCE_S)
            self._link.sendall(question.encode())
            while len(head) < MAX_HEAD_BYTES and not _END.search(head):
                self._link.settimeout(max(_LEAST_WAIT_S, self._until_s - time.monotonic()))
                piece = self._link.recv(_PIECE_BYTES)
                if not piece:
                    break
                head += piece
        return head


def _is_status(head: bytes, status: bytes) -> bool:
    return re.match(rb"\s*RTSP/\d\.\d +" + status + rb"\b", head) is not None


def _values(head: bytes, name: re.Pattern[bytes]) -> list[str]:
    return [value.decode("latin-1").strip() for value in name.findall(head)]


def _connected(scheme: str, host: str, port: int, timeout_s: float) -> socket.socket:
    """Connect; with TLS nobody is vouched for, as cameras sign their certificates themselves."""
    link = socket.create_connection((host, port), timeout_s)
    if scheme != "rtsps":
        return link
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with link:  # the wrapped socket takes the descriptor over, and nothing if that fails
        return context.wrap_socket(link, server_hostname=host)


def _place(named: str) -> str:
    """Give scheme, host and port of an address, without what may be secret in it."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(named)
        port = "" if parts.port is None else f":{parts.port}"
        told = f"{parts.scheme}://{parts.hostname or ''}{port}" if parts.scheme else ""
        return plain(told, _MAX_TOLD) or "nowhere"
    return "nowhere"
