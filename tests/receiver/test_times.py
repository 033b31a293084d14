"""Adjusted times beside the original ones: of what is here, of what comes late, of events."""

import json

import pytest

from agent.core import wire
from agent.core.clock import SimClock
from agent.core.store import Store
from agent.receiver import times
from agent.receiver.inbox import Inbox, read
from agent.receiver.index import FILE_NAME, contents
from agent.receiver.schema import RECEIVER_MIGRATIONS
from tests.receiver.rig import Device

TRUE_MS = 1_800_000_000_000


@pytest.fixture
def centre(tmp_path):
    store = Store(tmp_path / FILE_NAME, RECEIVER_MIGRATIONS, SimClock())
    store.open()
    yield store
    store.close()


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def post(centre, device, *envelopes):
    inbox = Inbox(centre, SimClock())
    for envelope in envelopes:
        topic = wire.address(device.topics.up(envelope["kind"]))
        message = read(topic, wire.encode(envelope))
        inbox.keep([message])
    return message


def adjustment(device, number=900, **changes):
    body = {
        "boot": 1,
        "from_mono_ms": 0,
        "to_mono_ms": 10_000,
        "offset_ms": TRUE_MS,
        "error_ms": 4,
        "source": "gps",
        "why": "first sync",
    } | changes
    return device.envelope(number, "time", body, lane="state")


def stamps(centre):
    with centre.reading() as connection:
        return {
            row["seq"]: (row["t_utc_ms"], row["adjusted_utc_ms"], row["adjusted_error_ms"])
            for row in connection.execute(
                "SELECT * FROM message WHERE kind LIKE 'event/%' ORDER BY seq"
            )
        }


ORIGINAL = 1_700_000_000_000


@pytest.mark.parametrize("is_late", [False, True])
def test_both_times_are_kept_whichever_comes_first(centre, device, is_late):
    messages = [device.envelope(1, mono_ms=500), device.envelope(2, mono_ms=10_000)]
    messages.append(device.envelope(3, mono_ms=500, boot=2))
    told = [adjustment(device)]
    post(centre, device, *(told + messages if is_late else messages + told))
    assert stamps(centre) == {
        1: (ORIGINAL, TRUE_MS + 500, 4),
        2: (ORIGINAL, None, None),
        3: (ORIGINAL, None, None),
    }
    events = {row["event_id"]: row for row in contents(centre.path.parent)["events"]}
    shifts = [events[item["body"]["event_id"]]["shift_ms"] for item in messages]
    assert shifts == [TRUE_MS + 500 - ORIGINAL, None, None]
    assert {row["start_utc_ms"] for row in events.values()} == {ORIGINAL}


def test_an_adjustment_wants_a_receipt_and_counts_once(centre, device):
    post(centre, device, device.envelope(1, mono_ms=500))
    message = post(centre, device, adjustment(device), adjustment(device))
    assert message.wants_receipt
    with centre.reading() as connection:
        assert connection.execute("SELECT count(*) FROM adjustment").fetchone()[0] == 1


def test_of_two_that_overlap_the_later_counts_in_any_order(centre, device):
    first = adjustment(device, 900)
    other = adjustment(device, 901, from_mono_ms=400, to_mono_ms=20_000, offset_ms=TRUE_MS + 7)
    post(centre, device, device.envelope(1, mono_ms=500), other, first)
    post(centre, device, device.envelope(2, mono_ms=500), device.envelope(3, mono_ms=300))
    assert [stamp[1] for stamp in stamps(centre).values()] == [
        *(TRUE_MS + 507, TRUE_MS + 507, TRUE_MS + 300)
    ]


def test_a_device_that_adjusts_without_end_is_bounded(centre, device, monkeypatch, caplog):
    monkeypatch.setattr(times, "MOST_A_BOOT", 3)
    post(centre, device, *(adjustment(device, 900 + number) for number in range(6)))
    with centre.reading() as connection:
        assert connection.execute("SELECT count(*) FROM adjustment").fetchone()[0] == 3
    assert "too many adjustments" in caplog.text


def test_messages_of_a_store_from_before_get_their_monotonic_time(tmp_path, device):
    old = Store(tmp_path / "old.db", RECEIVER_MIGRATIONS[:3], SimClock())
    old.open()
    payload = json.dumps(device.envelope(1, mono_ms=77)).encode()
    old.write(
        lambda connection: connection.execute(
            "INSERT INTO message (device, id, boot, lane, seq, kind, t_utc_ms, received_utc_ms,"
            " payload) VALUES ('cam-1', 'x', 1, 'alarm', 1, 'event/a', 5, 6, ?)",
            (payload,),
        )
    )
    old.close()
    new = Store(tmp_path / "old.db", RECEIVER_MIGRATIONS, SimClock())
    new.open()
    with new.reading() as connection:
        assert connection.execute("SELECT mono_ms FROM message").fetchone()[0] == 77
    new.close()
