"""A thing taken from its place: time that counts and time that does not, and rendered scenes."""

from dataclasses import replace

import pytest

from agent.core.model import Box, Phase, Picture, Point, View, Zone
from agent.vision.analytics import object_removed
from agent.vision.analytics._contract import Places
from benchmarks import health as bench
from firmware_sim import picture_faults as faults
from tests.vision.test_analytics_object_left import person

CORNERS = (Point(0.4, 0.4), Point(0.6, 0.4), Point(0.6, 0.7), Point(0.4, 0.7))
PLACES = Places({"place": Zone("place", CORNERS)}, {})
EMPTY = Picture(luma_mean=110.0, luma_sd=40.0, sharpness=100.0, change=1.5)
RULE = object_removed.Config(name="removed", zone="place", removed_s=20)
FRONT, ELSEWHERE = Box(0.55, 0.2, 0.1, 0.5), Box(0.0, 0.0, 0.1, 0.1)


def play(seconds, see, fps: float = 2.0):
    state, said = object_removed.initial(), []
    for index in range(int(seconds * fps)):
        t_s = index / fps
        view = replace(see(t_s), t_us=round(t_s * 1e6))
        state, signals = object_removed.step(view, state, RULE, PLACES)
        said += signals
    return [(signal.phase, signal.t_us / 1e6) for signal in said]


def look(similarity: float, moving=(), tracks=()) -> View:
    return View(
        0, 0, tuple(tracks), picture=replace(EMPTY, similarity={"place": similarity}, moving=moving)
    )


@pytest.mark.parametrize("fps", [1.0, 2.0, 5.0])
def test_it_is_told_after_its_time_and_over_when_it_is_back(fps):
    said = play(90, lambda t_s: look(0.2 if 10 <= t_s < 60 else 0.98), fps)
    assert said == [(Phase.BEGIN, 30.0), (Phase.END, 60.0)]


def test_time_with_something_in_front_does_not_count():
    def see(t_s):
        return look(0.2 if t_s >= 10 else 0.98, moving=(FRONT,) if 20 <= t_s < 50 else (ELSEWHERE,))

    ((_, at_s),) = play(90, see)
    assert at_s == pytest.approx(60, abs=1)


def test_who_stands_in_front_and_is_tracked_is_no_theft():
    said = play(300, lambda t_s: look(0.2 if t_s > 10 else 0.98, tracks=[person(t_s, 0.5)]))
    assert said == []


def test_a_look_that_is_nearly_like_before_neither_begins_nor_ends_it():
    assert play(90, lambda t_s: look(0.65 if t_s > 10 else 0.98)) == []
    said = play(90, lambda t_s: look(0.98 if t_s < 10 else 0.2 if t_s < 40 else 0.65))
    assert said == [(Phase.BEGIN, 30.0)]


def test_blind_time_does_not_count():
    dark = View(0, 0, ())
    ((_, at_s),) = play(
        120, lambda t_s: dark if 20 <= t_s < 70 else look(0.2 if t_s > 10 else 0.98)
    )
    assert at_s == pytest.approx(80, abs=1.5)


def test_the_same_input_gives_the_same_signals():
    first, second = (play(90, lambda t_s: look(0.2 if t_s > 10 else 0.98)) for _ in range(2))
    assert first == second


@pytest.fixture(scope="module")
def clips():
    return {path.stem: faults.footage(path) for path in bench.CLIPS if path.exists()}


@pytest.mark.parametrize("maker", bench.ZONES, ids=lambda maker: maker.__name__)
def test_rendered_things(maker, clips):
    scenes = bench.scenes(maker, clips, [bench.removed_rule()], range(bench.SEEDS))
    score = bench.score(maker.__name__, scenes)
    assert score.recall >= 0.95, score.missed
    assert len(score.false) <= 1, score.false
