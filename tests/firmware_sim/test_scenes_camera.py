"""The made camera against points worked out by hand; ways and paces against plain sums."""

import numpy as np
import pytest

from firmware_sim.scenes.flow import Driver, follow
from firmware_sim.scenes.paths import Aside, Pace, Way
from firmware_sim.scenes.pinhole import Camera
from firmware_sim.scenes.stage import CAR, PERSON, Actor

SQUARE = {"focal_frac": 1.0, "height_m": 10.0, "width_px": 1000, "height_px": 1000}


def seen(camera, *place):
    return pytest.approx(tuple(camera.project(np.array(place, dtype=float)).tolist()), abs=1e-9)


def test_what_the_axis_meets_is_in_the_middle() -> None:
    camera = Camera(tilt_deg=45.0, **SQUARE)
    assert seen(camera, 0, 10, 0) == (0.5, 0.5)
    assert seen(camera, 1, 10, 0) == (0.5 + 1 / (10 * 2**0.5), 0.5)


def test_straight_down_is_a_map() -> None:
    camera = Camera(tilt_deg=90.0, **SQUARE)
    assert seen(camera, 2, 3, 0) == (0.7, 0.2)
    assert seen(camera, -2, -3, 0) == (0.3, 0.8)
    assert seen(camera, 1, 0, 5) == (0.7, 0.5)  # half as far away, twice as large


def test_a_camera_rolled_clockwise_sees_the_right_side_on_top() -> None:
    camera = Camera(tilt_deg=90.0, roll_deg=90.0, **SQUARE)
    assert seen(camera, 2, 0, 0) == (0.5, 0.3)


def test_a_barrel_lens_draws_points_in() -> None:
    camera = Camera(tilt_deg=90.0, k1=-0.1, **SQUARE)
    assert seen(camera, 2, 0, 0) == (0.5 + 0.2 * (1 - 0.1 * 0.04), 0.5)


def test_a_wide_picture_is_taller_in_fractions() -> None:
    camera = Camera(focal_frac=1.0, height_m=10.0, tilt_deg=90.0, width_px=2000, height_px=1000)
    assert seen(camera, 2, 2, 0) == (0.7, 0.1)


def test_behind_the_camera_there_is_no_picture() -> None:
    assert np.isnan(Camera(tilt_deg=30.0, **SQUARE).project(np.array((0.0, -30.0, 0.0)))).all()


@pytest.mark.parametrize("roll", [-4.0, 0.0, 7.0])
@pytest.mark.parametrize("k1", [-0.12, 0.0, 0.05])
def test_the_ground_under_a_spot_is_seen_at_that_spot(roll: float, k1: float) -> None:
    camera = Camera(0.8, 6.0, 25.0, roll_deg=roll, k1=k1)
    for spot in ((0.1, 0.5), (0.5, 0.9), (0.9, 0.4)):
        assert seen(camera, *camera.ground(*spot), 0.0) == spot


def test_the_sky_is_no_ground() -> None:
    with pytest.raises(ValueError, match="above the horizon"):
        Camera(0.8, 6.0, 10.0).ground(0.5, 0.0)


def standing(label, body, x, y, *, bearing=(0.0, 1.0)):
    way = Way.through([(x, y), (x + bearing[0], y + bearing[1])])
    return Actor(label, body, way, Pace.of([(1.0, 0.0)]))


def test_a_person_straight_ahead_is_as_large_as_geometry_has_it() -> None:
    camera = Camera(focal_frac=1.0, height_m=1.75, tilt_deg=0.0, width_px=1000, height_px=1000)
    left, top, width, height = (
        standing("person", PERSON, 0, 10).boxes(camera, np.zeros(1))[0].tolist()
    )
    assert (left, width) == pytest.approx((0.475, 0.05))
    assert (top, height) == pytest.approx((0.5, 0.175))  # the head at the horizon


def test_a_car_shows_its_near_lower_edge() -> None:
    camera = Camera(focal_frac=1.0, height_m=6.0, tilt_deg=0.0, width_px=1000, height_px=1000)
    box = standing("vehicle", CAR, 0, 20).boxes(camera, np.zeros(1))[0]
    assert box[1] + box[3] == pytest.approx(0.5 + 6.0 / (20 - 2.2))
    assert box[2] == pytest.approx(1.8 / (20 - 2.2))
    assert box[1] == pytest.approx(0.5 + 4.5 / (20 + 2.2))  # the roof's far edge
    across = standing("vehicle", CAR, 0, 20, bearing=(1.0, 0.0)).boxes(camera, np.zeros(1))[0]
    assert across[2] == pytest.approx(4.4 / (20 - 0.9))


def test_a_way_is_as_long_as_it_is() -> None:
    way = Way.through([(0, 0), (3, 4), (3, 10)], is_round=False)
    assert way.length_m == pytest.approx(11.0)
    assert way.at(np.array([2.5, 8.0, -5.0, 12.0])) == pytest.approx(
        np.array([(1.5, 2.0), (3.0, 7.0), (-3.0, -4.0), (3.0, 11.0)])
    )


def test_a_drive_is_the_sum_of_its_phases() -> None:
    pace = Pace.of([(4.0, -2.0), (3.0, 0.0), (2.0, 1.0)], start_s=1.0, speed_mps=8.0, begin_m=5.0)
    times = np.array([0.0, 1.0, 3.0, 5.0, 8.0, 10.0, 11.0])
    assert pace.at(times).tolist() == pytest.approx([-3.0, 5.0, 17.0, 21.0, 21.0, 23.0, 25.0])
    assert pace.reaches_s(17.0) == pytest.approx(3.0, abs=0.011)


def test_stepping_aside_is_smooth() -> None:
    aside = Aside((1.0, 3.0), (0.0, 2.0))
    assert aside.at(np.array([0.0, 1.0, 2.0, 3.0, 9.0])).tolist() == [0.0, 0.0, 1.0, 2.0, 2.0]


def test_followers_stop_behind_a_leader_who_stops_and_never_touch() -> None:
    leader = Pace.of([(5.0, -2.0), (30.0, 0.0)], start_s=3.0, speed_mps=10.0, begin_m=100.0)
    drivers = [Driver(50.0, 10.0, 12.0), Driver(30.0, 10.0, 12.0)]
    first, second = follow(leader, drivers, 38.0)
    times = np.arange(0.0, 38.0, 0.1)
    for ahead, behind in ((leader, first), (first, second)):
        gap = ahead.at(times) - behind.at(times) - CAR[2]
        assert gap.min() > 0.5
        assert gap[-1] == pytest.approx(2.0, abs=1.0)
    assert np.diff(second.at(times)).min() > -1e-6
