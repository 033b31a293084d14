"""Boxes carried by the picture's own motion: made textures, and people of the plaza."""

import cv2
import numpy as np
import pytest

from agent.core.model import Box, Sight
from agent.vision import flow
from agent.vision.config import TrackConfig
from agent.vision.flow import Flow
from agent.vision.track import Tracker
from tests.vision.support import PLAZA, frames, overlap

BOX = Box(0.40, 0.30, 0.10, 0.30)
GREY = np.full((180, 320), 90, np.uint8)


def texture(seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (180, 320)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def pasted(box: Box, patch: np.ndarray, ground: np.ndarray = GREY) -> np.ndarray:
    """A patch on a ground where the box is, to a fraction of a pixel."""
    h, w = patch.shape
    moved = np.array(
        [[box.w * 320 / w, 0, box.x * 320], [0, box.h * 180 / h, box.y * 180]], np.float32
    )
    over = cv2.warpAffine(patch, moved, (320, 180), flags=cv2.INTER_LINEAR)
    mask = cv2.warpAffine(np.full_like(patch, 255), moved, (320, 180), flags=cv2.INTER_LINEAR)
    return np.where(mask > 127, over, ground)


@pytest.mark.parametrize(("dx", "dy"), [(0.01, 0.0), (0.0, -0.03), (0.04, 0.02), (0.0, 0.0)])
def test_a_box_goes_with_what_is_in_it(dx, dy):
    patch = texture()[:60, :40]
    there = BOX._replace(x=BOX.x + dx, y=BOX.y + dy)
    one = Flow()
    assert one.step(pasted(BOX, patch), []) == ()
    (moved,) = one.step(pasted(there, patch), [BOX])
    assert moved == pytest.approx(there, abs=0.004)


def test_a_box_grows_with_what_is_in_it():
    patch = texture()[:60, :40]
    there = Box(BOX.x - 0.004, BOX.y - 0.012, BOX.w * 1.08, BOX.h * 1.08)
    one = Flow()
    one.step(pasted(BOX, patch), [])
    (moved,) = one.step(pasted(there, patch), [BOX])
    assert moved is not None
    assert moved.h == pytest.approx(there.h, rel=0.03)
    assert overlap(moved, there) > 0.9


def test_each_box_goes_its_own_way():
    patch, other = texture()[:60, :40], texture(2)[:60, :40]
    left, right = BOX._replace(x=0.1), BOX._replace(x=0.7)
    before = pasted(right, other, pasted(left, patch))
    after = pasted(right._replace(x=0.68), other, pasted(left._replace(x=0.12), patch))
    one = Flow()
    one.step(before, [])
    found = one.step(after, [left, right])
    assert [box.x for box in found] == pytest.approx([0.12, 0.68], abs=0.004)


def test_what_is_gone_is_not_made_up():
    one = Flow()
    one.step(pasted(BOX, texture()[:60, :40]), [])
    assert one.step(GREY, [BOX]) == (None,)
    assert one.step(texture(3), [BOX]) == (None,)  # nothing to hold on to on plain grey


def test_another_scene_carries_nothing():
    one = Flow()
    one.step(texture(4), [])
    found = one.step(texture(5), [BOX, BOX._replace(x=0.1), BOX._replace(x=0.7)])
    assert found.count(None) >= 2


def test_without_a_last_plane_nothing_is_known():
    one, plane = Flow(), texture()
    assert one.step(plane, [BOX]) == (None,)
    one.forget()
    assert one.step(plane, [BOX]) == (None,)
    assert one.step(plane[:90], [BOX]) == (None,)  # the camera changed its picture


@pytest.mark.parametrize(
    "box", [Box(-0.5, -0.5, 0.1, 0.1), Box(1.2, 0.5, 0.1, 0.1), Box(0.5, 0.5, 0.0, 0.0)]
)
def test_a_box_that_holds_no_picture_is_not_carried(box):
    one, plane = Flow(), texture()
    one.step(plane, [])
    assert one.step(plane, [box, BOX])[0] is None


def test_a_crowd_is_carried_in_part():
    one, plane = Flow(), texture()
    one.step(plane, [])
    found = one.step(plane, [BOX] * (flow.MAX_BOXES + 10))
    assert len(found) == flow.MAX_BOXES + 10
    assert found[flow.MAX_BOXES :] == (None,) * 10
    assert None not in found[: flow.MAX_BOXES]


@pytest.mark.video
def test_rare_detections_are_bridged_on_the_plaza():
    """At one look a second the people of the plaza stay covered only where boxes are carried."""
    from agent.core.clock import RealClock
    from agent.vision import detect
    from agent.vision.config import DetectorConfig

    detector = detect.load(DetectorConfig(model="int8"), RealClock())
    alone, carried, one = Tracker(TrackConfig(), 0.4), Tracker(TrackConfig(), 0.4), Flow()
    total = hits_alone = hits_carried = 0
    sights = set()
    for frame in frames(PLAZA):
        if frame.index > 300:
            break
        if frame.index % 2 == 0:
            continue
        seen = detector.detect(frame)
        given = seen if frame.index % 10 == 1 else None
        moved = one.step(frame.luma(), carried.boxes)
        first = alone.step(given, frame.t_us)
        second = carried.step(given, frame.t_us, moved)
        sights |= {track.history[-1].sight for track in second}
        truth = [item.box for item in seen if item.score >= 0.5 and item.label == "person"]
        total += len(truth)
        hits_alone += covered(truth, first)
        hits_carried += covered(truth, second)
    assert sights == set(Sight)
    assert hits_carried / total >= 0.75
    assert hits_carried >= 1.08 * hits_alone


def covered(truth, tracks) -> int:
    return sum(any(overlap(box, track.box) >= 0.3 for track in tracks) for box in truth)
