"""Receipts for messages: at once for the first, then few for many."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.core.clock import SimClock
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import check_row_receipt
from agent.receiver.rows import MOST_IDS, MOST_WAITING, RowReceipts

KEY = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))


@pytest.fixture
def clock():
    return SimClock()


@pytest.fixture
def rows(clock):
    return RowReceipts("centre-1", KEY, clock)


def number(at):
    return f"{at:032x}"


def due(rows):
    found = []
    for device, document in rows.due():
        found.append((device, check_row_receipt(document, KEY.public, device)))
    return found


def test_first_message_is_signed_for_at_once(rows):
    assert not rows.is_waiting
    rows.add("cam-1", number(1))
    assert rows.is_waiting
    assert due(rows) == [("cam-1", (number(1),))]
    assert not rows.is_waiting
    assert due(rows) == []


def test_following_messages_share_a_receipt_every_200_ms(rows, clock):
    rows.add("cam-1", number(1))
    due(rows)
    for at in range(2, 6):
        rows.add("cam-1", number(at))
        assert due(rows) == []
        clock.advance(0.03)
    clock.advance(0.1)
    assert due(rows) == [("cam-1", tuple(map(number, range(2, 6))))]


def test_flood_of_one_repeated_message_costs_five_signatures_a_second(rows, clock):
    signatures = 0
    for _ in range(1000):
        rows.add("cam-1", number(1))
        signatures += len(due(rows))
        clock.advance(0.001)
    assert signatures == 5


def test_full_receipts_do_not_wait(rows):
    rows.add("cam-1", number(0))
    due(rows)
    for at in range(1, 2 * MOST_IDS + 8):
        rows.add("cam-1", number(at))
    found = due(rows)
    assert [len(ids) for _, ids in found] == [MOST_IDS, MOST_IDS]
    assert rows.is_waiting


def test_devices_do_not_wait_for_each_other(rows):
    rows.add("cam-1", number(1))
    due(rows)
    rows.add("cam-1", number(2))
    rows.add("cam-2", number(3))
    assert due(rows) == [("cam-2", (number(3),))]


def test_waiting_ids_are_bounded(rows, clock):
    for at in range(MOST_WAITING + 700):
        rows.add("cam-1", number(at))
    clock.advance(1)
    assert sum(len(ids) for _, ids in due(rows)) == MOST_WAITING


def test_batches_do_not_wait_and_take_along_what_does(rows):
    rows.add("cam-1", number(1))
    due(rows)
    rows.add("cam-1", number(2))
    rows.add_batch("cam-1", number(3))
    assert due(rows) == [("cam-1", (number(2), number(3)))]
    rows.add("cam-1", number(4))
    assert due(rows) == [], "what comes after it rests again"
