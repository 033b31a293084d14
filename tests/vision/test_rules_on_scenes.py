"""Every rule on made scenes whose truth a second implementation tells; the bench has many more."""

import dataclasses
import json

import pytest

from benchmarks._chain import Chain, Played
from benchmarks._score import Score
from firmware_sim.scenes import KINDS, NOISELESS, looks, scene_for, truth_of

SCENES = 10
FIRST_SEED = 40_000
FPS = 5
STARTS = ("zone_enter", "pedestrian_on_road", "line_cross", "wrong_way", "counter_flow")


def played(kind: str, seed: int, fps: int = FPS, **options) -> Played:
    scene = scene_for(kind, seed)
    return Chain(scene, is_confused=not options).play(looks(scene, fps, **options))


def test_what_happens_is_told_and_nothing_else() -> None:
    scores = {kind: Score() for kind in KINDS}
    for kind, score in scores.items():
        for seed in range(FIRST_SEED, FIRST_SEED + SCENES):
            scene = scene_for(kind, seed)
            score.take(scene, truth_of(scene), played(kind, seed), 1 / FPS)
    failed = [line for score in scores.values() for line in score.failed]
    for kind, score in scores.items():  # a rule that is broken finds nothing, or cries all day
        assert score.hits >= 1, kind
        assert min(score.precision, score.recall) >= 0.65, failed
        assert sorted(score.delays_s)[len(score.delays_s) // 2] <= 1.0, kind
    hits = sum(score.hits for score in scores.values())
    assert hits >= 140
    assert hits / (hits + sum(score.false for score in scores.values())) >= 0.93, failed
    assert hits / (hits + sum(score.misses for score in scores.values())) >= 0.93, failed


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_looks_give_the_same_events(kind: str) -> None:
    def told() -> str:
        result = played(kind, FIRST_SEED)
        events = [*(item.event for item in result.told), *result.closed]
        return json.dumps([dataclasses.asdict(event) for event in events], default=str)

    assert told() == told()
    assert "event_id" in told() or not played(kind, FIRST_SEED).told


@pytest.mark.parametrize("fps", [2, 5, 10])
def test_the_moment_does_not_hang_on_the_rate(fps: int) -> None:
    near = total = 0
    for kind in STARTS:
        for seed in range(FIRST_SEED, FIRST_SEED + 5):
            often = played(kind, seed, 15, noise=NOISELESS).told
            seldom = played(kind, seed, fps, noise=NOISELESS, drop_share=0.2).told
            for one in often:
                same = [it.start_s for it in seldom if set(it.actors) & set(one.actors)]
                total += 1
                near += any(abs(start_s - one.start_s) <= 1 / fps for start_s in same)
    assert total >= 20
    assert near >= 0.85 * total
