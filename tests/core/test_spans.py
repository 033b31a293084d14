"""Sets of numbers in few words: nothing added, nothing lost, whatever their shape."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import spans
from agent.core.spans import MOST_MARKED, Piece

NUMBERS = st.sets(st.integers(1, 300), max_size=120)
FAR = st.sets(st.integers(1, 20_000), max_size=60)
RUNS = st.lists(
    st.tuples(st.integers(1, 9000), st.integers(0, 1500)).map(lambda run: (run[0], sum(run))),
    max_size=12,
)


def members(runs):
    return {number for first, last in runs for number in range(first, last + 1)}


@settings(deadline=None)
@given(NUMBERS | FAR)
def test_pieces_hold_what_was_put_in(numbers):
    runs = spans.joined(numbers)
    found = spans.pieces(runs)
    again = [run for piece in found for run in spans.runs_of(piece)]
    assert members(again) == numbers
    assert spans.merged(again) == runs
    assert spans.total(runs) == len(numbers)
    for piece in found:
        assert piece.first in numbers
        assert piece.last in numbers
        assert piece.marks is None or piece.last - piece.first < MOST_MARKED


@settings(deadline=None)
@given(RUNS)
def test_long_runs_stand_for_themselves(runs):
    found = spans.pieces(spans.merged(runs))
    assert members(run for piece in found for run in spans.runs_of(piece)) == members(runs)
    for before, after in itertools.pairwise(found):
        assert before.last < after.first


@settings(deadline=None)
@given(RUNS, RUNS)
def test_both_and_without_are_those_of_sets(left, right):
    ours, theirs = spans.merged(left), spans.merged(right)
    assert members(spans.overlap(ours, theirs)) == members(ours) & members(theirs)
    assert members(spans.without(ours, theirs)) == members(ours) - members(theirs)
    assert spans.total(ours) == len(members(left))


def test_a_thinned_hour_is_a_few_pieces():
    kept_every_fourth = [number for number in range(1, 3601) if number % 4]
    (piece,) = spans.pieces(spans.joined(kept_every_fourth))
    assert (piece.first, piece.last, len(piece.marks)) == (1, 3599, 450)


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (Piece(2, 1), "upwards"),
        (Piece(1, 8, b""), "0 bytes of marks"),
        (Piece(1, 9, b"\xff"), "1 bytes of marks"),
        (Piece(1, 8, b"\xff\xff"), "2 bytes of marks"),
        (Piece(1, 1 << 50, b"\xff"), "a bit for each"),
        (Piece(1, MOST_MARKED + 1, b"\xff" * 513), "up to 4096"),
    ],
)
def test_marks_that_do_not_fit_are_refused(piece, reason):
    with pytest.raises(ValueError, match=reason):
        spans.runs_of(piece)
    assert spans.stored(piece) == []


def test_what_a_disk_has_changed_names_no_number():
    assert spans.stored(Piece("3", 4)) == spans.stored(Piece(1, 8, "text")) == []
    assert spans.stored(Piece(1, 8, b"\x81")) == [(1, 1), (8, 8)]


def test_bits_beyond_the_last_number_are_none():
    assert spans.runs_of(Piece(1, 3, b"\xff")) == [(1, 3)]
    assert spans.runs_of(Piece(1, 3, b"\x00")) == []
