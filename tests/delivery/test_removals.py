"""What the outbox knows of numbers that are gone: removed ones, and those of earlier boots."""

import json
import sqlite3
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.wire import Topics
from agent.delivery import removals
from agent.delivery.outbox import Outbox
from agent.delivery.removals import Span

TOPICS = Topics("plaza", "cam-1")


def row(number, boot=1, lane="telemetry"):
    return {"boot": boot, "lane": lane, "payload": b'{"sv":1,"seq":%d}' % number}


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
    for numbers in ((1, 2, 3), (4, 5), (9_000,), (20_000,), (30_000,)):
        store.write(lambda connection, n=numbers: removals.note(connection, map(row, n)))

    def within(first, last, boot=1, lane="telemetry"):
        with store.reading() as connection:
            return removals.within(connection, Span(boot, lane, first, last))

    assert within(1, 99_999) == dict.fromkeys((9_000, 20_000, 30_000), "evicted"), (
        "the oldest made room"
    )
    assert within(10_000, 20_000) == {20_000: "evicted"}
    assert within(1, 99_999, boot=2) == within(1, 99_999, lane="alarm") == {}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("evicted", "dropped")), st.sets(st.integers(1, 9000))),
        max_size=5,
    )
)
def test_what_was_removed_is_known_whatever_the_order(noted):
    left = {}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        for step in DEVICE_MIGRATIONS:
            connection.executescript(step)
        for reason, numbers in noted:
            fresh = numbers - set(left)
            told = removals.note(connection, map(row, fresh), reason)
            assert sum(span.total for span in told) == len(fresh)
            left |= dict.fromkeys(fresh, reason)
        assert removals.within(connection, Span(1, "telemetry", 1, 9000)) == left


def test_a_thinned_day_is_few_rows_and_few_words(store):
    numbers = [number for number in range(1, 86_401) if number % 4]
    told = []
    for at in range(0, len(numbers), 375):
        block = numbers[at : at + 375]
        told += store.write(lambda connection, n=block: removals.note(connection, map(row, n)))
    with store.reading() as connection:
        (rows,) = connection.execute("SELECT count(*) FROM removed").fetchone()
        assert len(removals.within(connection, Span(1, "telemetry", 1, 86_400))) == 64_800
    assert rows < 60
    together = removals.together(told)
    assert len(together) < 30
    assert len(json.dumps(removals.told(together))) < 20_000
    store.write(lambda connection: removals.note(connection, map(row, range(4, 86_401, 4))))
    with store.reading() as connection:
        (rows,) = connection.execute("SELECT count(*) FROM removed").fetchone()
    assert rows == 1
