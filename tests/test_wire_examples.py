"""Every message of docs/WIRE.md is valid: by our own check and by the jsonschema package."""

import base64
import hashlib
import json
import re
from pathlib import Path

import jsonschema
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.core import wire
from agent.core.errors import MalformedMessage

PAGE = (Path(__file__).parent.parent / "docs" / "WIRE.md").read_text()
EXAMPLES = re.findall(r"^```json (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("schema", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_example_is_valid_by_both_checks(schema, text):
    document = wire.decode(schema, text.encode())
    jsonschema.Draft7Validator(json.loads(wire.schema_text(schema))).validate(document)
    assert wire.encode(document).decode() == text.strip(), "examples are compact, as on the wire"


@pytest.mark.parametrize("schema", wire.SCHEMAS)
def test_every_schema_is_itself_valid_and_has_an_example(schema):
    document = json.loads(wire.schema_text(schema))
    jsonschema.Draft7Validator.check_schema(document)
    assert schema in {name for name, _ in EXAMPLES}


def test_every_fenced_json_block_names_its_schema():
    assert len(re.findall(r"^```json", PAGE, re.MULTILINE)) == len(EXAMPLES)
    assert {name for name, _ in EXAMPLES} == set(wire.SCHEMAS)


@pytest.mark.parametrize(("schema", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_both_checks_refuse_the_example_with_any_required_part_missing(schema, text):
    rules = json.loads(wire.schema_text(schema))
    independent = jsonschema.Draft7Validator(rules)
    for name in rules["required"]:
        broken = {key: value for key, value in json.loads(text).items() if key != name}
        assert not independent.is_valid(broken)
        with pytest.raises(MalformedMessage):
            wire.check(schema, broken)


@pytest.mark.parametrize(("schema", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_both_checks_refuse_an_unknown_part(schema, text):
    broken = json.loads(text) | {"surprise": 1}
    assert not jsonschema.Draft7Validator(json.loads(wire.schema_text(schema))).is_valid(broken)
    with pytest.raises(MalformedMessage):
        wire.check(schema, broken)


def test_the_batch_holds_two_messages_and_has_the_id_that_the_page_says():
    text = re.search(r"^```base64 batch\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
    frame = base64.b64decode(text)
    assert f"with the id `{hashlib.sha256(frame).hexdigest()[:32]}`" in PAGE
    assert f"two messages in {len(frame)} bytes" in PAGE
    content = zstandard.ZstdDecompressor().decompress(frame)
    envelopes = [wire.decode("envelope", line) for line in content.split(b"\n")]
    assert len(envelopes) == 2
    for envelope in envelopes:
        wire.check("position", envelope["body"])
        assert wire.encode(envelope) in content, "the bytes that would have gone alone"


def test_the_body_in_the_envelope_is_valid_too():
    envelope = json.loads(dict(EXAMPLES)["envelope"])
    wire.check(envelope["kind"].split("/")[0], envelope["body"])


def test_the_signatures_are_true_and_cover_valid_documents():
    examples = {name: json.loads(text) for name, text in EXAMPLES}
    for envelope, schema in (
        (examples["offer"]["manifest"], "manifest"),
        (examples["beat"]["custody"], "custody"),
        (examples["command_status"]["record"], "gap"),
        (examples["receiver_keys"]["rotations"][0], "rotation"),
    ):
        payload = base64.b64decode(envelope["payload"])
        assert payload == wire.canonical(examples[schema])
        (signature,) = envelope["signatures"]
        seed = 2 if schema == "rotation" else 1
        verify(seed, signature["keyid"], signature["sig"], envelope["payloadType"], payload)
    for name, kind in (
        ("row_receipt", "receipt.rows"),
        ("file_receipt", "receipt.file"),
        ("command", "command"),
        ("store", "store"),
    ):
        document = dict(examples[name])
        sig = document.pop("sig")
        payload_type = f"application/vnd.outpost.{kind}+json"
        verify(2, document["keyid"], sig, payload_type, wire.canonical(document))


def verify(seed, keyid, sig, payload_type, payload):
    """Plain DSSE by hand: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key()
    assert keyid == "ed25519:" + hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]
    encoded = b"DSSEv1 %d %s %d " % (len(payload_type), payload_type.encode(), len(payload))
    key.verify(base64.b64decode(sig), encoded + payload)


def test_every_topic_of_the_code_stands_in_the_table():
    topics = wire.Topics("plaza", "cam-0001")
    written = {
        topics.receipt.removeprefix(topics.root + "/"),
        *(
            topic.removeprefix(topics.root + "/").replace("+", "<fid>")
            for topic in topics.file_down
        ),
        *(
            "birth",
            "death",
            "beat",
            "state/<name>",
            "event/<kind>",
            "time",
            "position",
            "report/dock",
        ),
        *("command/<id>", "command/<id>/status", "gap/file", "want/store", "want/receiver_key"),
        "backfill/<kind>",
        *(f"file/<fid>/{part}" for part in ("offer", "done", "<offset>")),
    }
    for topic in written:
        assert f"| `{topic}` |" in PAGE
