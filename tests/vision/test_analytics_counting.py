"""Counting: both ways, by period, zero included."""

from agent.core.model import Line, Phase, Point, View
from agent.vision.analytics import Places, counting
from tests.vision.tracks import Actor, play, scene, walk

PLACES = Places(zones={}, lines={"door": Line("door", Point(0.5, 0.2), Point(0.5, 0.9))})
RULE = counting.Config(name="door", line="door", report_s=10)


def crosser(number, at_s, *, is_in):
    left, right = (at_s - 2, 0.7, 0.5), (at_s + 2, 0.3, 0.5)
    stops = (left, right) if is_in else ((at_s - 2, 0.3, 0.5), (at_s + 2, 0.7, 0.5))
    return Actor(number, walk(*stops), begin_s=at_s - 2, end_s=at_s + 2)


def reports(actors, seconds):
    said = play(counting, scene(actors, seconds), RULE, PLACES)
    assert {signal.phase for signal in said} <= {Phase.MEASURE}
    return [(signal.t_us, dict(signal.measured)) for signal in said]


def test_every_period_is_reported_even_an_empty_one():
    actors = [crosser(1, 3, is_in=True), crosser(2, 5, is_in=True), crosser(3, 6, is_in=False)]
    actors.append(crosser(4, 25, is_in=False))
    assert reports(actors, 31) == [
        (10_000_000, {"a_to_b": 2, "b_to_a": 1, "occupancy": 1, "blind_s": 0}),
        (20_000_000, {"a_to_b": 0, "b_to_a": 0, "occupancy": 1, "blind_s": 0}),
        (30_000_000, {"a_to_b": 0, "b_to_a": 1, "occupancy": 0, "blind_s": 0}),
    ]


def test_the_occupancy_never_falls_below_nobody():
    assert reports([crosser(1, 4, is_in=False)], 10)[0][1]["occupancy"] == 0


def test_a_break_is_reported_as_blind_and_makes_one_report():
    state = counting.initial()
    state, said = counting.step(View(0, 0, ()), state, RULE, PLACES)
    assert said == ()
    _, said = counting.step(View(35_000_000, 35_000_000, ()), state, RULE, PLACES)
    assert [(signal.t_us, signal.measured["blind_s"]) for signal in said] == [(10_000_000, 35.0)]


def test_another_name_on_the_line_counts_once():
    renamed = Actor(1, walk((0, 0.7, 0.5), (6, 0.3, 0.5)), becomes=(3.1, 8))
    assert reports([renamed], 10)[0][1]["a_to_b"] == 1
