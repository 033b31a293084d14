"""Speed on calibrated ground: the figure, its error, and nobody below the limit."""

import pytest

from agent.core.model import Phase, View
from agent.vision.analytics import Places, speed
from tests.vision.ground import driver, ground
from tests.vision.tracks import phases

PLACES = Places(zones={}, lines={}, ground=ground())
RULE = speed.Config(name="limit", limit_kmh=50)


def drive(speed_kmh, seconds=4.0, fps=5.0, rule=RULE, places=PLACES):
    state, said = speed.initial(), []
    for index in range(int(seconds * fps) + 1):
        t_us = round(index * 1e6 / fps)
        one = driver(1, lambda t: (1.0, 50 - speed_kmh / 3.6 * t), t_us, fps)
        state, signals = speed.step(View(t_us, 0, (one,)), state, rule, places)
        said += signals
    for extra in range(1, 5):
        state, signals = speed.step(
            View(round((seconds + extra) * 1e6), 0, ()), state, rule, places
        )
        said += signals
    return said


@pytest.mark.parametrize("fps", [2.0, 5.0, 15.0])
def test_a_fast_one_is_told_with_its_speed_and_error(fps):
    said = drive(70.0, 2.0, fps)
    (begin,), (end,) = phases(said, Phase.BEGIN), phases(said, Phase.END)
    assert end.measured["speed_kmh"] == pytest.approx(70, rel=0.03)
    assert 0 < begin.measured["error_kmh"] < 20
    assert begin.measured["length_m"] >= 5
    assert begin.measured["samples"] >= 3


def test_below_the_limit_nothing_is_said():
    assert drive(49.0) == []


def test_the_error_is_given_to_the_driver():
    unsure = Places(zones={}, lines={}, ground=ground(sd_px=60.0))
    assert drive(53.0, 1.0, places=unsure) == []


def test_beyond_where_a_pixel_is_half_a_metre_nothing_is_known():
    assert ground().locate(0.5, 0.02) is None  # 0.5 m a pixel is 71 m away here
    assert ground().locate(0.5, -0.2) is None  # above the horizon
    assert ground().locate(0.5, 0.1) is not None
    spot = ground().locate(0.5, 0.5)
    assert spot is not None
    assert spot.y_m == pytest.approx(6 / 0.36397, rel=1e-3)


def test_without_calibration_it_is_silent():
    assert drive(90.0, places=Places(zones={}, lines={})) == []
