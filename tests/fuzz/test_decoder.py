"""The decoder of every message: any bytes give a valid document or MalformedMessage, soon."""

import json
import re
import time
from functools import cache
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import MalformedMessage
from tests.fuzz.hostile import RUBBISH, TEXTS, examples, spoiled

PAGE = (Path(__file__).parents[2] / "docs" / "WIRE.md").read_text()
GOOD = {
    name: json.loads(text)
    for name, text in re.findall(r"^```json (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
}
MOST_S = 5.0  # for the largest message there is, on a slow machine


@cache
def independent(schema):
    return jsonschema.Draft7Validator(json.loads(wire.schema_text(schema)))


def decoded(schema, content):
    """Decode; whatever is taken must also be good in other eyes, and stay the same."""
    begun_s = time.monotonic()
    try:
        document = wire.decode(schema, content)
    except MalformedMessage as error:
        document, reason = None, str(error)
    else:
        reason = ""
    assert len(reason) < 1000  # it goes into a row and a log line
    assert time.monotonic() - begun_s < MOST_S
    if document is None:
        return None
    assert independent(schema).is_valid(document)
    assert wire.decode(schema, json.dumps(document).encode()) == document
    return document


@pytest.mark.parametrize("schema", wire.SCHEMAS)
@given(data=st.data())
@examples(60)
def test_a_good_message_with_one_thing_wrong(schema, data):
    assert decoded(schema, json.dumps(GOOD[schema]).encode()) == GOOD[schema]
    decoded(schema, data.draw(spoiled(GOOD[schema])))


@given(schema=st.sampled_from(wire.SCHEMAS), content=RUBBISH)
@examples(150)
def test_rubbish_is_refused(schema, content):
    assert decoded(schema, content) is None


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_each_known_kind_of_rubbish_is_refused(number):
    assert decoded("envelope", TEXTS[number]) is None


@pytest.mark.parametrize("schema", wire.SCHEMAS)
def test_a_part_that_stands_twice_is_refused(schema):
    """Two readers could take different ones: what was signed for must mean one thing."""
    good = json.dumps(GOOD[schema])
    for name in GOOD[schema]:
        twice = "{" + f"{json.dumps(name)}:{json.dumps(GOOD[schema][name])}," + good[1:]
        with pytest.raises(MalformedMessage, match="twice"):
            wire.decode(schema, twice.encode())


def test_a_part_within_a_part_that_stands_twice_is_refused():
    good = json.dumps(GOOD["envelope"], separators=(",", ":"))
    assert '"error_ms":12' in good
    with pytest.raises(MalformedMessage, match=r"error_ms.*twice"):
        wire.decode(
            "envelope", good.replace('"error_ms":12', '"error_ms":0,"error_ms":12').encode()
        )
