"""One bucket of an S3 server: multipart uploads, their parts, and reading back what came of them.

Paths are `endpoint/bucket/key`, which every server understands. Nothing but the standard's own
requests is used, so that any of them will do; which were tried stands in docs/RUNBOOK.md.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree as ET

from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import UplinkDown
from agent.core.web import Reply, Web
from agent.receiver import sigv4
from agent.receiver.sigv4 import Credentials

MOST_PARTS: Final = 10_000  # the standard's
LEAST_PART_BYTES: Final = 5 << 20  # but for the last
_EMPTY: Final = hashlib.sha256(b"").hexdigest()
_TOLD: Final = 120


class NoSuchUpload(Exception):
    """The server does not know this upload: it was completed, aborted or never begun."""


@dataclass(frozen=True, slots=True)
class PartKept:
    """A part that the server holds."""

    number: int
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload under way; `begun` as the server says it."""

    key: str
    upload_id: str
    begun: str = ""


class Bucket:
    """One bucket; every method raises UplinkDown when the server does not do what it is asked."""

    def __init__(self, endpoint: str, name: str, credentials: Credentials, clock: Clock) -> None:
        self._root = f"{endpoint.rstrip('/')}/{name}"
        self._name = name
        self._credentials = credentials
        self._clock = clock
        self._web = Web()

    def place(self, key: str) -> str:
        """Name an object for people and receipts."""
        return f"s3://{self._name}/{key}"

    def begin(self, key: str) -> Upload:
        """Begin a multipart upload."""
        root = self._xml(self._ask("POST", key, "uploads="))
        return Upload(key, _text(root, "UploadId"))

    def part_url(self, upload: Upload, number: int, expires_s: int) -> str:
        """Give a URL that takes one part, and nothing else, until it expires."""
        query = f"partNumber={number}&uploadId={quote(upload.upload_id, safe='')}"
        url = f"{self._url(upload.key)}?{query}"
        return sigv4.presigned(self._credentials, "PUT", url, self._now_s(), expires_s)

    def parts(self, upload: Upload) -> list[PartKept]:
        """List what has come.

        Raises:
            NoSuchUpload: the server does not know it.
        """
        found: list[PartKept] = []
        while len(found) <= MOST_PARTS:
            marker = f"&part-number-marker={found[-1].number}" if found else ""
            query = f"uploadId={quote(upload.upload_id, safe='')}{marker}"
            root = self._xml(self._ask("GET", upload.key, query))
            found += [
                PartKept(int(_text(part, "PartNumber")), int(_text(part, "Size")), _etag(part))
                for part in _all(root, "Part")
            ]
            if _text(root, "IsTruncated", "false") != "true":
                break
        return found

    def complete(self, upload: Upload, parts: list[PartKept]) -> None:
        """Put the parts together; NoSuchUpload as `parts`."""
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{part.etag}</ETag></Part>"
            for part in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        query = f"uploadId={quote(upload.upload_id, safe='')}"
        answer = self._ask("POST", upload.key, query, body)
        if _name(self._xml(answer)) == "Error":  # the standard: 200, and then it went wrong
            raise UplinkDown(f"{self.place(upload.key)}: {_words(answer)}")

    def abort(self, upload: Upload) -> None:
        """Drop an upload and its parts; one that is gone is no error."""
        try:
            self._ask("DELETE", upload.key, f"uploadId={quote(upload.upload_id, safe='')}")
        except NoSuchUpload:
            return

    def uploads(self, prefix: str) -> list[Upload]:
        """List the first thousand uploads under way."""
        root = self._xml(self._ask("GET", "", f"prefix={quote(prefix, safe='')}&uploads="))
        return [
            Upload(_text(item, "Key"), _text(item, "UploadId"), _text(item, "Initiated", ""))
            for item in _all(root, "Upload")
        ]

    def size_bytes(self, key: str) -> int | None:
        """Give the size of an object; None if there is none."""
        answer = self._ask("HEAD", key, "", allowed=(HTTPStatus.OK, HTTPStatus.NOT_FOUND))
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        return int(answer.headers.get("content-length", "-1"))

    def read(self, key: str) -> Iterator[bytes]:
        """Give an object's bytes."""
        url = self._url(key)
        headers = sigv4.signed(self._credentials, "GET", url, {}, _EMPTY, self._now_s())
        yield from self._web.read(url, headers)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._ask("DELETE", key, "")

    def cut(self) -> None:
        """End what is under way; from any thread."""
        self._web.cut()

    def _ask(
        self,
        method: str,
        key: str,
        query: str,
        body: bytes = b"",
        allowed: tuple[HTTPStatus, ...] = (HTTPStatus.OK, HTTPStatus.NO_CONTENT),
    ) -> Reply:
        url = self._url(key) + (f"?{query}" if query else "")
        digest = hashlib.sha256(body).hexdigest()
        length = {"content-length": str(len(body))} if method == "POST" else {}
        headers = sigv4.signed(self._credentials, method, url, length, digest, self._now_s())
        answer = self._web.send(method, url, headers, (body,) if body else ())
        if answer.status not in allowed:
            if answer.status == HTTPStatus.NOT_FOUND and b"NoSuchUpload" in answer.body:
                raise NoSuchUpload(key)
            raise UplinkDown(f"{self.place(key)}: {method}: {_words(answer)}")
        return answer

    def _xml(self, answer: Reply) -> ET.Element:
        if b"<!DOCTYPE" in answer.body:
            raise UplinkDown(f"s3://{self._name}: an answer with a document type; allowed: none")
        try:
            return ET.fromstring(answer.body)  # noqa: S314 - bounded, and no entities
        except (ET.ParseError, ValueError) as error:
            raise UplinkDown(f"s3://{self._name}: an answer that is not XML: {error}") from error

    def _url(self, key: str) -> str:
        return f"{self._root}/{quote(key, safe='/-_.~')}"

    def _now_s(self) -> int:
        return self._clock.utc_ns() // NS_PER_S


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _all(root: ET.Element, name: str) -> list[ET.Element]:
    return [item for item in root if _name(item) == name]


def _text(root: ET.Element, name: str, default: str | None = None) -> str:
    found = next((item.text or "" for item in root if _name(item) == name), default)
    if found is None:
        raise UplinkDown(f"s3: an answer without {name}")
    return found


def _etag(part: ET.Element) -> str:
    return _text(part, "ETag").replace("&", "").replace("<", "")


def _words(answer: Reply) -> str:
    text = answer.body.decode(errors="replace")
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    return f"status {answer.status} {code[:_TOLD]}".strip()
