"""ONVIF's SOAP over HTTP: requests with a login, answers read as hostile text.

Login is the WS-Security UsernameToken with a password digest (OASIS, "Web Services Security
UsernameToken Profile 1.0"), made in the camera's own time, so that a wrong clock locks nobody out;
HTTP Digest (RFC 7616) is tried where a camera asks for that instead.
"""

import base64
import hashlib
import http.client
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from agent.core.errors import AuthRefused, SourceLost, Unsupported

MAX_BODY_BYTES: Final = 1 << 20
MAX_ELEMENTS: Final = 20_000
TIMEOUT_S: Final = 5.0

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
_FIELD: Final = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')
_REFUSED: Final = ("NotAuthorized", "FailedAuthentication", "InvalidSecurity", "notauthorized")


@dataclass(slots=True)
class Login:
    """Who asks, and how far the camera's clock is from ours."""

    user: str = ""
    password: str = field(default="", repr=False)
    skew: timedelta = timedelta(0)


def call(
    url: str, body: str, login: Login, now: datetime, timeout_s: float = TIMEOUT_S
) -> ET.Element:
    """Send one request and give the first element of the answer's body.

    Args:
        url: of the service; http only, as cameras speak it.
        body: the request's XML.
        login: without a user, nothing is signed.
        now: our time, UTC.
        timeout_s: for each step of the connection.

    Raises:
        SourceLost: no answer, or none that can be read.
        AuthRefused: the login is turned down.
        Unsupported: the camera does not know the request.
    """
    header = _security(login, now) if login.user else ""
    content = _ENVELOPE.format(header=header, body=body).encode()
    status, headers, text = _post(url, content, {}, timeout_s)
    challenge = headers.get("www-authenticate", "")
    if status == http.client.UNAUTHORIZED and login.user and "digest" in challenge.lower():
        extra = {"Authorization": _http_digest(login, challenge, urlsplit(url).path or "/")}
        status, headers, text = _post(url, content, extra, timeout_s)
    if status == http.client.UNAUTHORIZED:
        raise AuthRefused(f"{url}: user {login.user!r} turned down; allowed: the camera's own")
    root = parse(text, url)
    found = next((item for item in root if local(item) == "Body"), None)
    answer = None if found is None else next(iter(found), None)
    if answer is None:
        raise SourceLost(f"{url}: status {status}, an answer without a body")
    if local(answer) == "Fault":
        raise _fault(url, answer, login)
    return answer


def fetch(url: str, login: Login, timeout_s: float = TIMEOUT_S) -> bytes:
    """Get a picture by HTTP, with Digest or Basic login where the camera wants one.

    Raises:
        SourceLost, AuthRefused: as `call`.
    """
    status, headers, content = _request("GET", url, b"", {}, timeout_s)
    challenge = headers.get("www-authenticate", "")
    if status == http.client.UNAUTHORIZED and login.user:
        parts = urlsplit(url)
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        if "digest" in challenge.lower():
            value = _http_digest(login, challenge, path, method="GET")
        else:
            value = "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        status, headers, content = _request("GET", url, b"", {"Authorization": value}, timeout_s)
    if status == http.client.UNAUTHORIZED:
        raise AuthRefused(f"{url}: user {login.user!r} turned down; allowed: the camera's own")
    if status != http.client.OK:
        raise SourceLost(f"{url}: status {status}; allowed: 200")
    return content


def parse(text: bytes, name: str) -> ET.Element:
    """Read XML without any document type, so without entities, and of bounded size.

    Raises:
        SourceLost: not such XML.
    """
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise SourceLost(f"{name}: XML with a document type; allowed: none")
    parser: ET.XMLPullParser[Any] = ET.XMLPullParser(events=("start",))
    count = 0
    try:
        for start in range(0, len(text), 1 << 16):
            parser.feed(text[start : start + (1 << 16)])
            count += sum(1 for _ in parser.read_events())
            if count > MAX_ELEMENTS:
                raise SourceLost(f"{name}: XML of over {MAX_ELEMENTS} elements")
        return ET.fromstring(text)  # noqa: S314 - no document type, bounded above
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise SourceLost(f"{name}: not XML: {str(error)[:80]}") from None


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


def _security(login: Login, now: datetime) -> str:
    nonce = os.urandom(16)
    created = (now + login.skew).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha1(
        nonce + created.encode() + login.password.encode(), usedforsecurity=False
    ).digest()
    return _SECURITY.format(
        user=escape(login.user),
        digest=base64.b64encode(digest).decode(),
        nonce=base64.b64encode(nonce).decode(),
        created=created,
    )


def _http_digest(login: Login, challenge: str, path: str, method: str = "POST") -> str:
    fields = {key: quoted or plain for key, quoted, plain in _FIELD.findall(challenge)}
    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    cnonce, count = os.urandom(8).hex(), "00000001"
    secret = _md5(f"{login.user}:{realm}:{login.password}")
    asked = _md5(f"{method}:{path}")
    has_qop = "auth" in fields.get("qop", "").split(",")
    middle = f"{nonce}:{count}:{cnonce}:auth" if has_qop else nonce
    parts = {
        "username": login.user,
        "realm": realm,
        "nonce": nonce,
        "uri": path,
        "response": _md5(f"{secret}:{middle}:{asked}"),
    }
    if "opaque" in fields:
        parts["opaque"] = fields["opaque"]
    given = ", ".join(f'{key}="{value}"' for key, value in parts.items())
    return f"Digest {given}" + (f', qop=auth, nc={count}, cnonce="{cnonce}"' if has_qop else "")


def _fault(url: str, fault: ET.Element, login: Login) -> Exception:
    said = " ".join(part.strip() for part in fault.itertext() if part.strip())[:200]
    if any(word.lower() in said.lower() for word in (*_REFUSED, "not authorized")):
        return AuthRefused(f"{url}: user {login.user!r} turned down: {said}")
    return Unsupported(f"{url}: {said or 'a fault without a reason'}")


def _post(
    url: str, content: bytes, extra: Mapping[str, str], timeout_s: float
) -> tuple[int, Mapping[str, str], bytes]:
    headers = {"Content-Type": "application/soap+xml; charset=utf-8", **extra}
    return _request("POST", url, content, headers, timeout_s)


def _request(
    method: str, url: str, content: bytes, headers: Mapping[str, str], timeout_s: float
) -> tuple[int, Mapping[str, str], bytes]:
    """Make one request; a redirect is not followed: it is an answer without a body."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise SourceLost(f"{url}: allowed: http://host[:port]/path")
    link = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        link.request(method, path, content, dict(headers))
        answer = link.getresponse()
        body = _read(answer, time.monotonic() + timeout_s)
        found = {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException) as error:
        raise SourceLost(f"{url}: {str(error)[:120] or type(error).__name__}") from None
    finally:
        link.close()
    if len(body) > MAX_BODY_BYTES:
        raise SourceLost(f"{url}: an answer of over {MAX_BODY_BYTES} bytes; allowed: less")
    return answer.status, found, body


def _read(answer: http.client.HTTPResponse, deadline_s: float) -> bytes:
    """Read a body that may drip, or never end."""
    parts: list[bytes] = []
    size = 0
    while size <= MAX_BODY_BYTES and (part := answer.read1(1 << 16)):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline_s:
            raise TimeoutError("the answer takes too long")
    return b"".join(parts)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


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
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
