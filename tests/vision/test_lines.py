"""Lines of the analysis process: what one side writes, the other reads; nothing else gets in."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import MalformedMessage
from agent.core.model import Event, EventState
from agent.vision import lines

EVENT = Event(
    event_id="0" * 31 + "a",
    camera="west",
    kind="line_cross",
    rule="over-kerb",
    state=EventState.CLOSED,
    start_utc_ns=1_700_000_000_123_456_789,
    end_utc_ns=1_700_000_004_000_000_000,
    label="person",
    score=0.87654321,
    track_ids=(3, 9),
    measured={"direction": -1.0, "x": 0.5},
    model="ssd@0830e93f343b",
    reason="a_to_b",
    pre_s=2.0,
    post_s=3.5,
    snapshot=Path("spool/x.jpg"),
    path=((1_700_000_000_123, 0.5, 0.25), (1_700_000_000_623, 0.52, 0.25)),
)


def test_an_event_comes_back_as_it_was():
    assert lines.from_line(lines.to_line(EVENT)) == EVENT
    opened = replace(EVENT, state=EventState.OPEN, end_utc_ns=None, snapshot=None, path=())
    assert lines.from_line(lines.to_line(opened)) == opened


def test_a_line_is_one_line():
    assert "\n" not in lines.to_line(replace(EVENT, reason="two\nlines"))
    assert json.loads(lines.line("stats", camera="west", lag_ms=None)) == {
        "type": "stats",
        "camera": "west",
        "lag_ms": None,
    }


def test_the_body_is_what_the_centre_accepts():
    body = lines.event_body(EVENT)
    wire.check("event", body)
    assert body["start_utc_ms"] == 1_700_000_000_123
    assert body["score"] == 0.8765
    assert body["onvif_topic"] == "tns1:RuleEngine/LineDetector/Crossed"
    assert "path" not in body
    assert "snapshot" not in body


def test_a_kind_that_onvif_does_not_know_has_no_topic():
    assert "onvif_topic" not in lines.event_body(replace(EVENT, kind="something_else"))


@given(
    start=st.integers(0, 2**62),
    length=st.integers(0, 2**40),
    score=st.floats(0, 1),
    measured=st.dictionaries(
        st.sampled_from(["dwell_s", "x", "y"]), st.floats(-1e6, 1e6, allow_nan=False)
    ),
    path=st.lists(st.tuples(st.integers(0, 2**42), st.floats(0, 1), st.floats(0, 1)), max_size=20),
    reason=st.text(max_size=100),
)
@settings(max_examples=60, deadline=None)
def test_any_event_survives_the_pipe(start, length, score, measured, path, reason):
    event = replace(
        EVENT,
        start_utc_ns=start,
        end_utc_ns=start + length,
        score=score,
        measured=measured,
        path=tuple(path),
        reason=reason,
    )
    assert lines.from_line(lines.to_line(event)) == event


def _changed(**fields: object) -> str:
    said = json.loads(lines.to_line(EVENT))
    said["event"].update(fields)
    return json.dumps(said)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        '{"type":"event"}',
        '{"type":"stats","event":{}}',
        _changed(state="half"),
        _changed(start_utc_ns="now"),
        _changed(start_utc_ns=-1),
        _changed(end_utc_ns=1.5),
        _changed(event_id="short"),
        _changed(camera="../up"),
        _changed(score=2),
        _changed(score=float("nan")),
        _changed(measured={"dwell_s": "long"}),
        _changed(track_ids=["a"]),
        _changed(snapshot="/etc/passwd"),
        _changed(snapshot="spool/../../x"),
        _changed(snapshot=""),
        _changed(path=[[1, 2]]),
        _changed(path=[[1, 0.5, 0.5]] * 601),
        _changed(extra=1),
        "[" * 100_000,
        '{"type":"event","event":"' + "x" * 300_000 + '"}',
    ],
)
def test_what_is_no_event_is_refused(text):
    with pytest.raises(MalformedMessage):
        lines.from_line(text)
