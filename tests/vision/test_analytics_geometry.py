"""Plane geometry against a second way of computing it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.vision import analytics
from agent.vision.analytics import _geometry as geometry

grid = st.integers(0, 64).map(lambda number: number / 64)  # exact in binary
corner = st.tuples(grid, grid)
place = st.tuples(st.floats(0, 1), st.floats(0, 1))
SQUARE = ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))
BOW_TIE = ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0))


def test_area_length_and_simplicity():
    assert geometry.area(SQUARE) == pytest.approx(0.36)
    assert geometry.area(tuple(reversed(SQUARE))) == pytest.approx(0.36)
    assert geometry.length(SQUARE) == pytest.approx(2.4)
    assert geometry.is_simple(SQUARE)
    assert not geometry.is_simple(BOW_TIE)
    assert not geometry.is_simple(((0, 0), (1, 0), (0.5, 0), (0.5, 1)))
    assert not geometry.is_simple(((0, 0), (1, 0), (0, 0), (0.5, 1)))
    assert geometry.is_simple(((0, 0), (1, 0), (0.5, 1)))


@given(point=place)
@settings(max_examples=100, deadline=None)
def test_depth_in_a_square_is_the_distance_to_its_nearest_side(point):
    x, y = point
    inside = min(x - 0.2, 0.8 - x, y - 0.2, 0.8 - y)
    outside = math.hypot(max(0.2 - x, 0, x - 0.8), max(0.2 - y, 0, y - 0.8))
    wanted = inside if inside > 0 else -outside
    assert geometry.depth(point, SQUARE) == pytest.approx(wanted, abs=1e-9)


@given(point=place, start=place, end=place)
@settings(max_examples=100, deadline=None)
def test_side_turns_with_the_line_and_measures_the_distance(point, start, end):
    if math.dist(start, end) < 0.01:
        return
    one = geometry.side(point, start, end)
    assert geometry.side(point, end, start) == pytest.approx(-one, abs=1e-9)
    assert abs(one) <= math.dist(point, start) + 1e-9
    assert abs(one) <= geometry.distance_to_segment(point, start, end) + 1e-9


@given(a=place, b=place, start=place, end=place)
@settings(max_examples=150, deadline=None)
def test_a_crossing_lies_on_both(a, b, start, end):
    if math.dist(start, end) < 0.01:
        return
    met = geometry.crossing(a, b, start, end)
    sides = geometry.side(a, start, end), geometry.side(b, start, end)
    if met is None:
        assert sides[0] * sides[1] >= 0
        return
    step, along = met
    assert 0 <= step <= 1
    spot = geometry.between(a, b, step)
    on_line = geometry.between(start, end, along)
    assert math.dist(spot, on_line) < 1e-6


@given(a=corner, b=corner, c=corner, d=corner)
@settings(max_examples=150, deadline=None)
def test_meeting_is_symmetric_and_agrees_with_the_crossing(a, b, c, d):
    meets = geometry.segments_meet(a, b, c, d)
    assert meets == geometry.segments_meet(c, d, a, b)
    assert meets == geometry.segments_meet(b, a, c, d)
    if meets:
        near = min(
            geometry.distance_to_segment(point, *segment)
            for point, segment in ((a, (c, d)), (b, (c, d)), (c, (a, b)), (d, (a, b)))
        )
        assert near <= max(math.dist(a, b), math.dist(c, d)) + 1e-9


def test_rounding_has_no_negative_zero():
    assert repr(geometry.rounded(-1e-9)) == "0.0"
    assert geometry.rounded(0.123456789) == 0.123457


def test_kinds_are_found_by_name_and_say_the_same_of_themselves():
    kinds = analytics.kinds()
    assert {"line_cross", "zone_enter", "loiter", "speed"} <= set(kinds)
    for kind, load in kinds.items():
        module = analytics.rule(kind)
        assert load() is module.Config
        assert issubclass(module.Config, analytics.RuleConfig)
        assert module.SPEC.kind == kind
        assert module.SPEC.needs
        assert module.SPEC.needs <= {"tracks", "ground", "picture"}
        assert module.SPEC.version >= 1
