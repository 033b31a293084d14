"""Topics, the one byte form that is signed, and messages that their schema refuses."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import MalformedMessage

TOPICS = wire.Topics("plaza", "cam-0001")
ENVELOPE: wire.Json = {
    "sv": 1,
    "id": "0" * 32,
    "device": "cam-0001",
    "boot": 3,
    "lane": "alarm",
    "seq": 17,
    "t_utc_ms": 1_700_000_000_000,
    "clock": {"source": "ntp", "error_ms": 4},
    "mono_ms": 5000,
    "kind": "event/zone_enter",
    "body": {"zone": "crossing"},
}
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_topics_are_as_the_page_says() -> None:
    assert TOPICS.root == "outpost/1/plaza/cam-0001"
    assert TOPICS.up("event/line_cross") == "outpost/1/plaza/cam-0001/event/line_cross"
    assert TOPICS.receipt == "outpost/1/plaza/cam-0001/receipt"
    assert TOPICS.file("ab", "65536") == "outpost/1/plaza/cam-0001/file/ab/65536"
    assert TOPICS.file_down == (
        "outpost/1/plaza/cam-0001/file/+/need",
        "outpost/1/plaza/cam-0001/file/+/receipt",
    )


def test_a_topic_comes_apart_as_it_was_made() -> None:
    found = wire.address(TOPICS.file("ab", "offer"))
    assert found == wire.Address("plaza", "cam-0001", ("file", "ab", "offer"))
    assert wire.address(TOPICS.up("beat")).rest == ("beat",)


@pytest.mark.parametrize(
    "topic",
    ["", "outpost", "outpost/1/plaza/cam-0001", "outpost/2/plaza/cam/beat", "a/b/c/d/e", "/" * 99],
)
def test_foreign_topics_are_refused_in_short_words(topic: str) -> None:
    with pytest.raises(MalformedMessage, match=r"allowed: outpost/1/<site>/<device>/…") as caught:
        wire.address(topic)
    assert len(str(caught.value)) < 200


@given(value=plain_values)
@settings(max_examples=100)
def test_canonical_is_one_form_of_the_same_value(value: Any) -> None:
    first = wire.canonical(value)
    assert json.loads(first) == value
    assert wire.canonical(json.loads(json.dumps(value))) == first


def test_canonical_does_not_depend_on_order_and_keeps_letters() -> None:
    assert wire.canonical({"b": 1, "a": "ü"}) == wire.canonical({"a": "ü", "b": 1})
    assert wire.canonical({"b": [True, None], "a": "ü"}) == '{"a":"ü","b":[true,null]}'.encode()


@pytest.mark.parametrize(
    "value", [1.5, [1, {"a": [0.0]}], {"a": float("nan")}, (1.0,), {"x": object()}, {"x": b"bytes"}]
)
def test_what_has_no_unique_text_is_not_signed(value: Any) -> None:
    with pytest.raises(TypeError):
        wire.canonical(value)


def test_messages_go_and_come() -> None:
    assert wire.decode("envelope", wire.encode(ENVELOPE)) == ENVELOPE
    assert b" " not in wire.encode(ENVELOPE)
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.encode({"x": float("inf")})


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "envelope: not JSON"),
        (b"\xff\xfe", "envelope: not JSON"),
        (b'{"sv": NaN}', "envelope: not JSON: NaN is not JSON"),
        (b'{"sv": -Infinity}', "envelope: not JSON: -Infinity is not JSON"),
        (b"[" * 100_000, "envelope: not JSON"),
        (b"[" * 40 + b"]" * 40, "envelope: nested deeper than 32"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "envelope: nested deeper than 32"),
        (b'"x"', "envelope: data must be object"),
        (b" " * (wire.MAX_JSON_BYTES + 1), "envelope: 262145 bytes; allowed: 262144"),
        (b"{}", "envelope: data must contain"),
    ],
)
def test_what_is_no_message_is_refused_in_short_words(payload: bytes, words: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        wire.decode("envelope", payload)
    assert str(caught.value).startswith(words)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sv", 2),
        ("sv", "1"),
        ("id", "0" * 31),
        ("id", "0" * 31 + "G"),
        ("id", "0" * 32 + "\n"),
        ("device", "cam/0001"),
        ("device", "+"),
        ("device", ""),
        ("boot", 0),
        ("boot", True),
        ("lane", "express"),
        ("seq", 0),
        ("seq", 1.5),
        ("t_utc_ms", -1),
        ("t_utc_ms", 2**53),
        ("clock", {"source": "sundial", "error_ms": 4}),
        ("clock", {"source": "ntp"}),
        ("clock", {"source": "ntp", "error_ms": 4, "more": 1}),
        ("kind", "event/#"),
        ("kind", "event/a/b"),
        ("kind", "x" * 129),
        ("body", []),
        ("unknown", 1),
    ],
)
def test_an_envelope_is_refused_for_any_one_wrong_key(key: str, value: Any) -> None:
    with pytest.raises(MalformedMessage, match="envelope: data"):
        wire.check("envelope", {**ENVELOPE, key: value})


@pytest.mark.parametrize("key", sorted(ENVELOPE))
def test_an_envelope_is_refused_for_any_missing_key(key: str) -> None:
    with pytest.raises(MalformedMessage, match="must contain"):
        wire.check("envelope", {name: value for name, value in ENVELOPE.items() if name != key})


@pytest.mark.parametrize("name", wire.SCHEMAS)
def test_every_schema_is_sound_and_closed(name: str) -> None:
    schema = json.loads(wire.schema_text(name))
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert schema["title"]
    with pytest.raises(MalformedMessage):
        wire.check(name, {"no such key": 1})


@given(key=st.sampled_from(sorted(ENVELOPE)), value=plain_values)
@settings(max_examples=150)
def test_two_validators_agree(key: str, value: Any) -> None:
    document = {**ENVELOPE, key: value}
    other = jsonschema.Draft7Validator(json.loads(wire.schema_text("envelope")))
    if other.is_valid(document):
        assert wire.check("envelope", document) == document
    else:
        with pytest.raises(MalformedMessage):
            wire.check("envelope", document)


def test_whole_numbers_written_as_fractions_are_whole_numbers():
    text = b'{"sv":1.0,"fid":"%s","size_bytes":5.0,"sha256":"%s"}' % (b"a" * 32, b"b" * 64)
    document = wire.decode("done", text)
    assert [type(document[name]) for name in ("sv", "size_bytes")] == [int, int]
    assert wire.canonical(document) == wire.canonical({**document, "size_bytes": 5})


def test_numbers_that_are_none_are_refused():
    for number in (b"1e999", b"-1e999", b"NaN", b"Infinity"):
        with pytest.raises(MalformedMessage, match="not JSON"):
            wire.decode("done", b'{"sv":%s}' % number)
