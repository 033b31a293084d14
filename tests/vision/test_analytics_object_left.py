"""Things left: who stands by them, who is taken for one, and rendered scenes."""

from dataclasses import replace

import pytest

from agent.core.clock import RealClock
from agent.core.model import Box, Patch, Phase, Picture, Point, Sight, Track, TrackPoint, View, Zone
from agent.vision import detect, offline
from agent.vision.analytics import object_left
from agent.vision.analytics._contract import Places
from agent.vision.config import DetectorConfig, MotionConfig
from benchmarks import health as bench
from firmware_sim import picture_faults as faults
from firmware_sim import scene_changes as changes
from tests.vision.support import PLAZA, SHARED, FileSource

LAB = SHARED / "media" / "lab"

CORNERS = (Point(0.2, 0.2), Point(0.9, 0.2), Point(0.9, 0.9), Point(0.2, 0.9))
PLACES = Places({"place": Zone("place", CORNERS)}, {})
BAG = Box(0.5, 0.6, 0.05, 0.06)
EMPTY = Picture(luma_mean=110.0, luma_sd=40.0, sharpness=100.0, change=1.5)
RULE = object_left.Config(name="left", zone="place", left_s=15)


def person(t_s: float, x: float, *, speed: float = 0.0, track_id: int = 1) -> Track:
    """Somebody whose box is at x now and came at a speed."""
    history = tuple(
        TrackPoint(
            round((t_s - back) * 1e6), Box(x - speed * back, 0.4, 0.06, 0.27), Sight.DETECTED
        )
        for back in (3.0, 2.0, 1.0, 0.0)
    )
    return Track(track_id, "person", 0.8, history[-1].box, 3.0, 0.0, history)


def play(seconds, see, rule=RULE, armed=lambda _t_s: 0):
    state, said = object_left.initial(), []
    for index in range(int(seconds * 2)):
        t_s = index / 2
        boxes, tracks = see(t_s)
        picture = None if boxes is None else replace(EMPTY, patches=tuple(boxes))
        view = View(round(t_s * 1e6), 0, tuple(tracks), armed_since_us=armed(t_s), picture=picture)
        state, signals = object_left.step(view, state, rule, PLACES)
        said += signals
    return [(signal.phase, signal.t_us / 1e6) for signal in said]


def patch(since_s: float, box: Box = BAG) -> Patch:
    return Patch(box, round(since_s * 1e6))


def test_it_is_told_after_its_time_and_over_when_it_is_gone():
    said = play(60, lambda t_s: ([patch(10)] if 10 <= t_s < 40 else [], []))
    assert said == [(Phase.BEGIN, 25.0), (Phase.END, 40.0)]


@pytest.mark.parametrize(
    "box", [Box(0.05, 0.6, 0.05, 0.06), Box(0.5, 0.6, 0.02, 0.02), Box(0.3, 0.3, 0.5, 0.5)]
)
def test_outside_too_small_or_too_large_it_is_nothing(box):
    assert play(60, lambda _t_s: ([patch(0, box)], [])) == []


def test_the_time_counts_from_when_the_owner_goes():
    def see(t_s):
        speed = 0.0 if t_s < 30 else 0.05
        return [patch(10)], [person(t_s, 0.48 + speed * max(0, t_s - 30), speed=speed)]

    (begin,) = play(70, see)
    assert begin[1] == pytest.approx(45, abs=2)


def test_who_walks_past_does_not_put_it_off():
    def see(t_s):
        x = 0.3 + 0.05 * (t_s - 15)
        return [patch(10)], [person(t_s, x, speed=0.05)] if 15 <= t_s < 25 else []

    assert play(60, see) == [(Phase.BEGIN, 25.0)]


def test_a_person_who_stands_is_no_thing_even_when_the_detector_loses_them():
    body = Box(0.5, 0.42, 0.055, 0.24)
    assert play(300, lambda t_s: ([patch(0, body)], [person(t_s, 0.5)] if t_s < 20 else [])) == []


def test_a_thing_whose_owner_was_lost_beside_it_is_told_after_two_minutes():
    (begin,) = play(300, lambda t_s: ([patch(0)], [person(t_s, 0.48)] if t_s < 20 else []))
    assert 150 <= begin[1] <= 160


def test_blind_time_says_nothing_and_ends_nothing():
    said = play(80, lambda t_s: (None if 30 <= t_s < 60 else [patch(10)], []))
    assert said == [(Phase.BEGIN, 25.0)]
    said = play(80, lambda t_s: (None if 20 <= t_s < 60 else [patch(10)], []))
    assert said == [(Phase.BEGIN, 25.0)]


def test_disarmed_it_watches_and_counts_from_the_arming():
    said = play(
        60, lambda _t_s: ([patch(0)], []), armed=lambda t_s: 30_000_000 if t_s > 30 else None
    )
    assert said == [(Phase.BEGIN, 45.0)]


@pytest.fixture(scope="module")
def plaza():
    return {"plaza": faults.footage(PLAZA)}


@pytest.mark.parametrize("maker", bench.THINGS, ids=lambda maker: maker.__name__)
def test_rendered_things(maker, plaza):
    scenes = bench.scenes(maker, plaza, [bench.left_rule()], range(bench.SEEDS))
    score = bench.score(maker.__name__, scenes)
    assert score.recall >= 0.95, score.missed
    assert len(score.false) <= 1, score.false
    assert bench.left_rule().settings.left_s == changes.LEFT_S


@pytest.mark.video
@pytest.mark.slow
@pytest.mark.parametrize(
    "clip",
    [PLAZA, LAB / "one-by-one-person-detection.mp4", LAB / "car-detection.mp4"],
    ids=lambda path: path.stem,
)
def test_with_the_real_detector_real_footage_has_no_thing_left(clip):
    """Persons stand still for longer than it takes in one of them."""
    if not clip.exists():
        pytest.skip(f"{clip.name} may not be committed and ../shared is absent")
    rules = [bench.left_rule(), bench.health_rule(), bench.removed_rule()]
    camera = replace(bench.camera(rules), motion=MotionConfig())
    eye = detect.load(DetectorConfig(model="int8"), RealClock())
    assert list(offline.analyse_lines(FileSource(clip), camera, eye, 0.4, RealClock())) == []
