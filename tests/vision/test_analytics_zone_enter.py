"""Zones: who is inside, since when and for how long, at any frame rate."""

import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.core.model import Phase, Point, View, Zone
from agent.vision.analytics import Places, zone_enter
from tests.vision.tracks import play, track, views

SQUARE = (Point(0.3, 0.3), Point(0.7, 0.3), Point(0.7, 0.7), Point(0.3, 0.7))
PLACES = Places(zones={"gate": Zone("gate", SQUARE)}, lines={})
RULE = zone_enter.Config(name="in", zone="gate")
FPS = [2.0, 2.5, 5.0, 10.0, 15.0, 30.0]


def walk_through(speed: float, y: float = 0.5):
    return lambda t: (0.05 + speed * t, y)


def phases(said) -> list[str]:
    return [signal.phase.value for signal in said]


def test_a_walk_through_begins_and_ends_at_the_border_and_tells_the_dwell():
    said = play(zone_enter, views(walk_through(0.1), 9, 10), RULE, PLACES)
    assert phases(said) == ["begin", "end"]
    begin, end = said
    assert begin.t_us == pytest.approx((0.31 - 0.05) / 0.1 * 1e6, abs=2)
    assert end.t_us == pytest.approx((0.71 - 0.05) / 0.1 * 1e6, abs=2)
    assert end.reason == "left"
    assert end.measured["dwell_s"] == pytest.approx(4.0, abs=1e-5)
    assert begin.measured == {"x": pytest.approx(0.31, abs=1e-5), "y": 0.5}
    assert begin.key == end.key == "1"


@given(speed=st.floats(0.1, 0.4), y=st.floats(0.35, 0.65), slope=st.floats(-0.02, 0.02))
@settings(max_examples=25, deadline=None)
def test_dwell_does_not_depend_on_the_frame_rate(speed, y, slope):
    def path(t: float) -> tuple[float, float]:
        return 0.05 + speed * t, y + slope * t

    seconds = 0.8 / speed
    assume(0.33 < path(seconds)[1] < 0.67)
    dwells, begins = [], []
    for fps in FPS:
        assume(path(math.floor(seconds * fps) / fps)[0] > 0.72)
        said = play(zone_enter, views(path, seconds, fps), RULE, PLACES)
        assert phases(said) == ["begin", "end"]
        dwells.append(said[1].measured["dwell_s"])
        begins.append(said[0].t_us)
    assert max(dwells) - min(dwells) < 0.002
    assert max(begins) - min(begins) < 2_000
    assert dwells[0] == pytest.approx(0.4 / speed, abs=0.01)


def test_running_through_between_two_looks_still_counts():
    points = [(0, 0.1, 0.5), (500_000, 0.9, 0.5)]
    made = [View(points[n][0], 0, (track(points[: n + 1]),)) for n in range(2)]
    said = play(zone_enter, made, RULE, PLACES)
    assert phases(said) == ["begin", "end"]
    assert said[1].measured["dwell_s"] == pytest.approx(0.25, abs=0.001)


@given(margin=st.floats(0.0, 0.009), seed=st.integers(0, 1000), fps=st.sampled_from(FPS))
@settings(max_examples=60, deadline=None)
def test_grazing_the_border_is_no_entry(margin, seed, fps):
    dice = random.Random(seed)

    def path(t: float) -> tuple[float, float]:
        return 0.2 + 0.1 * t, 0.3 + margin * dice.uniform(-1, 1)

    assert play(zone_enter, views(path, 6, fps), RULE, PLACES) == []


