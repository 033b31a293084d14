"""Where the detector looks, what it makes of cut boxes, and how well it sees with crops."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import RealClock, SimClock
from agent.core.model import Box
from agent.vision import crops, detect
from agent.vision.boxes import corners, covered
from agent.vision.config import DetectorConfig
from agent.vision.pipeline import Pipeline
from tests.vision.cameras import plaza
from tests.vision.support import (
    PLAZA,
    SHARED,
    average_precision,
    frames,
    overlap,
    ranked_hits,
    true_people,
)

WIDE = 16 / 9

fraction = st.floats(0.0, 0.95)
points_of = st.lists(
    st.builds(Box, fraction, fraction, st.floats(0.005, 0.4), st.floats(0.005, 0.4)), max_size=40
)


@given(points=points_of, aspect=st.sampled_from([16 / 9, 4 / 3, 1.0, 9 / 16]))
@settings(max_examples=100, deadline=None)
def test_crops_are_squares_within_the_frame_and_few(points, aspect):
    found = crops.around(points, [1.0] * len(points), aspect)
    assert len(found) <= crops.MAX_CROPS
    for box in found:
        assert box.w * aspect == pytest.approx(box.h)
        assert box.x >= -1e-9
        assert box.y >= -1e-9
        assert box.x + box.w <= 1 + 1e-9
        assert box.y + box.h <= 1 + 1e-9
    assert found == crops.around(points, [1.0] * len(points), aspect)


def test_what_fits_into_one_crop_costs_one_and_stands_in_its_middle():
    points = [Box(0.40, 0.40, 0.02, 0.08), Box(0.50, 0.45, 0.02, 0.08)]
    (crop,) = crops.around(points, [1.0, 1.0], WIDE)
    assert covered(corners(points), corners([crop])).min() == 1.0
    assert crop.h == crops.SIDES[0]
    assert crop.x + crop.w / 2 == pytest.approx(0.46, abs=0.02)


def test_two_far_apart_take_two():
    points = [Box(0.05, 0.4, 0.03, 0.1), Box(0.9, 0.4, 0.03, 0.1)]
    found = crops.around(points, [1.0, 1.0], WIDE)
    assert len(found) == 2
    assert (covered(corners(points), corners(found)) == 1.0).all()


def test_the_heavier_go_first():
    points = [Box(x, y, 0.03, 0.1) for x in (0.02, 0.5, 0.94) for y in (0.05, 0.85)]
    found = crops.around(points, [1.0, 1.0, 1.0, 9.0, 1.0, 1.0], WIDE)
    assert covered(corners([points[3]]), corners(found[:1]))[0] == 1.0


def test_nothing_to_see_means_the_whole_frame():
    planner = crops.Planner(2.0)
    assert planner.plan([], [], 0, WIDE) == (crops.WHOLE,)
    assert planner.plan([], [], 400_000, WIDE) == (crops.WHOLE,)


def test_what_is_too_large_for_a_crop_is_looked_at_whole():
    planner = crops.Planner(60.0)
    large, small = Box(0.3, 0.0, 0.3, 0.98), Box(0.8, 0.5, 0.02, 0.05)
    planner.plan([small], [1.0], 0, WIDE)
    assert crops.WHOLE not in planner.plan([small], [1.0], 400_000, WIDE)
    assert crops.WHOLE in planner.plan([small, large], [1.0, 1.0], 800_000, WIDE)


def test_the_whole_frame_comes_at_the_heartbeat_in_place_of_the_second_crop():
    planner = crops.Planner(2.0)
    points = [Box(0.05, 0.4, 0.03, 0.1), Box(0.9, 0.4, 0.03, 0.1)]
    looks = [planner.plan(points, [1.0, 1.0], at * 400_000, WIDE) for at in range(15)]
    assert [at for at, look in enumerate(looks) if crops.WHOLE in look] == [0, 5, 10]
    assert {len(look) for look in looks} == {2}


def test_boxes_of_a_crop_stand_in_the_frame_and_cut_ones_count_half():
    rows = np.array([[0.2, 0.2, 0.4, 0.6, 0.8], [0.995, 0.2, 1.0, 0.6, 0.8]])
    found = crops.placed(rows, Box(0.5, 0.0, 0.25, 0.5))
    assert found[0] == pytest.approx([0.55, 0.1, 0.6, 0.3, 0.8, 0])
    assert found[1, 4:].tolist() == [0.4, 1]
    at_the_rim = crops.placed(rows, Box(0.75, 0.0, 0.25, 0.5))
    assert at_the_rim[:, 5].tolist() == [0, 0]  # the frame ends there, nothing is cut


def test_a_part_is_dropped_beside_the_whole():
    whole = np.array([[0.3, 0.3, 0.4, 0.6, 0.7, 0.0]])
    part = np.array([[0.3, 0.3, 0.4, 0.4, 0.9, 1.0]])
    assert len(crops.merged([whole, part], 0.5)) == 1
    assert len(crops.merged([part], 0.5)) == 1  # seen nowhere else: better than nothing
    apart = part + np.array([0.3, 0.3, 0.3, 0.3, 0, 0])
    assert len(crops.merged([whole, apart], 0.5)) == 2


@pytest.fixture(scope="module")
def detector():
    return detect.load(DetectorConfig(model="int8", view="crops", low_score=0.1), RealClock())


class Noted:
    """Passes the detector's own answers on, and keeps them."""

    model_id = "noted@000000000000"
    is_cropping = True

    def __init__(self, eye) -> None:
        self.eye = eye
        self.seen = {}
        self.looks = []

    def detect(self, frame, areas=()):
        self.looks.append(len(areas))
        self.seen[frame.index] = self.eye.detect(frame, areas)
        return tuple(item for item in self.seen[frame.index] if item.score >= 0.2)


