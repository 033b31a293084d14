"""Figures of the small plane: what they say of made and real pictures, and who asks for them."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from agent import app
from agent.core.model import Point, Zone
from agent.vision.analytics._contract import PATCHES, SHIFT
from agent.vision.likeness import Likeness
from agent.vision.patches import SETTLE_LOOKS, Patches
from agent.vision.picture import Figures
from agent.vision.shift import ELSEWHERE_FRAC, Shift
from firmware_sim import picture_faults
from tests.vision.support import PLAZA, ROOT

SQUARE = Zone("place", (Point(0.4, 0.4), Point(0.6, 0.4), Point(0.6, 0.7), Point(0.4, 0.7)))


@dataclass
class Seen:
    t_us: int
    utc_ns: int = 1_700_000_000_000_000_000
    camera_utc_ns: int | None = None
    is_corrupt: bool = False


def scene(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(0, 255, (180, 320)).astype(np.uint8), (5, 5), 0)


def grain(plane: np.ndarray, seed: int, sigma: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, plane.shape)
    return np.clip(plane + noise, 0, 255).astype(np.uint8)


def moved(plane: np.ndarray, dx: float, dy: float) -> np.ndarray:
    matrix = np.array([[1, 0, dx], [0, 1, dy]], float)
    return cv2.warpAffine(plane, matrix, (320, 180), borderMode=cv2.BORDER_REFLECT)


def rules(*listed: str):
    overrides = [f"cameras.0.rules=[{', '.join(f'{{{rule}}}' for rule in listed)}]"]
    path = ROOT / "configs" / "camera.toml"
    camera = app.load_config(path, overrides, check_files=False).cameras[0]
    return Figures.for_rules(camera.rules, camera.places.zones)


def test_the_plain_figures_are_those_of_the_plane():
    figures = Figures(frozenset(), {})
    plane = np.zeros((180, 320), np.uint8)
    plane[:, 160:] = 100
    first = figures.step(plane, Seen(0), ())
    assert (first.luma_mean, first.luma_sd, first.change) == (50.0, 50.0, 0.0)
    brighter = plane + np.uint8(3)
    assert figures.step(brighter, Seen(1), ()).change == 3.0
    assert figures.step(brighter, Seen(2), ()).change == 0.0
    soft = cv2.GaussianBlur(scene(), (0, 0), 3)
    assert (
        figures.step(soft, Seen(3), ()).sharpness
        < figures.step(scene(), Seen(4), ()).sharpness / 10
    )


def test_only_what_a_rule_asks_for_is_worked_out():
    assert rules('kind = "loiter", name = "a", zone = "crossing"') is None
    health = rules('kind = "camera_health", name = "a"')
    thing = rules('kind = "object_removed", name = "a", zone = "crossing"')
    for index in range(60):
        plane = grain(scene(), index)
        first = health.step(plane, Seen(index * 500_000), ())
        other = thing.step(plane, Seen(index * 500_000), ())
    assert (first.shift_frac, first.similarity) == (pytest.approx(0, abs=0.001), {})
    assert other.shift_frac is None
    assert other.similarity == {"crossing": pytest.approx(1, abs=0.02)}


def test_the_share_of_damaged_pictures_is_that_of_the_last_minute():
    figures = Figures(frozenset(), {})
    for index in range(1200):
        figures.count(Seen(index * 100_000, is_corrupt=index % 4 == 0))
    assert figures.step(scene(), Seen(0), ()).corrupt_share == pytest.approx(0.25, abs=0.01)
    for index in range(1200, 1900):
        figures.count(Seen(index * 100_000))
    assert figures.step(scene(), Seen(0), ()).corrupt_share == 0


def test_the_camera_s_clock_is_held_against_ours():
    figures = Figures(frozenset(), {})
    assert figures.step(scene(), Seen(0), ()).clock_offset_s is None
    early = Seen(0, camera_utc_ns=1_700_000_000_000_000_000 - 3600 * 10**9)
    assert figures.step(scene(), early, ()).clock_offset_s == -3600.0


# The whole view.


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (-5, 3), (11.5, -7), (40, 10)])
def test_a_displacement_is_measured_to_a_third_of_a_pixel(dx, dy):
    shift, plane = Shift(), picture_faults.footage(PLAZA)[0]
    for index in range(20):
        assert (shift.step(grain(plane, index), index * 200_000) or 0) < 0.001
    found = shift.step(grain(moved(plane, dx, dy), 99), 5_000_000)
    assert found == pytest.approx(np.hypot(dx / 320, dy / 180), abs=0.0015)


def test_light_and_people_are_no_displacement():
    shift = Shift()
    for index, plane in enumerate(picture_faults.footage(PLAZA)):
        lit = np.clip(plane * (1 - 0.6 * index / 80) + 5, 0, 255)
        assert (shift.step(grain(lit, index), index * 500_000) or 0) < 0.002


def test_another_view_and_a_view_without_structure_are_told_apart():
    shift = Shift()
    for index in range(10):
        shift.step(grain(scene(1), index), index * 200_000)
    assert shift.step(grain(scene(2), 5), 3_000_000) is None  # it may be turning yet
    assert shift.step(grain(scene(2), 6), 3_200_000) == ELSEWHERE_FRAC
    assert {shift.step(scene(seed), 3_200_000 + seed) for seed in range(3, 9)} == {None}
    assert shift.step(np.full((180, 320), 90, np.uint8), 4_200_000) is None


def test_a_view_that_has_moved_does_not_become_the_reference():
    shift, plane = Shift(), picture_faults.footage(PLAZA)[0]
    for index in range(10):
        shift.step(grain(plane, index), index * 200_000)
    for index in range(10, 4000, 10):
        found = shift.step(grain(moved(plane, 8, 0), index), index * 1_000_000)
    assert found == pytest.approx(0.025, abs=0.002)
    assert (shift.step(plane, 5_000_000_000) or 0) < 0.001


# What stands there.


def put(plane: np.ndarray, level: int = 230) -> np.ndarray:
    found = plane.copy()
    found[100:115, 150:165] = level
    found[104:106, 152:163] = level // 2
    return found


def patches_over(planes, patches: Patches | None = None, start_s: float = 0.0):
    patches = patches or Patches()
    for index, plane in enumerate(planes):
        found = patches.step(grain(plane, index), round((start_s + index / 2) * 1e6))
    return patches, found


def flat(seed: int = 3) -> np.ndarray:
    return (90 + (scene(seed).astype(float) - 127) * 0.4).astype(np.uint8)


LEARNED_S = SETTLE_LOOKS + 2


def test_a_thing_put_down_is_a_patch_with_its_age_and_gone_when_it_is_taken():
    patches, found = patches_over([flat()] * (2 * LEARNED_S))
    assert found == ()
    patches, found = patches_over([put(flat())] * 40, patches, LEARNED_S)
    (patch,) = found
    assert patch.since_us == pytest.approx(LEARNED_S * 1e6, abs=4e6)
    assert patch.box.x == pytest.approx(150 / 320, abs=0.01)
    assert patch.box.w == pytest.approx(15 / 320, abs=0.01)
    _, found = patches_over([flat()] * 20, patches, LEARNED_S + 20)
    assert found == ()


def test_somebody_who_walks_past_does_not_end_it():
    patches, _ = patches_over([flat()] * (2 * LEARNED_S))
    patches, before = patches_over([put(flat())] * 30, patches, LEARNED_S)
    passing = []
    for index in range(16):
        plane = put(flat())
        plane[80:140, 120 + 5 * index : 140 + 5 * index] = 20
        passing.append(plane)
    patches, during = patches_over(passing, patches, LEARNED_S + 15)
    _, after = patches_over([put(flat())] * 12, patches, LEARNED_S + 23)
    assert [patch.since_us for patch in during] == [before[0].since_us]
    assert [patch.since_us for patch in after] == [before[0].since_us]


def test_a_hole_in_the_background_is_no_patch():
    patches, _ = patches_over([put(flat())] * (2 * LEARNED_S))
    _, found = patches_over([flat()] * 60, patches, LEARNED_S)
    assert found == ()


def test_light_is_no_patch_and_a_thing_outlives_it():
    patches, _ = patches_over([flat()] * (2 * LEARNED_S))
    patches, before = patches_over([put(flat())] * 30, patches, LEARNED_S)
    lamp = (put(flat()) * 0.6 + 60).astype(np.uint8)
    _, after = patches_over([lamp] * 100, patches, LEARNED_S + 15)
    assert [patch.since_us for patch in after] == [before[0].since_us]


def test_a_covered_lens_forgets_nothing():
    figures = Figures(frozenset({PATCHES, SHIFT}), {})
    planes = [flat()] * (2 * LEARNED_S) + [put(flat())] * 30
    for index, plane in enumerate(planes):
        before = figures.step(grain(plane, index), Seen(index * 500_000), ())
    for index in range(len(planes), 200):
        black = figures.step(np.full((180, 320), 12, np.uint8), Seen(index * 500_000), ())
    after = figures.step(grain(put(flat()), 1), Seen(200 * 500_000), ())
    assert len(before.patches) == 1
    assert black.patches == after.patches == before.patches
    assert black.shift_frac is None


# One zone.


def test_likeness_falls_with_what_is_taken_and_not_with_the_light():
    zone, picture = Likeness(SQUARE.points), picture_faults.footage(PLAZA)[0].copy()
    picture[74:124, 130:190] = 20
    picture[80:100, 140:180] = 230
    for index in range(60):
        full = zone.step(grain(picture, index), index * 500_000)
    for index in range(60, 80):
        dim = zone.step(grain(picture * 0.4 + 10, index), index * 500_000)
    for index in range(80, 100):
        gone = zone.step(grain(picture_faults.footage(PLAZA)[0], index), index * 500_000)
    assert full > 0.97
    assert dim > 0.95
    assert gone < 0.5
    assert Likeness(SQUARE.points).step(picture, 0) is None


def test_a_zone_without_structure_says_nothing():
    zone = Likeness(SQUARE.points)
    for index in range(60):
        found = zone.step(np.full((180, 320), 80, np.uint8), index * 500_000)
    assert found is None
