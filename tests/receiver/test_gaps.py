"""Missing numbers: noted with the message, closed by late ones, explained by the device's word."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import SimClock
from agent.core.errors import MalformedMessage
from agent.core.spans import Piece, joined, pieces, runs_of
from agent.core.store import Store, migrate
from agent.delivery.removals import worded
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
    query = "SELECT first_seq, last_seq, marks FROM gap WHERE state = ?"
    found = [
        number
        for row in connection.execute(query, (state,))
        for first, last in runs_of(Piece(*row))
        for number in range(first, last + 1)
    ]
    assert len(found) == len(set(found)), "no number stands in two gaps"
    return set(found)


def say(connection, *items, boot=1, state="evicted", lane="telemetry"):
    """A state/outbox of which each item is the numbers of one span."""
    removed = [
        {"boot": boot, "lane": lane, **worded(piece)}
        for item in items
        for piece in pieces(joined(item))
    ]
    body = {"state": state, "removed": removed}
    gaps.check_spans(removed)
    gaps.tell_removed(connection, {"device": "cam-1", "body": body}, 1000)


def because(reason, record=None):
    return gaps.Why(reason, record, 1000)


@settings(deadline=None)
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
            gaps.tell(connection, SERIES, [(first, last)], because("taken", {"a": 1}))
            explained |= set(range(first, last + 1))
        come(connection, *order[half:])
        missing = set(range(1, max(order))) - set(order)
        assert numbers(connection, "open") == missing - explained
        # What came before it was told is here, whatever is told of it.
        above = {number for number in explained if number > max(order)}
        assert numbers(connection, "told") == (missing & explained) | above


def test_series_do_not_meet():
    with connect() as connection:
        come(connection, 1, 3)
        come(connection, 1, 2, series=Series("cam-1", 2, "telemetry"))
        come(connection, 5, series=Series("cam-2", 1, "telemetry"))
        assert spans(connection) == [(2, 2), (1, 4)]


def test_an_eviction_record_explains_what_it_names_and_no_more():
    with connect() as connection:
        come(connection, 1, 10)
        say(connection, range(2, 7))
        say(connection, range(7, 10), boot=2)
        say(connection)
        assert (spans(connection, "told"), spans(connection)) == ([(2, 6), (7, 9)], [(7, 9)])


def test_what_was_thinned_is_told_and_what_was_kept_still_comes():
    gone = [number for number in range(1, 2001) if number % 4]
    with connect() as connection:
        say(connection, gone)
        assert numbers(connection, "told") == set(gone)
        assert numbers(connection, "open") == set(), "nothing is missed before more has come"
        come(connection, 2001)
        assert numbers(connection, "open") == set(range(4, 2001, 4))
        assert len(spans(connection)) + len(spans(connection, "told")) == 2, "two rows hold it all"
        come(connection, *range(4, 2001, 4))
        assert spans(connection) == []
        assert numbers(connection, "told") == set(gone)
        reasons = connection.execute("SELECT DISTINCT reason FROM gap").fetchall()
        assert [tuple(row) for row in reasons] == [("evicted",)]


@pytest.mark.parametrize("told_first", [True, False])
def test_told_before_or_after_it_is_missed_makes_no_difference(told_first):
    with connect() as connection:
        come(connection, 1)
        if told_first:
            say(connection, {3, 5, 7, 9, 11})
        come(connection, 20)
        if not told_first:
            say(connection, {3, 5, 7, 9, 11})
        assert numbers(connection, "told") == {3, 5, 7, 9, 11}
        assert numbers(connection, "open") == set(range(2, 20)) - {3, 5, 7, 9, 11}


def test_what_was_told_and_comes_all_the_same_is_here():
    with connect() as connection:
        say(connection, range(1, 11))
        come(connection, 4, 12)
        assert numbers(connection, "told") == {1, 2, 3, 5, 6, 7, 8, 9, 10}
        assert numbers(connection, "open") == {11}


def test_rows_dropped_by_hand_are_told_as_that():
    with connect() as connection:
        come(connection, 1, 3)
        say(connection, {2}, state="dropped")
        assert connection.execute("SELECT state, reason FROM gap").fetchone()[1] == "dropped"


def test_a_gap_that_is_being_filled_is_not_asked_for():
    with connect() as connection:
        envelope = {"device": SERIES.device, "boot": SERIES.boot, "lane": SERIES.lane}
        for now_ms, seq in ((1000, 1), (1000, 9), (1050, 2), (1100, 3)):
            gaps.note(connection, {**envelope, "seq": seq, "body": {}}, now_ms, 60)
        (row,) = connection.execute("SELECT first_seq, last_seq, ask_utc_ms FROM gap")
        assert tuple(row) == (4, 8, 1160)


@pytest.mark.parametrize(
    "changes",
    [
        {"to": 1},
        {"only": ""},
        {"only": "AA=="},
        {"only": "A"},
        {"only": "/////w=="},
        {"from": 1.5},
        {"to": 1 << 50, "only": "/w=="},
    ],
)
def test_spans_that_do_not_fit_are_refused(changes):
    good = {"from": 2, "to": 20, "boot": 1, "lane": "telemetry", "only": "/+/g"}
    gaps.check_spans([good])
    with pytest.raises(MalformedMessage):
        gaps.check_spans([good | changes])


def test_marks_that_name_no_number_explain_none():
    with connect() as connection:
        come(connection, 1, 9)
        item = {"from": 2, "to": 8, "boot": 1, "lane": "telemetry", "only": "AA=="}
        body = {"state": "evicted", "removed": [item]}
        gaps.tell_removed(connection, {"device": "cam-1", "body": body}, 1000)
        assert spans(connection) == [(2, 8)]


def test_the_gaps_of_a_device_are_bounded_and_explained_ones_make_room(monkeypatch, caplog):
    monkeypatch.setattr(gaps, "MOST_GAPS", 5)
    with connect() as connection:
        come(connection, *range(2, 200, 2))
        assert spans(connection) == [(1, 1), (3, 3), (5, 5), (7, 7), (9, 9)]
        assert "too many gaps" in caplog.text
        gaps.tell(connection, SERIES, [(3, 5)], because("taken"))
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
            gaps.tell(connection, SERIES, [(1, 3)], because("quarantined", {"signed": 1}))
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
