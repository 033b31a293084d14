"""A stand-in for an S3 server: one bucket in memory, multipart uploads, and trouble on demand.

Written from the S3 API reference and no server's code. It checks what a real one checks:
signatures (Version 4, in headers and in URLs), expiry, part numbers, Content-MD5, the ETags and
the least size of parts at the end. SeaweedFS is the real one that the tests use where it is
installed; trouble such as a cut in the middle of a part can only be had here.
"""

import base64
import hashlib
import hmac
import re
import socket
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

LEAST_PART_BYTES = 5 << 20
MOST_PARTS = 10_000
MOST_CLOCK_SKEW_S = 900
BLOCK_BYTES = 64 * 1024
ALGORITHM = "AWS4-HMAC-SHA256"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass
class Trouble:
    """What goes wrong from now on; the test counts nothing, the server counts down."""

    slow_downs: int = 0  # so many parts are answered with 503
    cut_after_bytes: int | None = None  # the next part's connection ends after so many
    shift_s: float = 0.0  # the server's clock is ahead by this
    redirect_to: str = ""  # every part is sent there
    answer_bytes: int = 0  # every part's answer is so long
    is_deaf: bool = False  # parts are taken and forgotten, with a good ETag
    hold: threading.Event | None = None  # parts wait for it before they are answered


@dataclass
class Upload:
    """A multipart upload under way."""

    key: str
    begun_utc_s: float
    parts: dict[int, bytes] = field(default_factory=dict)


