"""Rows read ahead: the oldest of the lane whose turn it is, and only what may go."""

from agent.core.model import Lane, Row
from agent.delivery.ahead import PACKET_BYTES, Ahead, packet_bytes


def row(row_id, lane):
    flags = {"needs_receipt": False, "is_retained": False, "tries": 0}
    return Row(row_id, lane, "0" * 32, "a/b", b"x" * 200, **flags)


def drained(ahead, is_open=lambda _row: True):
    found = []
    while (next_row := ahead.next(is_open, 0)) is not None:
        found.append(next_row)
    return found


def test_each_row_comes_once_and_each_lane_in_its_order():
    lanes = (Lane.BACKFILL, Lane.ALARM, Lane.TELEMETRY, Lane.STATE)
    rows = [row(number, lanes[number % 4]) for number in range(80)]
    ahead = Ahead()
    ahead.refill(rows)
    found = drained(ahead)
    assert sorted(one.row_id for one in found) == list(range(80))
    assert found[0].lane is Lane.ALARM
    for lane in lanes:
        ids = [one.row_id for one in found if one.lane is lane]
        assert ids == sorted(ids)
    assert not ahead


def test_what_may_not_go_stays_and_holds_up_no_other_lane():
    ahead = Ahead()
    ahead.refill([row(1, Lane.TELEMETRY), row(2, Lane.ALARM), row(3, Lane.ALARM)])
    found = drained(ahead, lambda one: one.lane is Lane.ALARM)
    assert [one.row_id for one in found] == [2, 3]
    assert ahead
    assert [one.row_id for one in drained(ahead)] == [1]


def test_a_refill_takes_the_place_of_what_was_left():
    ahead = Ahead()
    ahead.refill([row(1, Lane.ALARM)])
    ahead.refill([row(2, Lane.STATE)])
    assert [one.row_id for one in drained(ahead)] == [2]


def test_the_size_is_that_of_the_packet():
    assert packet_bytes(row(1, Lane.ALARM)) == len("a/b") + 200 + PACKET_BYTES
