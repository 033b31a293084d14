"""Rendered faults: the same from the same seed, and nothing before they begin."""

import inspect

import numpy as np
import pytest

from firmware_sim import picture_faults, scene_changes
from firmware_sim.picture_faults import BEGIN_S, HEIGHT_PX, WIDTH_PX, Plan, footage, shots

ROOT = __import__("pathlib").Path(__file__).parents[2]


def makers(module):
    return [
        found
        for name, found in inspect.getmembers(module, inspect.isfunction)
        if found.__module__ == module.__name__
        and not name.startswith("_")
        and inspect.signature(found).return_annotation is Plan
    ]


MAKERS = [*makers(picture_faults), *makers(scene_changes)]


@pytest.fixture(scope="module")
def pictures():
    return footage(ROOT / "firmware_sim" / "media" / "plaza.mp4")


def test_footage_is_planes_at_the_rate_that_was_asked_for(pictures):
    assert len(pictures) == 80
    assert {picture.shape for picture in pictures} == {(HEIGHT_PX, WIDTH_PX)}


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_a_seed_gives_one_scene_and_leaves_the_footage_alone(maker, pictures):
    before = [picture.copy() for picture in pictures]
    plan = maker(np.random.default_rng(3))
    first = list(shots(plan, pictures, 3))
    again = list(shots(maker(np.random.default_rng(3)), pictures, 3))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(first, again, strict=True))
    assert [shot.t_s for shot in first] == [shot.t_s for shot in again]
    assert all(np.array_equal(a, b) for a, b in zip(before, pictures, strict=True))
    for shot in first:
        assert shot.picture.shape == (HEIGHT_PX, WIDTH_PX)
        assert shot.picture.dtype == np.uint8
    for truth in plan.truths:
        assert BEGIN_S <= truth.begin_s < truth.end_s <= plan.seconds


def test_what_a_camera_suffers_begins_when_it_is_said(pictures):
    plain = list(shots(Plan("", BEGIN_S), pictures, 5))
    for maker in makers(picture_faults):
        played = list(shots(maker(np.random.default_rng(5)), pictures, 5))[: len(plain)]
        differ = [
            a.t_s
            for a, b in zip(plain, played, strict=True)
            if np.abs(a.picture.astype(int) - b.picture).mean() > 5
        ]
        assert differ == [], maker.__name__
