"""Motion on made and real pictures, and the gate that may skip work but never end a track."""

import itertools

import cv2
import numpy as np
import pytest

from agent.vision.config import MotionConfig
from agent.vision.motion import SCENE_FRAC, Motion
from tests.vision.support import PLAZA, frames

STEP_US = 200_000


def scene(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(40, 200, (180, 320)).astype(np.uint8), (9, 9), 0)


def noisy(plane: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(plane + rng.normal(0, sigma, plane.shape), 0, 255).astype(np.uint8)


def run(planes, config: MotionConfig | None = None):
    motion = Motion(config or MotionConfig())
    return [motion.step(plane, index * STEP_US) for index, plane in enumerate(planes)]


@pytest.mark.parametrize("sigma", [0.0, 2.0, 5.0])
def test_sensor_noise_is_not_motion(sigma):
    results = run(noisy(scene(), sigma, index) for index in range(120))
    assert not any(result.is_moving for result in results)


def test_a_small_object_in_noise_is_motion_and_its_place_is_told():
    def plane(index: int) -> np.ndarray:
        base = scene()
        if index >= 60:
            left = 40 + 3 * (index - 60)
            base[80:98, left : left + 8] = 250
        return noisy(base, 4.0, index)

    results = run(plane(index) for index in range(110))
    assert not any(result.is_moving for result in results[:60])
    assert all(result.is_moving for result in results[61:])
    box = results[80].boxes[0]
    left = (40 + 3 * 20) / 320
    assert box.x <= left + 0.01
    assert box.x + box.w >= left + 8 / 320 - 0.01
    assert box.y == pytest.approx(80 / 180, abs=0.03)
    assert 0 < results[80].area_frac < 0.02


def test_a_walker_in_the_distance_is_motion_where_noise_is_not():
    """Two pixels wide and four high: too small for a patch, but clear."""

    def plane(index: int) -> np.ndarray:
        base = scene()
        if index >= 60:
            left = 40 + (index - 60) // 2
            base[80:84, left : left + 2] = 250
        return noisy(base, 4.0, index)

    results = run(plane(index) for index in range(110))
    assert not any(result.is_moving for result in results[:60])
    assert sum(result.is_moving for result in results[60:]) >= 48
    coarse = run((plane(index) for index in range(110)), MotionConfig(min_area_frac=0.01))
    assert not any(result.is_moving for result in coarse)


def test_an_object_smaller_than_the_limit_is_not_motion():
    def plane(index: int) -> np.ndarray:
        base = scene()
        if index > 20:
            base[50:56, 100:106] = 255
        return base

    small = run((plane(index) for index in range(30)), MotionConfig(min_area_frac=0.01))
    assert not any(result.is_moving for result in small)
    seen = run((plane(index) for index in range(30)), MotionConfig(min_area_frac=0.0001))
    assert seen[25].is_moving


def test_what_stands_long_enough_becomes_background():
    def plane(index: int) -> np.ndarray:
        base = scene()
        if index >= 10:
            base[60:120, 100:130] = 255
        return base

    results = run(plane(index) for index in range(1500))
    assert results[12].is_moving
    assert not results[-1].is_moving


def test_a_switch_of_the_light_is_learned_at_once():
    dark = scene()
    light = np.clip(dark.astype(int) + 60, 0, 255).astype(np.uint8)
    results = run([*([dark] * 20), *([light] * 20)])
    assert results[20].area_frac > SCENE_FRAC
    assert results[20].is_moving
    assert not any(result.is_moving for result in results[21:])


def test_another_size_starts_anew():
    motion = Motion(MotionConfig())
    motion.step(scene(), 0)
    assert not motion.step(scene()[:90, :160], STEP_US).is_moving


def test_the_real_plaza_is_moving():
    motion = Motion(MotionConfig())
    every_second = itertools.islice(frames(PLAZA), 0, 120, 2)
    results = [motion.step(frame.luma(), frame.t_us) for frame in every_second]
    assert sum(result.is_moving for result in results) >= 50


def test_a_rim_around_the_picture_is_not_a_change_of_the_whole_scene():
    """What an outline encloses does not move: a rolling gate's frame is no switch of the light."""
    planes = [noisy(scene(), 2, seed) for seed in range(50)]
    rim = planes[-1].copy()
    cv2.rectangle(rim, (10, 10), (309, 169), 255, 6)
    *_, result = run([*planes, rim])
    assert result.is_moving
    assert len(result.boxes) == 1
    assert result.boxes[0].w == pytest.approx(306 / 320, abs=0.02)
    assert 0.05 < result.area_frac < 0.2
