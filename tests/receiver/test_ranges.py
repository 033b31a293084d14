"""Ranges against the plain set of positions that they stand for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.receiver.ranges import Ranges

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=20)


def positions(spans):
    return {at for start, end in spans for at in range(start, end)}


@given(spans=SPANS)
def test_ranges_are_the_set_of_their_positions(spans):
    ranges = Ranges(spans)
    assert positions(ranges.spans) == positions(spans)
    assert ranges.size_bytes == len(positions(spans))


@given(spans=SPANS)
def test_spans_are_sorted_apart_and_not_empty(spans):
    found = Ranges(spans).spans
    assert all(start < end for start, end in found)
    assert all(one[1] < other[0] for one, other in pairwise(found))


@given(spans=SPANS, size=st.integers(0, 60))
def test_missing_is_the_rest_of_the_file(spans, size):
    missing = Ranges(spans).missing(size, 1000)
    assert positions(missing) == set(range(size)) - positions(spans)
    assert all(start < end <= size for start, end in missing)


@given(spans=SPANS, limit=st.integers(0, 4))
def test_missing_is_bounded_and_begins_at_the_front(spans, limit):
    everything = Ranges(spans).missing(60, 1000)
    assert Ranges(spans).missing(60, limit) == everything[:limit]


def test_ranges_survive_the_way_through_the_index():
    ranges = Ranges([[5, 9], [0, 2]])
    assert Ranges([list(span) for span in ranges.spans]).spans == ((0, 2), (5, 9))
