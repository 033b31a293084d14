"""Missing numbers: noted with the message, closed by late ones, explained by the device's word."""

import itertools
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.clock import SimClock
from agent.core.store import Store, migrate
from agent.receiver import gaps
from agent.receiver.gaps import Series
from agent.receiver.schema import RECEIVER_MIGRATIONS

SERIES = Series("cam-1", 1, "telemetry")


def connect():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    for step in RECEIVER_MIGRATIONS:
        connection.executescript(step)
    return closing(connection)


def come(connection, *numbers, series=SERIES, body=None):
    for number in numbers:
        envelope = {"device": series.device, "boot": series.boot, "lane": series.lane}
        gaps.note(connection, envelope | {"seq": number, "body": body or {}}, 1000, 60)


def spans(connection, state="open"):
    query = "SELECT first_seq, last_seq FROM gap WHERE state = ? ORDER BY device, boot, first_seq"
    return [tuple(row) for row in connection.execute(query, (state,))]


def numbers(connection, state):
    return {number for first, last in spans(connection, state) for number in range(first, last + 1)}


@given(
    st.lists(st.integers(1, 40), unique=True, min_size=1),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=3),
)
def test_whatever_the_order_the_gaps_are_what_is_below_the_highest_and_not_here(order, told):
    with connect() as connection:
        half = len(order) // 2
        come(connection, *order[:half])
        explained = set()
        for one, other in told:
            first, last = sorted((one, other))
            missing = set(range(1, max(order[:half], default=0))) - set(order[:half])
            gaps.tell(connection, SERIES, (first, last), "taken", {"a": 1})
            explained |= missing & set(range(first, last + 1))
        come(connection, *order[half:])
        missing = set(range(1, max(order))) - set(order)
        assert numbers(connection, "open") == missing - explained
        assert numbers(connection, "told") == missing & explained
        found = sorted(spans(connection) + spans(connection, "told"))
        assert all(end < first for (_, end), (first, _) in itertools.pairwise(found))


def test_series_do_not_meet():
    with connect() as connection:
        come(connection, 1, 3)
        come(connection, 1, 2, series=Series("cam-1", 2, "telemetry"))
        come(connection, 5, series=Series("cam-2", 1, "telemetry"))
        assert spans(connection) == [(2, 2), (1, 4)]


def test_an_eviction_record_explains_what_it_names_and_no_more():
    with connect() as connection:
        come(connection, 1, 10)
        removed = [{"boot": 1, "lane": "telemetry", "from": 2, "to": 6}]
        removed.append({"boot": 1, "lane": "alarm", "from": 7, "to": 9})
        gaps.tell_evicted(connection, {"device": "cam-1", "body": {"removed": removed}})
        gaps.tell_evicted(connection, {"device": "cam-1", "body": {"detail": "of an old agent"}})
        assert (spans(connection, "told"), spans(connection)) == ([(2, 6)], [(7, 9)])


def test_the_gaps_of_a_device_are_bounded_and_explained_ones_make_room(monkeypatch, caplog):
    monkeypatch.setattr(gaps, "MOST_GAPS", 5)
    with connect() as connection:
        come(connection, *range(2, 200, 2))
        assert spans(connection) == [(1, 1), (3, 3), (5, 5), (7, 7), (9, 9)]
        assert "too many gaps" in caplog.text
        gaps.tell(connection, SERIES, (3, 5), "taken", None)
        come(connection, 300)
        assert spans(connection) == [(1, 1), (7, 7), (9, 9), (199, 299)]
        come(connection, 1, series=Series("cam-2", 1, "alarm"))
        come(connection, 3, series=Series("cam-2", 1, "alarm"))
        assert (2, 2) in spans(connection), "another device is not affected"


def test_gaps_of_a_store_from_before_are_found_by_the_upgrade(tmp_path):
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, RECEIVER_MIGRATIONS[:2], path)
        for seq in (2, 3, 7):
            connection.execute(
                "INSERT INTO message VALUES ('cam-1', ?, 1, 'telemetry', ?, 'beat', 1, 5, '{}')",
                (str(seq), seq),
            )
    store = Store(path, RECEIVER_MIGRATIONS, SimClock())
    store.open()
    with store.reading() as connection:
        assert spans(connection) == [(1, 1), (4, 6)]
    store.write(lambda connection: come(connection, 5, 8))
    with store.reading() as connection:
        assert spans(connection) == [(1, 1), (4, 4), (6, 6)]
    store.close()


@pytest.mark.parametrize("state", ["open", "told"])
def test_a_late_number_takes_itself_out_of_either_kind(state):
    with connect() as connection:
        come(connection, 1, 4)
        if state == "told":
            gaps.tell(connection, SERIES, (1, 9), "quarantined", {"signed": 1})
        come(connection, 3)
        assert spans(connection, state) == [(2, 2)]


def test_a_birth_shows_what_was_lost_at_the_end_of_an_earlier_boot():
    with connect() as connection:
        come(connection, 1, 2)
        numbers = [{"boot": 1, "lane": "telemetry", "last": 5}]
        numbers += [
            {"boot": 2, "lane": "alarm", "last": 9},
            {"boot": 3, "lane": "alarm", "last": 9},
        ]
        birth = {"device": "cam-1", "boot": 2, "body": {"numbers": numbers}}
        gaps.note_earlier(connection, birth, 1000, 60)
        assert spans(connection) == [(3, 5)]
        come(connection, 4)
        gaps.note_earlier(connection, birth, 1000, 60)
        gaps.note_earlier(connection, {**birth, "body": {}}, 1000, 60)
        assert spans(connection) == [(3, 3), (5, 5)]
