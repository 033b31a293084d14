"""Crowds: enough at once, for long enough, without trembling."""

import pytest

from agent.core.model import Phase, Point, Zone
from agent.vision.analytics import Places, crowd
from tests.vision.tracks import Actor, phases, play, scene, stand, walk

PLACES = Places(
    zones={
        "square": Zone(
            "square", (Point(0.2, 0.2), Point(0.8, 0.2), Point(0.8, 0.9), Point(0.2, 0.9))
        )
    },
    lines={},
)
RULE = crowd.Config(name="crowd", zone="square", min_count=4, on_s=3, off_s=5)


def people(count, **extra):
    return [
        Actor(number, stand(0.3 + 0.05 * number, 0.5), **extra) for number in range(1, count + 1)
    ]


def test_three_are_no_crowd_and_four_are_after_three_seconds():
    assert play(crowd, scene(people(3), 20), RULE, PLACES) == []
    late = Actor(9, stand(0.6, 0.6), begin_s=5)
    (begin,) = play(crowd, scene([*people(3), late], 20), RULE, PLACES)
    assert begin.t_us == 8_000_000
    assert begin.measured["count"] == 4
    assert begin.track_ids == (1, 2, 3, 9)


def test_it_ends_when_it_fell_below_and_says_how_many_it_was():
    leaving = Actor(9, walk((0, 0.6, 0.6), (10, 0.6, 0.6), (11, 0.95, 0.6), (30, 0.95, 0.6)))
    more = Actor(8, stand(0.7, 0.7), begin_s=4, end_s=7)
    said = play(crowd, scene([*people(3), leaving, more], 30), RULE, PLACES)
    (end,) = phases(said, Phase.END)
    assert 10e6 < end.t_us <= 11e6
    assert end.measured["count_max"] == 5
    assert end.reason == "dispersed"


def test_a_short_dip_neither_ends_nor_delays_it():
    dipping = Actor(9, stand(0.6, 0.6), end_s=20)
    gone = Actor(4, stand(0.7, 0.6), begin_s=8)
    made = scene([*people(3), dipping, gone], 20)
    assert [signal.t_us for signal in phases(play(crowd, made, RULE, PLACES), Phase.BEGIN)] == [
        3_000_000
    ]


@pytest.mark.parametrize("fps", [2.0, 15.0])
def test_the_rate_does_not_matter(fps):
    (begin,) = play(crowd, scene(people(4), 10, fps), RULE, PLACES)
    assert begin.t_us == 3_000_000


def test_who_stands_on_the_border_does_not_flicker():
    trembling = Actor(9, lambda t: (0.2 + (0.012 if int(t * 5) % 2 else -0.004), 0.5))
    said = play(crowd, scene([*people(3), trembling], 30), RULE, PLACES)
    assert [signal.phase for signal in said] == [Phase.BEGIN]
