"""Parking: the limit, neighbours, long occlusion, the hour at which it counts."""

from dataclasses import replace

from agent.core.model import Phase, Point, Zone
from agent.vision.analytics import Places, parking
from tests.vision.tracks import Actor, phases, play, scene, stand

BAY = Zone("bay", (Point(0.1, 0.3), Point(0.9, 0.3), Point(0.9, 0.8), Point(0.1, 0.8)))
PLACES = Places(zones={"bay": BAY}, lines={})
RULE = parking.Config(name="bay", zone="bay", limit_s=30)


def cars(count):
    return [Actor(n, stand(0.2 * n, 0.5), label="vehicle") for n in range(1, count + 1)]


def test_each_of_a_full_row_is_told_for_itself():
    found = play(parking, scene(cars(4), 40), RULE, PLACES)
    assert [(signal.t_us, signal.track_ids) for signal in phases(found, Phase.BEGIN)] == [
        (30_000_000, (n,)) for n in (1, 2, 3, 4)
    ]


def test_a_van_before_it_for_a_minute_does_not_free_it():
    hidden = Actor(1, stand(0.5, 0.5), label="vehicle", hidden=(10, 65))
    (begin,) = play(parking, scene([hidden], 80), RULE, PLACES)
    assert begin.t_us == 30_000_000


def test_who_was_parked_before_eight_counts_from_eight():
    made = [
        replace(view, armed_since_us=None if view.t_us < 20e6 else 20_000_000)
        for view in scene(cars(1), 60)
    ]
    (begin,) = play(parking, made, RULE, PLACES)
    assert begin.t_us == 50_000_000
