"""Parts are taken only inside the file and apart; a URL only to a host of the configuration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import ConfigError, MalformedMessage
from agent.delivery.config import DeliveryConfig
from agent.delivery.parts import ForbiddenHost, check_url, read_parts

URL = "https://s3.example.org/evidence/clip.mp4?uploadId=1"
HOSTS = ("s3.example.org", "10.0.0.5:9000", "127.0.0.1:9000")
SIZE = 1000


def need(*spans, **changes):
    parts = [
        {"part": number, "from": start, "to": end, "url": URL, "expires_utc_ms": 1}
        for number, (start, end) in enumerate(spans, 1)
    ]
    return {
        "sv": 1,
        "fid": "0" * 32,
        "ranges": [[0, SIZE]],
        "max_chunk_bytes": 65_536,
        "rate_bytes_per_s": 0,
        "parts": parts,
    } | changes


def test_parts_come_in_the_order_of_the_file_however_they_were_told():
    found = read_parts(need((500, 1000), (0, 500)), SIZE)
    assert [(part.number, part.start, part.end) for part in found] == [(2, 0, 500), (1, 500, 1000)]
    assert URL not in repr(found)  # its signature is as good as a key


def test_a_need_of_the_old_form_has_none():
    old = need()
    del old["parts"]
    assert read_parts(wire.check("need", old), SIZE) == ()


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 600), (500, 1000)],
        [(0, 0)],
        [(600, 500)],
        [(0, 1001)],
        [(1000, 1001)],
        [(0, 9_007_199_254_740_991)],
        [(0, 500), (0, 500)],
    ],
    ids=["over", "empty", "backwards", "beyond", "after", "absurd", "twice"],
)
def test_one_part_that_cannot_be_makes_the_whole_need_count_as_not_said(spans):
    with pytest.raises(MalformedMessage, match="allowed"):
        read_parts(need(*spans), SIZE)


def test_a_part_has_one_number():
    told = need((0, 500), (500, 1000))
    told["parts"][1]["part"] = 1
    with pytest.raises(MalformedMessage, match="twice"):
        read_parts(told, SIZE)


@pytest.mark.parametrize(
    "changes",
    [
        {"from": -1},
        {"to": 0},
        {"part": 0},
        {"part": 10_001},
        {"url": "https://s3.example.org/" + "a" * 2048},
        {"url": 7},
        {"surprise": 1},
    ],
)
def test_the_schema_refuses(changes):
    told = need((0, 500))
    told["parts"][0] |= changes
    with pytest.raises(MalformedMessage):
        wire.check("need", told)


def test_the_schema_bounds_how_many():
    with pytest.raises(MalformedMessage):
        wire.check("need", need(*[(at, at + 1) for at in range(65)]))


@given(st.lists(st.tuples(st.integers(0, SIZE + 10), st.integers(0, SIZE + 10)), max_size=8))
def test_what_is_taken_is_apart_and_inside_whatever_is_told(spans):
    try:
        found = read_parts(need(*spans), SIZE)
    except MalformedMessage:
        return
    at = 0
    for part in found:
        assert at <= part.start < part.end <= SIZE
        at = part.end
    assert len(found) == len(spans)


@pytest.mark.parametrize(
    "url",
    [URL, "https://S3.example.org:443/a", "https://10.0.0.5:9000/a", "http://127.0.0.1:9000/a"],
)
def test_listed_hosts_are_allowed(url):
    check_url(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.example.org:8443/a",
        "http://s3.example.org/a",
        "http://s3.example.org:443/a",
        "https://elsewhere.example.org/a",
        "https://s3.example.org.evil.example/a",
        "https://127.0.0.1:9001/a",
        "http://10.0.0.5:9000/a",
        "http://169.254.169.254/latest/meta-data",
        "https://[::1]:9000/a",
    ],
)
def test_other_hosts_and_plain_http_to_another_machine_are_not(url):
    with pytest.raises(ForbiddenHost, match="allowed"):
        check_url(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3.example.org/a",
        "file:///etc/passwd",
        "ftp://s3.example.org/a",
        "https://user@s3.example.org/a",
        "https://s3.example.org@evil.example/a",
        "https:///a",
        "https://s3.example.org:99999/a",
        "https://s3.example.org:0/a",
        "https://s3.example.org/a b",
        "https://s3.example.org/a\r\nX-Evil: 1",
        "https://s3.example.org/ä",
        "https://s3.example.org/a#b",
        "https://[::1/a",
        "https://s3.example.org/" + "a" * 3000,
    ],
)
def test_what_is_no_plain_url_is_no_url(url):
    with pytest.raises(MalformedMessage, match="allowed"):
        check_url(url, HOSTS)


def test_nothing_is_allowed_without_a_list():
    with pytest.raises(ForbiddenHost, match="none"):
        check_url(URL, ())


@pytest.mark.parametrize("host", ["", "https://s3.example.org", "s3.example.org/x", "a:0", "a b"])
def test_the_configuration_takes_hosts_only(tmp_path, host):
    with pytest.raises(ConfigError, match="bulk_hosts"):
        DeliveryConfig(tmp_path / "r.pub", bulk_hosts=(host,))


def test_uploads_and_emqx_do_not_go_together(tmp_path):
    with pytest.raises(ConfigError, match="file_form"):
        DeliveryConfig(tmp_path / "r.pub", bulk_hosts=("a",), file_form="emqx")
