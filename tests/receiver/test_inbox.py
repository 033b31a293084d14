"""Messages: each once, events never back to open, holes counted, odd values refused."""

import json
from contextlib import closing

import pytest

from agent.core import wire
from agent.core.clock import SimClock
from agent.core.errors import MalformedMessage
from agent.core.store import Store, read_only
from agent.receiver.inbox import Inbox, read
from agent.receiver.index import FILE_NAME, contents
from agent.receiver.schema import RECEIVER_MIGRATIONS
from tests.receiver.rig import Device, event


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


@pytest.fixture
def post(tmp_path):
    """Take documents as they would come on their topics; gives how many were new."""
    store = Store(tmp_path / FILE_NAME, RECEIVER_MIGRATIONS, SimClock())
    store.open()
    inbox = Inbox(store, SimClock())
    yield lambda *documents: inbox.keep([taken(document) for document in documents])
    store.close()


def taken(document, **changes):
    topic = wire.address(f"outpost/1/plaza/{document['device']}/{document['kind']}")
    return read(topic, wire.encode(document | changes))


def events(tmp_path):
    return contents(tmp_path)["events"]


def body(tmp_path):
    with closing(read_only(tmp_path / FILE_NAME)) as connection:
        return json.loads(connection.execute("SELECT body FROM event").fetchone()[0])


def test_known_id_is_dropped(post, device, tmp_path):
    first = device.envelope(1)
    assert post(first, first) == 1
    assert post(first) == 0
    assert len(events(tmp_path)) == 1
    assert contents(tmp_path)["devices"][0]["messages"] == 1


def opened_and_closed(device):
    opened = event(1, "open", score=0.3)
    closed = event(1, "closed", score=0.9, reason="left the zone")
    return device.envelope(1, body=opened), device.envelope(2, body=closed)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0), (1, 0, 1)])
def test_closed_event_stays_closed_in_any_order(post, device, tmp_path, order):
    messages = opened_and_closed(device)
    for number in order:
        post(messages[number])
    (row,) = events(tmp_path)
    assert (row["state"], row["end_utc_ms"]) == ("closed", 1_700_000_005_000)


def test_body_is_kept_and_a_second_closing_does_not_change_it(post, device, tmp_path):
    post(*opened_and_closed(device))
    post(device.envelope(3, body=event(1, "closed", score=0.1, reason="forged")))
    assert body(tmp_path)["reason"] == "left the zone"


def test_devices_do_not_meet_in_ids(post, device, tmp_path):
    other = Device(tmp_path, "cam-2")
    mine, theirs = device.envelope(1), other.envelope(1)
    theirs["id"] = mine["id"]
    assert post(mine, theirs) == 2
    assert sorted(row["device"] for row in events(tmp_path)) == ["cam-1", "cam-2"]


def test_holes_are_counted_and_close_again(post, device, tmp_path):
    for number in (1, 2, 5, 9):
        post(device.envelope(number))
    post(device.envelope(3, boot=2, lane="state", seq=3))
    assert contents(tmp_path)["lost"] == [
        {"device": "cam-1", "boot": 1, "lane": "alarm", "messages": 5},
        {"device": "cam-1", "boot": 2, "lane": "state", "messages": 2},
    ]
    post(*(device.envelope(number) for number in (8, 7, 6, 4, 10, 11)))
    assert contents(tmp_path)["lost"][0]["messages"] == 1


@pytest.mark.parametrize(
    ("document", "is_wanted"),
    [
        ({}, True),
        ({"lane": "telemetry"}, True),
        ({"kind": "beat2", "body": {}, "lane": "telemetry"}, False),
        ({"kind": "beat2", "body": {}, "lane": "alarm"}, True),
    ],
)
def test_events_and_alarms_want_a_receipt(device, document, is_wanted):
    assert taken(device.envelope(1) | document).wants_receipt is is_wanted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "event/line_cross"}, "kind 'event/line_cross' on topic 'event/zone_enter'"),
        ({"device": "cam-2"}, "envelope of 'cam-2' on a topic of 'cam-1'"),
        ({"boot": 10**30}, "boot"),
        ({"seq": 1 << 63}, "seq"),
        ({"seq": 1.5}, "seq"),
        ({"boot": 1e300}, "boot"),
        ({"t_utc_ms": 5.5}, "t_utc_ms"),
        ({"body": event(1, end_utc_ms=10**30)}, "end_utc_ms"),
        ({"body": event(1, end_utc_ms=7.5)}, "end_utc_ms"),
        ({"body": event(1, start_utc_ms=7.5)}, "start_utc_ms"),
        ({"body": event(1, state="ended")}, "state"),
        ({"body": {}}, "event_id"),
        ({"id": "x"}, "id"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(device, change, words):
    topic = wire.address("outpost/1/plaza/cam-1/event/zone_enter")
    with pytest.raises(MalformedMessage, match=words):
        read(topic, wire.encode(device.envelope(1) | change))


def test_texts_that_no_database_likes_are_kept_as_they_came(post, device, tmp_path):
    """Lone surrogates and NUL are JSON, though nobody's idea of text."""
    document = device.envelope(1, body=event(1, label="\ud800", reason="\0"))
    topic = wire.address("outpost/1/plaza/cam-1/event/zone_enter")
    store = Store(tmp_path / "other" / FILE_NAME, RECEIVER_MIGRATIONS, SimClock())
    store.open()
    payload = json.dumps(document).encode()
    assert Inbox(store, SimClock()).keep([read(topic, payload)]) == 1
    store.close()
    assert body(tmp_path / "other")["label"] == "\ud800"
