"""Congestion: slow and many, for a time, with the length of it."""

import pytest

from agent.core.model import Phase, Point, View, Zone
from agent.vision.analytics import Places, congestion
from tests.vision.ground import driver, ground
from tests.vision.tracks import phases

ALL = Zone("road", (Point(0.0, 0.0), Point(1.0, 0.0), Point(1.0, 1.0), Point(0.0, 1.0)))
PLACES = Places(zones={"road": ALL}, lines={}, ground=ground())
RULE = congestion.Config(name="jam", zone="road", on_s=5, off_s=4, min_count=4)


def play(speed_kmh, count=4, seconds=15):
    state, said = congestion.initial(), []
    for index in range(seconds * 5 + 1):
        t_us = index * 200_000
        cars = [
            driver(
                n,
                lambda t, n=n: (1.0, 12 + 7 * n - speed_kmh * t / 3.6),
                t_us,
            )
            for n in range(count)
        ]
        state, signals = congestion.step(View(t_us, 0, tuple(cars)), state, RULE, PLACES)
        said += signals
    return said


def test_four_crawling_vehicles_are_a_jam_after_five_seconds():
    (begin,) = play(1.0)
    assert begin.t_us == pytest.approx(5.4e6, abs=0.3e6)
    assert begin.measured["count"] == 4
    assert begin.measured["length_m"] == pytest.approx(21, abs=0.5)
    assert begin.measured["speed_kmh"] == pytest.approx(1.0, abs=0.1)
    assert begin.measured["error_kmh"] > 0


def test_three_are_not_and_fast_ones_are_not():
    assert play(1.0, count=3) == []
    assert play(60.0, seconds=1) == []


def test_it_ends_when_traffic_flows_again():
    state, said = congestion.initial(), []
    for index in range(100):
        t_us = index * 200_000
        count = 4 if t_us <= 10_000_000 else 1
        cars = [driver(n, lambda _t, n=n: (1.0, 12.0 + 7 * n), t_us) for n in range(count)]
        state, signals = congestion.step(View(t_us, 0, tuple(cars)), state, RULE, PLACES)
        said += signals
    (end,) = phases(said, Phase.END)
    assert end.t_us == pytest.approx(10.2e6, abs=0.1e6)
    assert end.reason == "flowing"
