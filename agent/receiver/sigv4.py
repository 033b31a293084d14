"""AWS Signature Version 4 for S3, for headers and for presigned URLs; pure.

Every S3 server speaks it, and it is forty lines of HMAC: boto3 would bring four packages of 15 MB
and its own idea of retries. Source: docs.aws.amazon.com, "Authenticating Requests (AWS Signature
Version 4)" of the S3 API reference, whose examples the tests repeat.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
MOST_EXPIRY_S = 604_800  # the standard's


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whose signature it is, and the region that the bucket says it is in."""

    key_id: str
    secret: str = field(repr=False)
    region: str


def presigned(
    credentials: Credentials, method: str, url: str, at_utc_s: int, expires_s: int
) -> str:
    """Give a URL that lets anyone make this one request until it expires; only `host` is signed."""
    stamp = _stamp(at_utc_s)
    parts = urlsplit(url)
    query = [
        *parse_qsl(parts.query, keep_blank_values=True),
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", f"{credentials.key_id}/{_scope(credentials, stamp)}"),
        ("X-Amz-Date", stamp),
        ("X-Amz-Expires", str(expires_s)),
        ("X-Amz-SignedHeaders", "host"),
    ]
    headers = {"host": parts.netloc}
    text = _canonical(method, parts.path, query, headers, UNSIGNED)
    signature = _signature(credentials, stamp, text)
    return (
        f"{parts.scheme}://{parts.netloc}{parts.path}?{_query(query)}&X-Amz-Signature={signature}"
    )


def signed(
    credentials: Credentials,
    method: str,
    url: str,
    headers: Mapping[str, str],
    payload_sha256: str,
    at_utc_s: int,
) -> dict[str, str]:
    """Give the headers of a request with their signature."""
    stamp = _stamp(at_utc_s)
    parts = urlsplit(url)
    told = {name.lower(): value for name, value in headers.items()} | {
        "host": parts.netloc,
        "x-amz-content-sha256": payload_sha256,
        "x-amz-date": stamp,
    }
    query = parse_qsl(parts.query, keep_blank_values=True)
    text = _canonical(method, parts.path, query, told, payload_sha256)
    return told | {
        "authorization": (
            f"{ALGORITHM} Credential={credentials.key_id}/{_scope(credentials, stamp)},"
            f"SignedHeaders={';'.join(sorted(told))},"
            f"Signature={_signature(credentials, stamp, text)}"
        )
    }


def _canonical(
    method: str,
    path: str,
    query: list[tuple[str, str]],
    headers: Mapping[str, str],
    payload_sha256: str,
) -> str:
    lines = [f"{name}:{' '.join(headers[name].split())}\n" for name in sorted(headers)]
    names = ";".join(sorted(headers))
    return "\n".join((method, path or "/", _query(query), "".join(lines), names, payload_sha256))


def _signature(credentials: Credentials, stamp: str, text: str) -> str:
    scope = _scope(credentials, stamp)
    told = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(text.encode()).hexdigest()))
    key = f"AWS4{credentials.secret}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    return hmac.digest(key, told.encode(), "sha256").hex()


def _scope(credentials: Credentials, stamp: str) -> str:
    return f"{stamp[:8]}/{credentials.region}/s3/aws4_request"


def _stamp(at_utc_s: int) -> str:
    return datetime.fromtimestamp(at_utc_s, UTC).strftime("%Y%m%dT%H%M%SZ")


def _query(query: list[tuple[str, str]]) -> str:
    quoted = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query)
    return "&".join(f"{name}={value}" for name, value in quoted)