@given(seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_trembling_on_the_border_makes_one_event(seed):
    dice = random.Random(seed)

    def path(t: float) -> tuple[float, float]:
        return min(0.05 + 0.1 * t, 0.315), 0.5 + dice.uniform(-0.008, 0.008)

    said = play(zone_enter, views(path, 20, 5), RULE, PLACES)
    assert phases(said) == ["begin", "end"]
    assert said[1].reason == "lost"


def test_born_inside_begins_at_the_first_sight():
    said = play(zone_enter, views(lambda _t: (0.5, 0.5), 3, 5), RULE, PLACES)
    assert phases(said) == ["begin", "end"]
    assert said[0].t_us == 0
    assert (said[1].reason, said[1].t_us) == ("lost", 3_000_000)


def test_a_short_loss_is_bridged_and_a_long_one_ends():
    def made(missing_us: int) -> list[View]:
        points = [(step * 200_000, 0.5, 0.5) for step in range(10)]
        last_us = points[-1][0]
        seen = [View(at_us, 0, (track(points[: n + 1]),)) for n, (at_us, _, _) in enumerate(points)]
        lost = [
            View(at_us, 0, (track(points, t_us=at_us),))
            for at_us in range(last_us + 200_000, last_us + missing_us, 200_000)
        ]
        again = [*points, (last_us + missing_us, 0.52, 0.5)]
        return [*seen, *lost, View(again[-1][0], 0, (track(again),))]

    assert phases(play(zone_enter, made(1_800_000), RULE, PLACES)) == ["begin"]
    ended = play(zone_enter, made(3_000_000), RULE, PLACES)
    assert phases(ended) == ["begin", "end", "begin"]
    assert (ended[1].reason, ended[1].t_us) == ("lost", 1_800_000)


def test_prediction_alone_enters_nothing():
    points = [(0, 0.2, 0.5), (400_000, 0.28, 0.5), (800_000, 0.36, 0.5), (1_200_000, 0.44, 0.5)]
    made = [
        View(points[n][0], 0, (track(points[: n + 1], unseen=(800_000, 1_200_000)),))
        for n in range(4)
    ]
    assert play(zone_enter, made, RULE, PLACES) == []


def test_a_minimum_stay_is_waited_for_and_the_entry_is_told_as_it_was():
    rule = zone_enter.Config(name="in", zone="gate", min_inside_s=2.0)
    slow = play(zone_enter, views(walk_through(0.1), 9, 10), rule, PLACES)
    assert phases(slow) == ["begin", "end"]
    assert slow[0].t_us == pytest.approx(2_600_000, abs=2)
    quick = play(zone_enter, views(walk_through(0.3), 3, 10), rule, PLACES)
    assert quick == []


def test_a_break_of_the_stream_ends_the_visit():
    points = [(step * 200_000, 0.5, 0.5) for step in range(10)]
    made = [View(at_us, 0, (track(points[: n + 1]),)) for n, (at_us, _, _) in enumerate(points)]
    made.append(View(9_800_000, 8_000_000, ()))
    said = play(zone_enter, made, RULE, PLACES)
    assert phases(said) == ["begin", "end"]
    assert said[1].t_us == 1_800_000


def test_two_objects_have_a_key_each():
    def both(t_us: int, points_a, points_b) -> View:
        return View(t_us, 0, (track(points_a, track_id=4), track(points_b, track_id=9)))

    points_a = [(step * 200_000, 0.1 + 0.05 * step, 0.5) for step in range(16)]
    points_b = [(step * 200_000, 0.9 - 0.05 * step, 0.4) for step in range(16)]
    made = [both(points_a[n][0], points_a[: n + 1], points_b[: n + 1]) for n in range(16)]
    said = play(zone_enter, made, RULE, PLACES)
    assert {signal.key for signal in said} == {"4", "9"}
    assert sorted(phases(said)) == ["begin", "begin", "end", "end"]


def test_a_zone_narrower_than_the_hysteresis_can_be_entered():
    slit = (Point(0.495, 0.1), Point(0.505, 0.1), Point(0.505, 0.9), Point(0.495, 0.9))
    places = Places(zones={"gate": Zone("gate", slit)}, lines={})
    said = play(zone_enter, views(walk_through(0.1), 9, 10), RULE, places)
    assert phases(said) == ["begin", "end"]


def test_the_dent_of_a_zone_is_outside():
    horseshoe = tuple(
        Point(x, y)
        for x, y in (
            (0.2, 0.2),
            (0.8, 0.2),
            (0.8, 0.8),
            (0.6, 0.8),
            (0.6, 0.4),
            (0.4, 0.4),
            (0.4, 0.8),
            (0.2, 0.8),
        )
    )
    places = Places(zones={"gate": Zone("gate", horseshoe)}, lines={})
    said = play(zone_enter, views(walk_through(0.1, y=0.6), 9, 10), RULE, places)
    assert phases(said) == ["begin", "end", "begin", "end"]


def test_the_same_input_gives_the_same_bytes_and_the_state_forgets():
    made = views(walk_through(0.117, 0.47), 7, 7.5)
    assert repr(play(zone_enter, made, RULE, PLACES)) == repr(play(zone_enter, made, RULE, PLACES))
    state = zone_enter.initial()
    for view in made:
        state, _ = zone_enter.step(view, state, RULE, PLACES)
    assert state == zone_enter.initial()


def test_signals_never_come_before_their_time():
    for view_path in (walk_through(0.2), lambda t: (0.5 + 0.4 * math.sin(t), 0.5)):
        state = zone_enter.initial()
        for view in views(view_path, 10, 5):
            state, said = zone_enter.step(view, state, RULE, PLACES)
            assert all(signal.t_us <= view.t_us for signal in said)
            assert all(signal.phase in (Phase.BEGIN, Phase.END) for signal in said)