@pytest.mark.video
@pytest.mark.parametrize("every", [1, 5])
def test_persons_of_the_plaza_are_found_better_with_crops(detector, every):
    """Two runs of the model a look at most, for a tenth more of average precision."""
    annotated = SHARED / "data" / "plaza_people.csv"
    if not annotated.exists():
        pytest.skip("the annotation may not be committed and ../shared is absent")
    truth = {
        frame: list(found.values()) for frame, found in true_people(annotated, 768, 576).items()
    }
    eye = Noted(detector)
    pipeline = Pipeline(plaza(rules=(), max_rate_per_s=10.0), eye, 0.4, SimClock())
    for frame in itertools.islice(frames(PLAZA), max(truth)):
        motion = pipeline.watch(frame)
        if frame.index % every == 0:
            pipeline.judge(frame, motion)
    found = {
        frame: [(item.score, item.box) for item in eye.seen[frame] if item.label == "person"]
        for frame in truth
    }
    assert sum(eye.looks) / len(eye.looks) <= 2.0
    assert average_precision(found, truth, 0.5) >= 0.78
    assert average_precision(found, truth, 0.3) >= 0.88
    strong = {frame: [item for item in items if item[0] >= 0.4] for frame, items in found.items()}
    hits = ranked_hits(strong, truth, 0.5)
    assert sum(hits) / sum(len(items) for items in truth.values()) >= 0.75
    assert sum(hits) / len(hits) >= 0.75


@pytest.mark.video
@pytest.mark.slow
def test_crops_leave_no_ghosts(detector):
    """Cars that left the picture are not kept because nobody looked where they had been."""
    clip = SHARED / "media" / "lab" / "car-detection.mp4"
    if not clip.exists():
        pytest.skip(f"{clip.name} may not be committed and ../shared is absent")
    eye = detect.load(DetectorConfig(model="int8", view="crops"), RealClock())
    pipeline = Pipeline(plaza(rules=()), eye, 0.4, SimClock())
    shown = right = 0
    for frame in frames(clip):
        motion = pipeline.watch(frame)
        if motion is None:
            continue
        tracks = [
            track
            for track in pipeline.judge(frame, motion).tracks
            if track.label == "vehicle" and track.missing_s <= 0.45
        ]
        if not tracks:
            continue
        there = detector.detect(frame, (crops.WHOLE, *crops.TILES))
        cars = [item.box for item in there if item.label == "vehicle" and item.score >= 0.4]
        shown += len(tracks)
        right += sum(any(overlap(track.box, car) >= 0.3 for car in cars) for track in tracks)
    assert shown >= 30
    assert right >= 0.8 * shown
