"""The bucket against the stand-in, and against answers that no server should give."""

import base64
import hashlib
import time

import pytest

from agent.core.clock import RealClock
from agent.core.errors import ConfigError, UplinkDown
from agent.core.web import Web
from agent.receiver.bulk import Bulk
from agent.receiver.config import BulkConfig
from agent.receiver.s3 import Bucket, NoSuchUpload, Upload
from agent.receiver.sigv4 import Credentials
from firmware_sim.s3 import S3
from tests.core.test_web import OK, Server, says

KEY = "plaza/cam-1/c/clip 1+ä.mp4"
KEYS = ("AKIDTEST", "secret-of-the-test")


@pytest.fixture
def s3():
    with S3(*KEYS) as server:
        server.least_part_bytes = 4
        yield server


@pytest.fixture
def bucket(s3):
    return Bucket(s3.endpoint, s3.bucket, Credentials(*KEYS, s3.region), RealClock())


def put(url, content, **headers):
    told = {"content-length": str(len(content))} | headers
    return Web().send("PUT", url, told, (content,))


def test_parts_become_an_object(s3, bucket):
    upload = bucket.begin(KEY)
    assert [item.upload_id for item in bucket.uploads("plaza/")] == [upload.upload_id]
    for number, content in ((2, b"6789"), (1, b"12345")):
        assert put(bucket.part_url(upload, number, 60), content).status == 200
    parts = bucket.parts(upload)
    assert [(part.number, part.size_bytes) for part in parts] == [(1, 5), (2, 4)]
    assert bucket.size_bytes(KEY) is None
    bucket.complete(upload, parts)
    assert (bucket.size_bytes(KEY), b"".join(bucket.read(KEY))) == (9, b"123456789")
    with pytest.raises(NoSuchUpload):
        bucket.parts(upload)
    bucket.abort(upload)
    bucket.delete(KEY)
    assert s3.objects == {}


def test_a_url_is_good_for_its_part_only_and_for_its_time(s3, bucket):
    upload = bucket.begin(KEY)
    url = bucket.part_url(upload, 1, 60)
    assert put(url.replace("partNumber=1", "partNumber=2"), b"x").status == 403
    assert Web().send("GET", url, {}).status == 403
    assert put(url.replace("Signature=", "Signature=0"), b"x").status == 403
    s3.trouble.shift_s = 61
    assert put(url, b"x").status == 403
    s3.trouble.shift_s = 0
    assert put(url, b"x").status == 200


def test_bytes_that_changed_on_the_way_are_noticed(bucket):
    url = bucket.part_url(bucket.begin(KEY), 1, 60)
    md5 = base64.b64encode(hashlib.md5(b"right").digest()).decode()
    assert put(url, b"wrong", **{"content-md5": md5}).status == 400


def test_a_wrong_key_is_told(s3):
    stranger = Bucket(s3.endpoint, s3.bucket, Credentials("other", "x", s3.region), RealClock())
    with pytest.raises(UplinkDown, match="SignatureDoesNotMatch"):
        stranger.begin(KEY)


def test_parts_too_small_are_not_put_together(s3, bucket):
    s3.least_part_bytes = 100
    upload = bucket.begin(KEY)
    for number in (1, 2):
        put(bucket.part_url(upload, number, 60), b"12345")
    with pytest.raises(UplinkDown, match="EntityTooSmall"):
        bucket.complete(upload, bucket.parts(upload))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not xml",
        b"<a><b></a>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b"<InitiateMultipartUploadResult/>",
        b"\xff\xfe\x00",
    ],
)
def test_an_answer_that_is_no_answer_is_an_error(body):
    head = OK + b"Content-Length: %d\r\n\r\n" % len(body)
    with Server(says(head + body)) as server:
        endpoint = f"http://127.0.0.1:{server.port}"
        bucket = Bucket(endpoint, "evidence", Credentials(*KEYS, "r"), RealClock())
        with pytest.raises(UplinkDown):
            bucket.begin(KEY)


def test_a_completion_that_fails_after_its_200_counts_as_failed():
    body = b"<Error><Code>InternalError</Code></Error>"
    with Server(says(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)) as server:
        endpoint = f"http://127.0.0.1:{server.port}"
        bucket = Bucket(endpoint, "evidence", Credentials(*KEYS, "r"), RealClock())
        with pytest.raises(UplinkDown, match="InternalError"):
            bucket.complete(Upload(KEY, "1"), [])


def test_the_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch, store):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    path = tmp_path / "s3.key"
    path.write_text("AKIDTEST\nsecret\n")
    with_file = BulkConfig("https://s3.example.org", "evidence", key_path=path)
    Bulk(store, with_file, "plaza", RealClock()).close()
    path.write_text("AKIDTEST\n")
    for config in (with_file, BulkConfig("https://s3.example.org", "evidence")):
        with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
            Bulk(store, config, "plaza", RealClock())


def test_a_key_file_that_is_not_there_is_named(tmp_path, store):
    config = BulkConfig("https://s3.example.org", "evidence", key_path=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        Bulk(store, config, "plaza", RealClock())


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": "http://s3.example.org"},
        {"endpoint": "https://s3.example.org/path"},
        {"endpoint": "https://user@s3.example.org"},
        {"bucket": "E"},
        {"over_bytes": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(changes):
    settings = {"endpoint": "https://s3.example.org", "bucket": "evidence"} | changes
    with pytest.raises(ConfigError, match="allowed"):
        BulkConfig(**settings)


def test_a_clock_that_is_far_off_is_told(s3, bucket):
    s3.trouble.shift_s = 3600
    with pytest.raises(UplinkDown, match="RequestTimeTooSkewed"):
        bucket.begin(f"{KEY}{time.time()}")
