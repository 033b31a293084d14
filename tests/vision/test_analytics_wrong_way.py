"""Wrong way: how far back, not how it wriggles."""

import pytest

from agent.core.model import Line, Phase, Point, Zone
from agent.vision.analytics import Places, wrong_way
from tests.vision.tracks import Actor, phases, play, scene, walk

LANE = Zone("lane", (Point(0.05, 0.4), Point(0.95, 0.4), Point(0.95, 0.7), Point(0.05, 0.7)))
PLACES = Places(
    zones={"lane": LANE}, lines={"flow": Line("flow", Point(0.1, 0.55), Point(0.9, 0.55))}
)
RULE = wrong_way.Config(name="ghost", zone="lane", line="flow", min_distance_frac=0.1)


def said(*stops, fps=5.0, seconds=20):
    actor = Actor(1, walk(*stops), end_s=stops[-1][0], label="vehicle")
    return play(wrong_way, scene([actor], seconds, fps), RULE, PLACES)


def test_with_the_flow_nothing_is_said():
    assert said((0, 0.0, 0.5), (5, 1.0, 0.5)) == []


@pytest.mark.parametrize("fps", [2.0, 5.0, 15.0])
def test_against_it_after_a_tenth_of_the_picture(fps):
    found = said((0, 1.0, 0.55), (10, 0.0, 0.55), fps=fps)
    (begin,), (end,) = phases(found, Phase.BEGIN), phases(found, Phase.END)
    assert begin.t_us == pytest.approx((1.0 - 0.94 + 0.1) / 0.1 * 1e6, abs=2e4)
    assert begin.measured["distance_frac"] >= 0.1
    assert end.reason == "left"


def test_a_short_way_back_is_manoeuvring():
    assert said((0, 0.1, 0.5), (4, 0.5, 0.5), (6, 0.42, 0.5), (10, 0.9, 0.5)) == []


def test_crossing_the_lane_is_not_driving_along_it():
    assert said((0, 0.6, 0.3), (4, 0.5, 0.8)) == []


def test_turning_round_ends_it_and_turning_again_begins_another():
    found = said((0, 0.9, 0.5), (4, 0.5, 0.5), (8, 0.8, 0.5), (12, 0.3, 0.5), seconds=18)
    assert [signal.phase for signal in found] == [
        Phase.BEGIN,
        Phase.END,
        Phase.BEGIN,
        Phase.END,
    ]
    assert [signal.reason for signal in phases(found, Phase.END)] == ["turned", "lost"]


def test_another_name_takes_the_way_over():
    actor = Actor(1, walk((0, 0.9, 0.5), (8, 0.5, 0.5)), label="vehicle", becomes=(1.5, 9))
    found = play(wrong_way, scene([actor], 8), RULE, PLACES)
    (begin,) = phases(found, Phase.BEGIN)
    assert begin.t_us == pytest.approx(2e6, abs=2e4)


def test_a_trembling_box_goes_nowhere():
    shaking = Actor(1, lambda t: (0.5 + 0.02 * (-1) ** int(t * 5), 0.5), label="vehicle", end_s=60)
    assert play(wrong_way, scene([shaking], 60), RULE, PLACES) == []
