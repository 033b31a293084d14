"""Holds, pauses, receipt timers and back-off, on instants given by hand."""

import random

from agent.core import log
from agent.core.clock import SimClock
from agent.core.model import Lane, Row
from agent.delivery.link import Backoff
from agent.delivery.patience import AwaitedReceipts, Complaints, Holds, Pause

S = 1_000_000_000


def row(row_id):
    return Row(row_id, Lane.ALARM, f"{row_id:032x}", "t", b"", True, False, 0)


def test_a_held_topic_is_probed_ever_more_rarely_up_to_a_minute():
    holds, now, waits = Holds(), 0, []
    for _ in range(9):
        holds.hold("t", now)
        begun = now
        while not holds.allow("t", now):
            now += S // 4
        waits.append((now - begun) / S)
        assert not holds.allow("t", now), "one probe at a time"
        assert holds.held(now) == {"t"}
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    holds.release("t")
    assert holds.allow("t", now)
    assert len(holds) == 0
    assert holds.allow("other", now)


def test_what_was_under_way_when_a_topic_was_held_does_not_lengthen_the_hold():
    holds = Holds()
    for _ in range(20):
        holds.hold("t", 0)
    assert holds.held(S - 1) == {"t"}
    assert holds.held(S) == frozenset()


def test_a_probe_lost_with_its_connection_is_sent_again():
    holds = Holds()
    holds.hold("t", 0)
    assert holds.allow("t", S)
    holds.reconnected(2 * S)
    assert holds.allow("t", 2 * S)


def test_a_pause_doubles_until_something_is_taken():
    pause = Pause()
    assert pause.is_over(0)
    pause.extend(0)
    pause.extend(S // 2)
    assert not pause.is_over(S - 1)
    assert pause.is_over(S)
    pause.extend(S)
    assert not pause.is_over(3 * S - 1)
    assert pause.is_over(3 * S)
    pause.clear()
    pause.extend(3 * S)
    assert pause.is_over(4 * S)


def test_the_wait_for_a_receipt_doubles_up_to_five_minutes():
    awaited, now, waits = AwaitedReceipts(30), 0, []
    for _ in range(6):
        awaited.sent(row(1), now)
        begun = now
        while awaited.waiting(now):
            now += S
        waits.append((now - begun) / S)
    assert waits == [30, 60, 120, 240, 300, 300]
    awaited.receipted([row(1).message_id])
    assert len(awaited) == 0


def test_a_row_that_is_gone_does_not_stay_awaited_for_ever():
    awaited = AwaitedReceipts(30)
    awaited.sent(row(1), 0)
    awaited.waiting(31 * S)
    assert len(awaited) == 1
    awaited.waiting(700 * S)
    assert len(awaited) == 0
    awaited.sent(row(2), 0)
    awaited.forget_all()
    assert awaited.waiting(0) == frozenset()


def test_complaints_are_counted_all_and_logged_once_a_minute(caplog):
    complaints = Complaints(log.get("x"))
    for second in range(130):
        complaints.add("bad", second * S, reason="r")
    assert complaints.count == 130
    assert [record.getMessage() for record in caplog.records] == [
        "bad so_far=1 reason=r",
        "bad so_far=61 reason=r",
        "bad so_far=121 reason=r",
    ]


def test_back_off_is_spread_over_the_whole_span_and_bounded():
    backoff = Backoff(60, random.Random(1))
    waits = [backoff.next_s() for _ in range(2000)][10:]
    assert 0 <= min(waits) < 1
    assert 59 < max(waits) <= 60
    backoff.reset()
    assert backoff.next_s() <= 2
    assert SimClock().mono_ns() == 0
