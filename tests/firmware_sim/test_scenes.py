"""The kit as a whole: scenes from seeds, what a detector says of them, and what must not matter."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from firmware_sim.scenes import (
    KINDS,
    NOISELESS,
    Case,
    look_times_us,
    looks,
    sample,
    scene_for,
    truth_in,
    truth_of,
)

SEEDS = range(3)
EVERY = [(kind, seed) for kind in KINDS for seed in SEEDS]


def digest(scene):
    parts = [repr(scene), repr(looks(scene, 5.0, drop_share=0.1)), repr(truth_of(scene))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def case_of(scene):
    return Case(sample(scene), scene.rule, scene.zones, scene.lines)


def rounded(found):
    return sorted(
        (item.objects, round(item.start_s, 2), round(item.told_from_s, 2), item.is_doubtful)
        for item in found
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_bytes_and_another_others(kind: str) -> None:
    assert digest(scene_for(kind, 5)) == digest(scene_for(kind, 5))
    assert digest(scene_for(kind, 5)) != digest(scene_for(kind, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_scenes_with_and_without_events_and_few_doubts(kind: str) -> None:
    found = [truth_of(scene_for(kind, seed)) for seed in range(25)]
    sure = [item for events in found for item in events if not item.is_doubtful]
    doubtful = [item for events in found for item in events if item.is_doubtful]
    assert len(sure) >= 8
    assert len(doubtful) <= 0.25 * (len(sure) + len(doubtful))  # 25 scenes; below 10 % over 1,000
    if kind != "counting":
        assert any(not events for events in found)


@pytest.mark.parametrize(("kind", "seed"), EVERY)
def test_a_scene_is_one_that_could_be_configured(kind: str, seed: int) -> None:
    scene = scene_for(kind, seed)
    assert 20.0 <= scene.seconds <= 120.0
    for polygon in (*scene.zones.values(), *scene.lines.values()):
        assert all(0.0 <= x <= 1.0 and 0.0 <= y <= 1.0 for x, y in polygon)
    assert all(0.0 <= t_s <= scene.seconds for t_s, _ in scene.switches)
    assert all(0 <= row < len(scene.actors) for _, row in scene.switches)
    assert all(first != second for _, first, second in scene.swaps)
    seen = sample(scene)
    assert all(row.any() for row in seen.is_seen), "somebody never comes into the picture"


@pytest.mark.parametrize(("kind", "seed"), EVERY)
def test_the_mirrored_picture_has_the_mirrored_truth(kind: str, seed: int) -> None:
    plain = case_of(scene_for(kind, seed))

    def turned(points):
        return tuple((1.0 - x, y) for x, y in points)

    feet = plain.seen.feet.copy()
    feet[..., 0] = 1.0 - feet[..., 0]
    mirrored = replace(
        plain,
        seen=replace(plain.seen, feet=feet),
        zones={name: turned(points) for name, points in plain.zones.items()},
        lines={name: turned(points)[::-1] for name, points in plain.lines.items()},
    )
    if kind == "wrong_way":  # there a line is a direction, not a border with sides
        lines = {name: points[::-1] for name, points in mirrored.lines.items()}
        mirrored = replace(mirrored, lines=lines)
    assert rounded(truth_in(kind, mirrored)) == rounded(truth_in(kind, plain))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "counting"])
def test_a_later_scene_has_the_same_truth_later(kind: str) -> None:
    plain = case_of(scene_for(kind, 1))
    later = replace(plain, seen=replace(plain.seen, t_s=plain.seen.t_s + 1000.0))
    moved, stayed = truth_in(kind, later), truth_in(kind, plain)
    assert [item.objects for item in moved] == [item.objects for item in stayed]
    for one, other in zip(moved, stayed, strict=True):
        assert one.start_s - 1000.0 == pytest.approx(other.start_s, abs=0.11)
        assert one.is_doubtful == other.is_doubtful


@pytest.mark.parametrize(("kind", "seed"), EVERY)
def test_who_is_named_first_does_not_matter(kind: str, seed: int) -> None:
    scene = scene_for(kind, seed)
    turned = replace(scene, actors=scene.actors[::-1])
    last = len(scene.actors) - 1
    back = [
        replace(item, objects=tuple(sorted(last - row for row in item.objects)))
        for item in truth_of(turned)
    ]
    assert rounded(back) == rounded(truth_of(scene))


def test_pictures_come_at_the_rate_and_some_are_dropped() -> None:
    scene = scene_for("loiter", 3)
    for fps in (2.0, 5.0, 10.0, 15.0):
        times = look_times_us(scene, fps)
        assert np.diff(times) == pytest.approx(1e6 / fps, abs=1.0)
        kept = len(look_times_us(scene, fps, 0.2)) / len(times)
        assert 0.6 < kept < 0.95


def test_a_perfect_detector_gives_the_boxes_as_they_are() -> None:
    scene = scene_for("line_cross", 2)
    seen = sample(scene)
    count = 0
    for look in looks(scene, 5.0, noise=NOISELESS):
        for item in look.seen:
            left, top, width, height = item.box
            foot = (left + width / 2, top + height)
            near = np.array(
                [
                    np.interp(look.t_us / 1e6, seen.t_s, seen.feet[item.actor, :, axis])
                    for axis in (0, 1)
                ]
            )
            assert foot == pytest.approx(near.tolist(), abs=0.003)
            assert item.score > 0.8
            count += 1
    assert count > 30


def test_a_real_one_trembles_misses_and_sees_ghosts() -> None:
    given = expected = ghosts = weak = 0
    off = []
    for seed in range(12):
        scene = scene_for("zone_enter", seed)
        clean = {look.t_us: look for look in looks(scene, 10.0, noise=NOISELESS)}
        for look in looks(scene, 10.0):
            whole = {item.actor: item for item in clean[look.t_us].seen}
            expected += len(whole)
            for item in look.seen:
                if item.actor is None:
                    ghosts += 1
                    continue
                given += 1
                weak += item.score < 0.4
                bottom = sum(whole[item.actor].box[1::2])
                off.append((sum(item.box[1::2]) - bottom) / whole[item.actor].box[3])
    assert 0.80 < given / expected < 0.96
    assert 0.03 < weak / given < 0.15
    assert ghosts > 3
    assert 0.012 < np.std(off) < 0.05
