"""The signatures that AWS prints in its own documentation come out."""

import calendar
import hashlib

import pytest

from agent.receiver.sigv4 import Credentials, presigned, signed

KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
AT_UTC_S = calendar.timegm((2013, 5, 24, 0, 0, 0))
HOST = "https://examplebucket.s3.amazonaws.com"
EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    ("method", "path", "headers", "payload", "signature"),
    [
        (
            *("GET", "/test.txt", {"Range": "bytes=0-9"}, b""),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            *("PUT", "/test%24file.text"),
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            *("GET", "/?lifecycle=", {}, b""),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            *("GET", "/?max-keys=2&prefix=J", {}, b""),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_headers_are_signed_as_in_the_documentation(method, path, headers, payload, signature):
    digest = hashlib.sha256(payload).hexdigest()
    told = signed(KEYS, method, HOST + path, headers, digest, AT_UTC_S)
    assert told["authorization"].endswith(f"Signature={signature}")


def test_a_presigned_url_is_the_one_of_the_documentation():
    url = presigned(KEYS, "GET", f"{HOST}/test.txt", AT_UTC_S, 86_400)
    assert url.startswith(f"{HOST}/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=")
    assert url.endswith(
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_the_secret_does_not_show():
    assert KEYS.secret not in repr(KEYS)
