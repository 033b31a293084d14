"""Stopped vehicles: how long, no queue, hidden for a while."""

import pytest

from agent.core.model import Phase, Point, Zone
from agent.vision.analytics import Places, stopped_vehicle
from tests.vision.tracks import Actor, phases, play, scene, stand, walk

ROAD = Zone("road", (Point(0.0, 0.3), Point(1.0, 0.3), Point(1.0, 0.8), Point(0.0, 0.8)))
PLACES = Places(zones={"road": ROAD}, lines={})
RULE = stopped_vehicle.Config(name="stopped", zone="road", stop_s=10)


def car(number, path, **extra):
    return Actor(number, path, label="vehicle", **extra)


def said(actors, seconds=60, fps=5.0):
    return play(stopped_vehicle, scene(actors, seconds, fps), RULE, PLACES)


@pytest.mark.parametrize(("stop_s", "count"), [(9.0, 0), (12.0, 1)])
def test_a_stop_is_told_after_its_time(stop_s, count):
    path = walk((0, 0.0, 0.5), (5, 0.5, 0.5), (5 + stop_s, 0.5, 0.5), (10 + stop_s, 1.0, 0.5))
    found = said([car(1, path, end_s=10 + stop_s)])
    assert len(phases(found, Phase.BEGIN)) == count
    if count:
        assert found[0].t_us == pytest.approx(15e6, abs=0.4e6)
        assert found[1].reason == "moved"
        assert found[1].t_us == pytest.approx(17.4e6, abs=0.3e6)


def test_a_queue_is_not_told_but_who_stays_after_it_is():
    queue = [
        car(
            number,
            walk((0, 0.2 * number, 0.5), (20 + number, 0.2 * number, 0.5), (25 + number, 1.3, 0.5)),
            end_s=25 + number,
        )
        for number in (1, 2)
    ]
    left_behind = car(3, stand(0.8, 0.5), end_s=60)
    found = said([*queue, left_behind])
    (begin,) = phases(found, Phase.BEGIN)
    assert begin.track_ids == (3,)
    assert 31e6 <= begin.t_us < 34e6  # ten seconds after the queue


@pytest.mark.parametrize(("hidden_s", "count"), [(8.0, 1), (14.0, 2)])
def test_passing_lorries_hide_it_for_a_while(hidden_s, count):
    found = said([car(1, stand(0.5, 0.5), hidden=(15, 15 + hidden_s))])
    assert len(phases(found, Phase.BEGIN)) == count


def test_outside_of_the_zone_it_may_stand():
    assert said([car(1, stand(0.5, 0.9))]) == []


def test_a_trembling_box_stands():
    shaking = car(1, lambda t: (0.5 + 0.008 * (-1) ** int(t * 5), 0.5))
    (begin,) = said([shaking], 20)
    assert begin.t_us == 10_000_000


def test_crawling_is_not_standing():
    assert said([car(1, walk((0, 0.1, 0.5), (60, 0.9, 0.5)))]) == []


def test_its_other_name_goes_on_standing():
    (begin,) = said([car(1, stand(0.5, 0.5), becomes=(6, 5))], 20)
    assert begin.t_us == 10_000_000
