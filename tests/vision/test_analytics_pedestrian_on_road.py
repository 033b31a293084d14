"""Persons on the carriageway, less the crossing."""

import pytest

from agent.core.model import Phase, Point, Zone
from agent.vision.analytics import Places, pedestrian_on_road
from tests.vision.tracks import Actor, phases, play, scene, walk

ROAD = Zone("road", (Point(0.0, 0.4), Point(1.0, 0.4), Point(1.0, 0.8), Point(0.0, 0.8)))
CROSSING = Zone("crossing", (Point(0.4, 0.3), Point(0.6, 0.3), Point(0.6, 0.9), Point(0.4, 0.9)))
PLACES = Places(zones={"road": ROAD, "crossing": CROSSING}, lines={})
RULE = pedestrian_on_road.Config(name="road", zone="road", exclude=("crossing",))


def said(actor, seconds=12):
    return play(pedestrian_on_road, scene([actor], seconds, 10), RULE, PLACES)


def test_who_uses_the_crossing_is_allowed():
    assert said(Actor(1, walk((0, 0.5, 0.1), (8, 0.5, 0.95)))) == []


def test_who_crosses_beside_it_is_told_after_a_second():
    found = said(Actor(1, walk((0, 0.2, 0.1), (8, 0.2, 0.9))))
    (begin,), (end,) = phases(found, Phase.BEGIN), phases(found, Phase.END)
    assert begin.t_us == pytest.approx((0.31 / 0.1 + 1.0) * 1e6, abs=1e4)
    assert end.t_us == pytest.approx(0.71 / 0.1 * 1e6, abs=1e4)
    assert end.reason == "left"


def test_walking_from_the_road_onto_the_crossing_ends_it():
    found = said(Actor(1, walk((0, 0.1, 0.6), (4, 0.38, 0.6), (6, 0.5, 0.6), (12, 0.5, 0.6))))
    (end,) = phases(found, Phase.END)
    assert 4e6 < end.t_us < 6e6


def test_a_vehicle_belongs_there():
    assert said(Actor(1, walk((0, 0.2, 0.1), (8, 0.2, 0.9)), label="vehicle")) == []
