"""ONVIF's SOAP: requests with a login, answers read as hostile text.

Login is the WS-Security UsernameToken with a password digest (OASIS, "Web Services Security
UsernameToken Profile 1.0"), made in the camera's own time, so that a wrong clock locks nobody out;
HTTP Digest is tried where a camera asks for that instead.
"""

import base64
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from agent.core.errors import AgentError, SourceLost, Unsupported
from drivers._login import Login
from drivers._web import Line, plain, refused

MAX_ELEMENTS: Final = 20_000
MAX_DEPTH: Final = 64
YEARS: Final = range(1970, 2200)
"""A camera's clock outside of them is no clock."""

_ENVELOPE: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">'
    "<s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
)
_SECURITY: Final = (
    '<w:Security s:mustUnderstand="1" xmlns:w="http://docs.oasis-open.org/wss/2004/01/'
    'oasis-200401-wss-wssecurity-secext-1.0.xsd" xmlns:u="http://docs.oasis-open.org/wss/2004/'
    '01/oasis-200401-wss-wssecurity-utility-1.0.xsd"><w:UsernameToken>'
    '<w:Username>{user}</w:Username><w:Password Type="http://docs.oasis-open.org/wss/2004/01/'
    'oasis-200401-wss-username-token-profile-1.0#PasswordDigest">{digest}</w:Password>'
    '<w:Nonce EncodingType="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-'
    'message-security-1.0#Base64Binary">{nonce}</w:Nonce><u:Created>{created}</u:Created>'
    "</w:UsernameToken></w:Security>"
)
_HEADERS: Final = {"Content-Type": "application/soap+xml; charset=utf-8"}
_REFUSED: Final = ("notauthorized", "not authorized", "failedauthentication", "invalidsecurity")


@dataclass(frozen=True, slots=True)
class Token:
    """Who signs a request, and when by the camera's own clock."""

    login: Login
    camera_time: datetime


def call(line: Line, url: str, body: str, token: Token | None = None) -> ET.Element:
    """Send one request and give the first element of the answer's body.

    Args:
        line: to the camera.
        url: of the service; http only, as cameras speak it.
        body: the request's XML.
        token: signs the request; None, or one without a user, leaves it unsigned.

    Raises:
        SourceLost: no answer, or none that can be read.
        AuthRefused: the login is turned down.
        Unsupported: the camera does not know the request.
    """
    login = Login() if token is None else token.login
    header = _security(token) if token is not None and login.user else ""
    content = _ENVELOPE.format(header=header, body=body).encode()
    answer = line.send_signed("POST", url, login, content, _HEADERS)
    root = parse(answer.body, f"{url}: status {answer.status}")
    found = next((item for item in root if local(item) == "Body"), None)
    told = None if found is None else next(iter(found), None)
    if told is None:
        raise SourceLost(f"{url}: status {answer.status}, an answer without a body")
    if local(told) == "Fault":
        raise _fault(url, told, login)
    return told


def parse(text: bytes, name: str) -> ET.Element:
    """Read XML without any document type, so without entities, and of bounded size and depth.

    Raises:
        SourceLost: not such XML.
    """
    try:
        return ET.fromstring(text, ET.XMLParser(target=_Bounded(name)))  # noqa: S314 - bounded
    except (ET.ParseError, ValueError, LookupError) as error:
        raise SourceLost(f"{name}: not XML: {plain(str(error))}") from None


def local(item: ET.Element) -> str:
    """Give an element's name without its namespace: cameras mix them up."""
    return str(item.tag).rpartition("}")[2]


def first(item: ET.Element, *path: str) -> ET.Element | None:
    """Give the first descendant reached by local names; the first name at any depth."""
    for found in item.iter():
        if local(found) != path[0]:
            continue
        rest: ET.Element | None = found
        for name in path[1:]:
            rest = next((one for one in (rest or ()) if local(one) == name), None)
        if rest is not None:
            return rest
    return None


def text_of(item: ET.Element, *path: str) -> str:
    """Give the text of the first such descendant, empty if there is none."""
    found = first(item, *path)
    return "" if found is None or found.text is None else found.text.strip()


def camera_time(answer: ET.Element) -> datetime | None:
    """Read the UTC of GetSystemDateAndTime's answer."""
    clock = first(answer, "UTCDateTime")
    if clock is None:
        return None
    try:
        year, month, day = (int(text_of(clock, "Date", one)) for one in ("Year", "Month", "Day"))
        hour, minute, second = (
            int(text_of(clock, "Time", one)) for one in ("Hour", "Minute", "Second")
        )
        if year not in YEARS:
            return None
        return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)  # 60: a leap
    except ValueError:
        return None


class _Bounded(ET.TreeBuilder):
    """Builds a tree until it grows beyond what a camera has to say.

    The parser calls `doctype` before it reads an entity, in whatever encoding the text is.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._elements = self._depth = 0

    def doctype(self, *_declared: str | None) -> None:
        raise SourceLost(f"{self._name}: XML with a document type; allowed: none")

    def start(self, tag: str, attrs: dict[str, str]) -> ET.Element:
        self._elements += 1
        self._depth += 1
        if self._elements > MAX_ELEMENTS or self._depth > MAX_DEPTH:
            raise SourceLost(
                f"{self._name}: XML of over {MAX_ELEMENTS} elements or {MAX_DEPTH} levels"
            )
        return super().start(tag, attrs)

    def end(self, tag: str) -> ET.Element:
        self._depth -= 1
        return super().end(tag)


def _security(token: Token) -> str:
    nonce = os.urandom(16)
    created = token.camera_time.strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha1(
        nonce + created.encode() + token.login.password.encode(), usedforsecurity=False
    ).digest()
    return _SECURITY.format(
        user=escape(token.login.user),
        digest=base64.b64encode(digest).decode(),
        nonce=base64.b64encode(nonce).decode(),
        created=created,
    )


def _fault(url: str, fault: ET.Element, login: Login) -> AgentError:
    said = plain(" ".join(part.strip() for part in fault.itertext() if part.strip()))
    if any(word in said.lower() for word in _REFUSED):
        return refused(url, login.user, said)
    return Unsupported(f"{url}: {said or 'a fault without a reason'}")
