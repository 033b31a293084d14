"""Where the detector is sent, and what becomes of tracks that it was not sent to."""

from collections.abc import Sequence

import numpy as np
import pytest

from agent.core.clock import SimClock
from agent.core.model import Box, Detection
from agent.vision import crops
from agent.vision.boxes import corners, covered
from agent.vision.costs import Costs
from agent.vision.follow import Follower
from agent.vision.motion import STILL, MotionResult
from tests.vision.cameras import plaza

SMALL = (0.02, 0.06)


class Searcher:
    """An eye that sees who is there, as far as it is sent there."""

    model_id = "searcher@000000000000"
    is_cropping = True

    def __init__(self, people) -> None:
        self.people = people
        self.areas: list[tuple[Box, ...]] = []

    def detect(self, frame, areas: Sequence[Box] = ()) -> tuple[Detection, ...]:
        self.areas.append(tuple(areas))
        there = [Box(x, y, *SMALL) for x, y in self.people(frame.t_us / 1e6)]
        if not there:
            return ()
        is_shown = covered(corners(there), corners(areas)) > 0.99
        return tuple(
            Detection("person", 0.8, box) for box, ok in zip(there, is_shown, strict=True) if ok
        )


class Picture:
    """A grey picture: no flow, so that only the detector tells."""

    width_px, height_px = 640, 360

    def __init__(self, t_s: float) -> None:
        self.t_us = round(t_s * 1e6)

    def luma(self) -> np.ndarray:
        return np.full((180, 320), 90, np.uint8)


def follow(people, seconds: float, moving=lambda _t: STILL):
    """Tracks at every look, five a second, and the eye."""
    eye = Searcher(people)
    one = Follower(plaza(max_rate_per_s=5.0), eye, 0.4, SimClock(), Costs())
    looks = []
    for step in range(int(seconds * 5)):
        frame = Picture(step / 5)
        motion = moving(step / 5)
        looks.append(one.look(frame, motion, may_detect=True))
    return looks, eye, one


SPREAD = [(x, y) for x in (0.03, 0.35, 0.62, 0.95) for y in (0.05, 0.9)]


def test_more_people_than_two_crops_hold_are_all_kept():
    looks, eye, _ = follow(lambda _t: SPREAD, 30)
    assert len(looks[-1].tracks) == len(SPREAD)
    assert {track.track_id for look in looks for track in look.tracks} == set(range(1, 9))
    assert max(len(areas) for areas in eye.areas) == 2
    for look in looks[20:]:
        assert max(track.missing_s for track in look.tracks) <= 4.0


def test_people_who_leave_unseen_are_gone_within_seconds():
    looks, _, _ = follow(lambda t: SPREAD if t < 10 else SPREAD[:1], 20)
    gone = next(index for index, look in enumerate(looks[50:]) if len(look.tracks) == 1)
    assert gone / 5 <= 6.0
    assert len(looks[-1].tracks) == 1


def test_what_moves_is_looked_at_closely():
    def moving(_t: float) -> MotionResult:
        return MotionResult(is_moving=True, area_frac=0.01, boxes=(Box(0.8, 0.7, 0.02, 0.05),))

    _, eye, _ = follow(lambda _t: [], 3, moving)
    close = [areas for areas in eye.areas if crops.WHOLE not in areas]
    assert len(close) >= 10
    for areas in close:
        assert covered(corners([Box(0.8, 0.7, 0.02, 0.05)]), corners(areas))[0] == 1.0


def test_without_leave_the_detector_is_not_asked_and_tracks_go_on():
    eye = Searcher(lambda _t: [(0.5, 0.5)])
    one = Follower(plaza(), eye, 0.4, SimClock(), Costs())
    one.look(Picture(0.0), STILL, may_detect=True)
    one.look(Picture(0.4), STILL, may_detect=True)
    seen = one.look(Picture(0.8), STILL, may_detect=False)
    assert seen.detections is None
    assert len(eye.areas) == 2
    assert seen.tracks[0].missing_s == pytest.approx(0.4)
