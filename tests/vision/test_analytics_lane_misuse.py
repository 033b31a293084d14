"""Lane misuse: way inside the lane, not a visit to it."""

import pytest

from agent.core.model import Phase, Point, Zone
from agent.vision.analytics import Places, lane_misuse
from tests.vision.tracks import Actor, phases, play, scene, walk

BUS = Zone("bus", (Point(0.0, 0.5), Point(1.0, 0.5), Point(1.0, 0.7), Point(0.0, 0.7)))
PLACES = Places(zones={"bus": BUS}, lines={})
RULE = lane_misuse.Config(name="bus-lane", zone="bus", min_distance_frac=0.2)


LONG = lane_misuse.Config(name="bus-lane", zone="bus", min_distance_frac=0.35)


def said(path, fps=5.0, seconds=12, rule=RULE):
    return play(lane_misuse, scene([Actor(1, path, label="vehicle")], seconds, fps), rule, PLACES)


@pytest.mark.parametrize("fps", [2.0, 5.0, 15.0])
def test_driving_in_it_is_told_after_a_fifth_of_the_picture(fps):
    found = said(walk((0, 0.1, 0.6), (10, 0.9, 0.6)), fps)
    (begin,) = phases(found, Phase.BEGIN)
    assert begin.t_us == pytest.approx(2.5e6, abs=5e4)
    assert begin.measured["distance_frac"] >= 0.2


def test_crossing_it_is_not_using_it():
    assert said(walk((0, 0.5, 0.35), (6, 0.52, 0.85)), rule=LONG) == []


def test_weaving_in_and_out_starts_anew():
    path = walk(
        (0, 0.0, 0.4),
        (1, 0.1, 0.6),
        (2, 0.2, 0.6),
        (3, 0.3, 0.4),
        (4, 0.4, 0.6),
        (5, 0.5, 0.6),
        (6, 0.6, 0.4),
    )
    assert said(path, rule=LONG) == []


def test_standing_and_trembling_in_it_is_no_way():
    assert said(lambda t: (0.5 + 0.006 * (-1) ** int(t * 5), 0.6), seconds=60) == []
