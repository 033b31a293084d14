"""One camera from picture to event: rates, gate, breaks, and real footage end to end."""

import itertools

import numpy as np
import pytest

from agent.core import wire
from agent.core.clock import RealClock, SimClock
from agent.core.model import Box, Detection, EventState
from agent.vision import detect, offline
from agent.vision.config import DetectorConfig, EventConfig, MotionConfig
from agent.vision.pipeline import Pipeline
from tests.vision.cameras import Script, Walker, plaza
from tests.vision.support import BIKES, PLAZA, FileSource

BASE_NS = 1_700_000_000_000_000_000


class Plane:
    """A picture whose luma a test makes; all that the pipeline needs of a frame."""

    def __init__(self, t_s: float, index: int, luma: np.ndarray) -> None:
        self.t_us = round(t_s * 1e6)
        self.utc_ns = BASE_NS + self.t_us * 1000
        self.index = index
        self.camera_utc_ns, self.is_corrupt = None, False
        self._luma = luma

    def luma(self) -> np.ndarray:
        return self._luma


def still(seconds: float, fps: float = 10.0, start_s: float = 0.0):
    grey = np.full((180, 320), 90, np.uint8)
    for index in range(int(seconds * fps)):
        yield Plane(start_s + index / fps, index + 1, grey)


def run(pipeline: Pipeline, planes) -> list:
    return [pipeline.step(plane) for plane in planes]


def events(results) -> list:
    return [event for result in results for event in result.events]


def test_a_walk_makes_a_visit_and_a_crossing_with_the_times_of_the_walk():
    pipeline = Pipeline(plaza(), Walker(8.0), 0.4, SimClock())
    said = events(run(pipeline, still(14)))
    opened = {event.event_id: event for event in said if event.state is EventState.OPEN}
    closed = [event for event in said if event.state is EventState.CLOSED]
    assert sorted(event.rule for event in closed) == ["on-crossing", "over-kerb"]
    assert {event.event_id for event in closed} == set(opened)
    crossing = next(event for event in closed if event.rule == "over-kerb")
    assert crossing.reason == "b_to_a"
    middle_s = (0.5 - 0.045) / 0.9 * 8
    assert (crossing.start_utc_ns - BASE_NS) / 1e9 == pytest.approx(middle_s, abs=0.05)
    visit = next(event for event in closed if event.rule == "on-crossing")
    assert visit.measured["dwell_s"] == pytest.approx(
        (visit.end_utc_ns - visit.start_utc_ns) / 1e9, abs=0.001
    )
    assert visit.model == "walker@000000000000"
    assert len(visit.path) > 10


@pytest.mark.parametrize("rate", [2.5, 5.0])
def test_the_rate_of_detections_is_held(rate):
    eye = Walker(20.0)
    run(Pipeline(plaza(max_rate_per_s=rate), eye, 0.4, SimClock()), still(20))
    assert len(eye.calls) == pytest.approx(20 * rate, abs=1)


def test_an_empty_scene_costs_a_heartbeat_only():
    eye = Script(lambda _t: ())
    pipeline = Pipeline(plaza(), eye, 0.4, SimClock())
    run(pipeline, still(20))
    assert eye.calls == [2_000_000 * count for count in range(10)]
    assert pipeline.inferences == 10


def test_a_moving_camera_is_detected_at_the_full_rate():
    eye = Script(lambda _t: ())
    camera = plaza(motion=MotionConfig(is_moving_camera=True))
    run(Pipeline(camera, eye, 0.4, SimClock()), still(20))
    assert len(eye.calls) == 50


def test_a_person_who_stands_for_minutes_is_one_event():
    """Nothing moves in the picture at all: only the living track keeps the gate open."""
    eye = Script(lambda t: [Detection("person", 0.6, Box(0.5, 0.4, 0.05, 0.2))] if t >= 1 else ())
    pipeline = Pipeline(plaza(events=EventConfig(max_s=600)), eye, 0.4, SimClock())
    results = run(pipeline, still(180, fps=5))
    (opened,) = events(results)
    (closed,) = pipeline.break_off("end")
    assert closed.event_id == opened.event_id
    assert closed.track_ids == (1,)
    assert all(len(result.tracks) == 1 for result in results[20:])
    assert not any(result.motion.is_moving for result in results)


def test_weak_detections_are_not_reported_but_carry_the_track():
    eye = Script(lambda t: [Detection("person", 0.6 if t < 2 else 0.25, Box(0.5, 0.4, 0.05, 0.2))])
    results = run(Pipeline(plaza(), eye, 0.4, SimClock()), still(10))
    late = [result for result in results[40:] if result.detections is not None]
    assert late
    assert all(result.detections == () for result in late)
    assert all(result.tracks[0].missing_s == 0 for result in late)


def test_without_a_detector_there_is_motion_and_nothing_else():
    pipeline = Pipeline(plaza(), None, 0.4, SimClock())
    bright = np.full((180, 320), 90, np.uint8)
    bright[60:100, 100:140] = 250
    planes = [*still(2), Plane(2.0, 21, bright), Plane(2.2, 22, bright)]
    results = run(pipeline, planes)
    assert results[20].motion.is_moving
    assert all(result.detections is None and not result.tracks for result in results)
    assert events(results) == []