class S3:
    """The server; use it as a context."""

    def __init__(self, key_id: str, secret: str, bucket: str = "evidence") -> None:
        self.key_id, self.secret, self.bucket = key_id, secret, bucket
        self.region = "us-east-1"
        self.least_part_bytes = LEAST_PART_BYTES
        self.trouble = Trouble()
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, Upload] = {}
        self.puts: list[tuple[int, int, int]] = []  # part, bytes that came, status; 0: cut
        self.aborted: list[str] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _serving(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._scheme = "http"

    def with_tls(self, certificate: Path, key: Path) -> Self:
        """Speak https."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "https"
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def now_utc_s(self) -> float:
        """The server's clock."""
        return time.time() + self.trouble.shift_s


class _Answer(Exception):
    def __init__(self, status: int, code: str, body: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.text = body or f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"


def _serving(s3: S3) -> type[BaseHTTPRequestHandler]:
    class Serving(_Serving):
        server_state = s3

    return Serving


class _Serving(BaseHTTPRequestHandler):
    """One request a connection."""

    server_state: S3
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True

    def do_PUT(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def _serve(self) -> None:
        self.close_connection = True
        self.parts = urlsplit(self.path)
        self.query = dict(parse_qsl(self.parts.query, keep_blank_values=True))
        self.key = unquote(self.parts.path).removeprefix(f"/{self.server_state.bucket}").lstrip("/")
        try:
            self._check_signature()
            self._route()
        except _Answer as answer:
            self._say(answer.status, answer.text.encode())

    def _route(self) -> None:
        found = {
            ("POST", "uploads"): self._begin,
            ("PUT", "partNumber"): self._put_part,
            ("GET", "uploadId"): self._list_parts,
            ("POST", "uploadId"): self._complete,
            ("DELETE", "uploadId"): self._abort,
            ("GET", "uploads"): self._list_uploads,
        }
        for (method, name), serve in found.items():
            if self.command == method and name in self.query:
                serve()
                return
        self._object()

    def _object(self) -> None:
        objects = self.server_state.objects
        if self.key not in objects:
            raise _Answer(404, "NoSuchKey")
        if self.command == "DELETE":
            del objects[self.key]
            self._say(204, b"")
        else:
            self._say(200, objects[self.key])

    def _begin(self) -> None:
        number = uuid.uuid4().hex
        s3 = self.server_state
        s3.uploads[number] = Upload(self.key, s3.now_utc_s())
        self._xml("InitiateMultipartUploadResult", f"<UploadId>{number}</UploadId>")

    def _put_part(self) -> None:
        s3, trouble, number = (
            self.server_state,
            self.server_state.trouble,
            int(self.query["partNumber"]),
        )
        upload = self._upload()
        if trouble.slow_downs > 0:
            trouble.slow_downs -= 1
            s3.puts.append((number, 0, 503))
            raise _Answer(503, "SlowDown")
        if trouble.redirect_to:
            s3.puts.append((number, 0, 307))
            self._say(307, b"", {"Location": trouble.redirect_to})
            return
        content = self._body(number)
        if not 1 <= number <= MOST_PARTS:
            raise _Answer(400, "InvalidArgument")
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        told = self.headers.get("Content-MD5")
        if told is not None and base64.b64decode(told) != digest:
            s3.puts.append((number, len(content), 400))
            raise _Answer(400, "BadDigest")
        if trouble.hold is not None:
            trouble.hold.wait(30)
        with s3.lock:
            if not trouble.is_deaf:
                upload.parts[number] = content
            s3.puts.append((number, len(content), 200))
        self._say(200, b"x" * trouble.answer_bytes, {"ETag": f'"{digest.hex()}"'})

    def _body(self, number: int) -> bytes:
        s3, left, blocks = self.server_state, int(self.headers.get("Content-Length", "0")), []
        taken = 0
        while left and (block := self.rfile.read1(min(left, BLOCK_BYTES))):
            blocks.append(block)
            left -= len(block)
            taken += len(block)
            cut = s3.trouble.cut_after_bytes
            if number and cut is not None and taken >= cut:
                s3.trouble.cut_after_bytes = None
                s3.puts.append((number, taken, 0))
                self.connection.shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError("cut")
        if left:
            s3.puts.append((number, taken, 0))
            raise ConnectionAbortedError("the body broke off")
        return b"".join(blocks)

    def _list_parts(self) -> None:
        after = int(self.query.get("part-number-marker", "0"))
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{_etag(content)}</ETag>"
            f"<Size>{len(content)}</Size></Part>"
            for number, content in sorted(self._upload().parts.items())
            if number > after
        )
        self._xml("ListPartsResult", f"<IsTruncated>false</IsTruncated>{rows}")

    def _complete(self) -> None:
        upload, s3 = self._upload(), self.server_state
        text = self._body(0).decode()
        listed = re.findall(r"<PartNumber>(\d+)</PartNumber><ETag>([^<]*)</ETag>", text)
        numbers = [int(number) for number, _ in listed]
        if not numbers or numbers != sorted(set(numbers)):
            raise _Answer(400, "InvalidPartOrder")
        for number, etag in listed:
            content = upload.parts.get(int(number))
            if content is None or _etag(content).strip('"') != etag.strip('"'):
                raise _Answer(400, "InvalidPart")
        if any(len(upload.parts[number]) < s3.least_part_bytes for number in numbers[:-1]):
            raise _Answer(400, "EntityTooSmall")
        s3.objects[self.key] = b"".join(upload.parts[number] for number in numbers)
        del s3.uploads[self.query["uploadId"]]
        self._xml("CompleteMultipartUploadResult", f"<Key>{self.key}</Key>")

    def _abort(self) -> None:
        self._upload()
        self.server_state.aborted.append(self.query["uploadId"])
        del self.server_state.uploads[self.query["uploadId"]]
        self._say(204, b"")

    def _list_uploads(self) -> None:
        prefix = self.query.get("prefix", "")
        rows = "".join(
            f"<Upload><Key>{upload.key}</Key><UploadId>{number}</UploadId>"
            f"<Initiated>{_iso(upload.begun_utc_s)}</Initiated></Upload>"
            for number, upload in self.server_state.uploads.items()
            if upload.key.startswith(prefix)
        )
        self._xml("ListMultipartUploadsResult", rows)

    def _upload(self) -> Upload:
        upload = self.server_state.uploads.get(self.query["uploadId"])
        if upload is None or upload.key != self.key:
            raise _Answer(404, "NoSuchUpload")
        return upload

    def _check_signature(self) -> None:
        if "X-Amz-Signature" in self.query:
            self._check_url()
        else:
            self._check_headers()

    def _check_url(self) -> None:
        query = {name: value for name, value in self.query.items() if name != "X-Amz-Signature"}
        stamp = query.get("X-Amz-Date", "")
        begun_utc_s = _utc_s(stamp)
        expires_s = int(query.get("X-Amz-Expires", "0"))
        if self.server_state.now_utc_s() > begun_utc_s + expires_s:
            raise _Answer(403, "AccessDenied")
        self._compare(
            query,
            query.get("X-Amz-SignedHeaders", ""),
            query.get("X-Amz-Credential", ""),
            stamp,
            "UNSIGNED-PAYLOAD",
            self.query["X-Amz-Signature"],
        )

    def _check_headers(self) -> None:
        told = self.headers.get("Authorization", "")
        found = re.fullmatch(
            rf"{ALGORITHM} Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]+)", told
        )
        if found is None:
            raise _Answer(403, "AccessDenied")
        stamp = self.headers.get("x-amz-date", "")
        if abs(self.server_state.now_utc_s() - _utc_s(stamp)) > MOST_CLOCK_SKEW_S:
            raise _Answer(403, "RequestTimeTooSkewed")
        digest = self.headers.get("x-amz-content-sha256", "")
        self._compare(self.query, found[2], found[1], stamp, digest, found[3])

    def _compare(
        self,
        query: dict[str, str],
        names: str,
        credential: str,
        stamp: str,
        digest: str,
        signature: str,
    ) -> None:
        s3 = self.server_state
        scope = f"{stamp[:8]}/{s3.region}/s3/aws4_request"
        pairs = sorted(
            (quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items()
        )
        text = "\n".join(
            [
                self.command,
                self.parts.path,
                "&".join(f"{name}={value}" for name, value in pairs),
                *(f"{name}:{(self.headers.get(name) or '').strip()}" for name in names.split(";")),
                "",
                names,
                digest,
            ]
        )
        told = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(text.encode()).hexdigest()}"
        key = f"AWS4{s3.secret}".encode()
        for word in (*scope.split("/"), told):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        is_right = hmac.compare_digest(key.hex(), signature) and "host" in names.split(";")
        if not is_right or credential != f"{s3.key_id}/{scope}":
            raise _Answer(403, "SignatureDoesNotMatch")

    def _xml(self, name: str, inner: str) -> None:
        self._say(200, f'<{name} xmlns="{NAMESPACE}">{inner}</{name}>'.encode())

    def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _utc_s(stamp: str) -> float:
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _Answer(403, "AccessDenied") from None


def _iso(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
