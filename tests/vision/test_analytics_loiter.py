"""Loitering: time inside, bridged losses, other names, other rates, schedules."""

import pytest

from agent.core.model import Phase, Point, Zone
from agent.vision.analytics import Places, loiter
from tests.vision.tracks import Actor, phases, play, scene, stand, walk

PLACES = Places(
    zones={
        "gate": Zone("gate", (Point(0.4, 0.4), Point(0.6, 0.4), Point(0.6, 0.6), Point(0.4, 0.6)))
    },
    lines={},
)
RULE = loiter.Config(name="loitering", zone="gate", dwell_s=10)


def begins(actors, seconds=40, fps=5.0, rule=RULE):
    return phases(play(loiter, scene(actors, seconds, fps), rule, PLACES), Phase.BEGIN)


def test_who_passes_is_no_loiterer_and_who_stays_is_from_the_tenth_second():
    passing = Actor(1, walk((0, 0.1, 0.5), (20, 0.9, 0.5)))
    staying = Actor(2, walk((0, 0.1, 0.5), (10, 0.5, 0.5), (30, 0.5, 0.5), (33, 0.9, 0.5)))
    said = play(loiter, scene([passing, staying], 40), RULE, PLACES)
    (begin,) = phases(said, Phase.BEGIN)
    assert begin.track_ids == (2,)
    entered_s = 10 * (0.41 - 0.1) / 0.4
    assert begin.t_us == pytest.approx((entered_s + 10) * 1e6, abs=2e4)
    (end,) = phases(said, Phase.END)
    assert end.reason == "left"
    assert end.measured["dwell_s"] == pytest.approx(end.t_us / 1e6 - entered_s, abs=0.02)


@pytest.mark.parametrize("fps", [2.0, 5.0, 15.0])
def test_the_dwell_does_not_depend_on_the_frame_rate(fps):
    staying = Actor(1, walk((0, 0.1, 0.5), (10, 0.5, 0.5), (30, 0.5, 0.5), (33, 0.9, 0.5)))
    (begin,) = begins([staying], fps=fps)
    assert begin.t_us == pytest.approx(17.75e6, abs=0.05e6)


@pytest.mark.parametrize(("away_s", "count"), [(7.0, 1), (9.5, 0)])
def test_a_short_loss_is_bridged_and_a_long_one_starts_anew(away_s, count):
    lost = Actor(1, stand(0.5, 0.5), end_s=14, hidden=(3.0, 3.0 + away_s))
    assert len(begins([lost], 16)) == count


def test_who_comes_back_has_not_stayed():
    visitor = Actor(
        1,
        walk(
            (0, 0.5, 0.5),
            (7, 0.5, 0.5),
            (8, 0.7, 0.5),
            (9, 0.5, 0.5),
            (16, 0.5, 0.5),
            (17, 0.8, 0.5),
        ),
    )
    assert begins([visitor], 20) == []


def test_another_name_for_the_same_person_goes_on_counting():
    renamed = Actor(1, stand(0.5, 0.5), becomes=(6.0, 7))
    (begin,) = begins([renamed], 20)
    assert begin.t_us == 10_000_000
    assert begin.track_ids == (7,)


def test_a_change_of_name_during_the_event_is_no_second_one():
    renamed = Actor(1, stand(0.5, 0.5), becomes=(15.0, 7))
    said = play(loiter, scene([renamed], 20), RULE, PLACES)
    (begin,) = phases(said, Phase.BEGIN)
    (update,) = phases(said, Phase.UPDATE)
    assert (update.key, update.track_ids) == (begin.key, (7,))


def test_time_counts_from_the_arming_and_is_told_again_after_it():
    from dataclasses import replace

    made = scene([Actor(1, stand(0.5, 0.5))], 60)
    plan = [
        replace(
            view,
            armed_since_us=None
            if view.t_us < 5e6 or 30e6 <= view.t_us < 40e6
            else (5_000_000 if view.t_us < 30e6 else 40_000_000),
        )
        for view in made
    ]
    found = phases(play(loiter, plan, RULE, PLACES), Phase.BEGIN)
    assert [signal.t_us for signal in found] == [15_000_000, 50_000_000]


def test_sensitivity_chooses_the_time_unless_it_is_set():
    assert loiter.Config(name="a", zone="gate").dwell_s == 30
    assert loiter.Config(name="a", zone="gate", sensitivity=5).dwell_s == 10
    assert loiter.Config(name="a", zone="gate", sensitivity=5, dwell_s=99.0).dwell_s == 99


def test_nothing_of_one_is_left_once_it_is_gone():
    state = loiter.initial()
    for view in scene([Actor(1, stand(0.5, 0.5), end_s=12)], 30):
        state, _ = loiter.step(view, state, RULE, PLACES)
    assert state == loiter.initial()
