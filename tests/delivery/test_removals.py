"""What the outbox knows of numbers that are gone: removed ones, and those of earlier boots."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import Lane, Message
from agent.core.wire import Topics
from agent.delivery import removals
from agent.delivery.outbox import Outbox
from agent.delivery.removals import Span

TOPICS = Topics("plaza", "cam-1")


def row(number, boot=1, lane="telemetry"):
    return {"boot": boot, "lane": lane, "payload": b'{"seq":%d}' % number}


def test_the_numbers_of_an_earlier_boot_are_known_until_this_one_counts(store, clock):
    before = Outbox(store, TOPICS, clock, boot=1)
    assert before.earlier() == []
    for _ in range(3):
        before.put(Message(Lane.TELEMETRY, "sample", {}))
    assert before.earlier() == []
    after = Outbox(store, TOPICS, clock, boot=2)
    assert after.earlier() == [{"boot": 1, "lane": "telemetry", "last": 3}]
    after.put(Message(Lane.TELEMETRY, "sample", {}))
    assert after.earlier() == []


def test_removed_numbers_are_kept_as_few_spans_and_bounded(store, monkeypatch):
    monkeypatch.setattr(removals, "MOST_SPANS", 3)
    for numbers in ((1, 2, 3), (4, 5), (9,), (20,), (30,)):
        store.write(lambda connection, n=numbers: removals.note(connection, map(row, n)))

    def within(first, last, boot=1, lane="telemetry"):
        with store.reading() as connection:
            return removals.within(connection, Span(boot, lane, first, last))

    assert within(1, 99) == {9, 20, 30}, "the oldest made room"
    assert within(10, 20) == {20}
    assert within(1, 99, boot=2) == within(1, 99, lane="alarm") == set()


@given(st.sets(st.integers(1, 60)))
def test_spans_hold_the_numbers_and_no_others(numbers):
    spans = removals.joined(numbers)
    assert {n for first, last in spans for n in range(first, last + 1)} == numbers
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(spans))