def test_a_break_closes_the_events_and_what_comes_after_is_new():
    eye = Script(lambda _t: [Detection("person", 0.6, Box(0.5, 0.4, 0.05, 0.2))])
    pipeline = Pipeline(plaza(events=EventConfig(lost_s=10)), eye, 0.4, SimClock())
    before = events(run(pipeline, still(5)))
    after = events(run(pipeline, still(5, start_s=30.0)))
    assert [event.state for event in before] == [EventState.OPEN]
    closed, opened = after
    assert (closed.event_id, closed.reason) == (before[0].event_id, "source lost")
    assert (closed.end_utc_ns - BASE_NS) / 1e9 == pytest.approx(4.8, abs=0.11)
    assert opened.event_id != closed.event_id
    assert opened.track_ids == (2,)
    assert opened.start_utc_ns >= BASE_NS + 30 * 10**9


def test_a_short_break_is_bridged():
    eye = Script(lambda _t: [Detection("person", 0.6, Box(0.5, 0.4, 0.05, 0.2))])
    pipeline = Pipeline(plaza(), eye, 0.4, SimClock())
    said = events(run(pipeline, still(5))) + events(run(pipeline, still(5, start_s=6.2)))
    assert [event.state for event in said] == [EventState.OPEN]


def test_a_picture_from_the_past_is_passed_over():
    pipeline = Pipeline(plaza(), Walker(), 0.4, SimClock())
    run(pipeline, still(3))
    old = next(still(1))
    assert pipeline.judge(old, pipeline.step(old).motion).tracks == ()


def test_key_frames_alone_still_follow_a_person():
    eye = Script(lambda _t: [Detection("person", 0.6, Box(0.5, 0.4, 0.05, 0.2))])
    pipeline = Pipeline(plaza(), eye, 0.4, SimClock())
    said = events(run(pipeline, still(120, fps=0.5)))
    assert [event.state for event in said] == [EventState.OPEN]
    assert len(eye.calls) == 60


def test_the_same_video_gives_the_same_events():
    said = [
        events(run(Pipeline(plaza(), Walker(7.3), 0.4, SimClock()), still(12, fps=7.5)))
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert said[0]


@pytest.fixture(scope="module")
def detector():
    return detect.load(DetectorConfig(model="int8"), RealClock())


@pytest.mark.video
def test_the_plaza_gives_events_that_the_centre_accepts(detector):
    found = list(offline.analyse_lines(FileSource(PLAZA), plaza(), detector, 0.4, RealClock()))
    opened = [item for item in found if item["event"]["state"] == "open"]
    closed = [item for item in found if item["event"]["state"] == "closed"]
    assert {item["event"]["event_id"] for item in opened} == {
        item["event"]["event_id"] for item in closed
    }
    assert len(closed) >= 15
    for item in found:
        wire.check("event", item["event"])
    for item in closed:
        assert 0 <= item["start_pts_s"] <= item["end_pts_s"] <= 40
    directions = {
        item["event"]["measured"]["direction"]
        for item in closed
        if item["event"]["rule"] == "over-kerb"
    }
    assert directions == {1.0, -1.0}


@pytest.mark.video
def test_crossings_of_the_plaza_hold_over_the_rate(detector):
    """At 2.5 and at 10 looks a second nearly the same crossings, at nearly the same time."""
    found = {}
    for rate in (2.5, 10.0):
        lines = offline.analyse_lines(
            FileSource(PLAZA), plaza(max_rate_per_s=rate), detector, 0.4, RealClock()
        )
        found[rate] = [
            (item["start_pts_s"], item["event"]["measured"]["direction"])
            for item in lines
            if item["event"]["rule"] == "over-kerb" and item["event"]["state"] == "closed"
        ]
    met = [
        slow
        for slow in found[2.5]
        if any(abs(slow[0] - fast[0]) < 0.4 and slow[1] == fast[1] for fast in found[10.0])
    ]
    assert len(found[10.0]) >= 10
    assert len(met) >= 0.75 * max(len(found[2.5]), len(found[10.0]))


@pytest.mark.video
def test_detect_lines_tell_every_picture_in_pixels(detector):
    lines = list(itertools.islice(offline.detect_lines(FileSource(PLAZA), detector, 1, 0.4), 30))
    assert [line["frame"] for line in lines] == list(range(1, 31))
    assert lines[0]["pts_s"] == 0.0
    assert lines[29]["pts_s"] == pytest.approx(2.9)
    last = lines[29]
    assert sum(item["label"] == "person" for item in last["detections"]) >= 3
    for item in last["detections"]:
        left, top, width, height = item["box_px"]
        assert 0 <= left <= left + width <= 768.1
        assert 0 <= top <= top + height <= 576.1
        assert item["score"] >= 0.4
    assert last["tracks"]
    assert {"track_id", "label", "score", "box_px", "sight"} == set(last["tracks"][0])


@pytest.mark.video
def test_every_nth_picture_is_the_one_whose_number_is_a_multiple():
    lines = offline.detect_lines(FileSource(BIKES), Walker(), 50, 0.4)
    assert [line["frame"] for line in lines] == [50, 100, 150, 200, 250]


@pytest.mark.video
def test_a_source_is_closed_when_the_reader_stops_early():
    source = FileSource(PLAZA)
    lines = offline.detect_lines(source, Walker(), 1, 0.4)
    next(lines)
    lines.close()
    assert source.is_closed
