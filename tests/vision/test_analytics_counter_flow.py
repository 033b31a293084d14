"""Against the stream: learned from those who crossed, silent while there is none."""

from agent.core.model import Phase, Point, Zone
from agent.vision.analytics import Places, counter_flow
from tests.vision.tracks import Actor, phases, play, scene, walk

PLACES = Places(
    zones={
        "exit": Zone("exit", (Point(0.2, 0.2), Point(0.8, 0.2), Point(0.8, 0.8), Point(0.2, 0.8)))
    },
    lines={},
)
RULE = counter_flow.Config(name="exit", zone="exit", min_objects=5, min_distance_frac=0.1)


def stream(count, *, is_mixed=False):
    return [
        Actor(
            number,
            walk((number, 0.1, 0.5), (number + 4, 0.9, 0.5))
            if not (is_mixed and number % 2)
            else walk((number, 0.9, 0.4), (number + 4, 0.1, 0.4)),
            begin_s=number,
            end_s=number + 4,
        )
        for number in range(1, count + 1)
    ]


def against(begin_s):
    path = walk((begin_s, 0.9, 0.6), (begin_s + 6, 0.1, 0.6))
    return Actor(99, path, begin_s=begin_s, end_s=begin_s + 6)


def test_one_against_the_stream_is_told_once_it_is_known():
    found = play(counter_flow, scene([*stream(8), against(14)], 30), RULE, PLACES)
    (begin,) = phases(found, Phase.BEGIN)
    assert begin.track_ids == (99,)


def test_before_there_is_a_stream_nobody_is_against_it():
    assert play(counter_flow, scene([*stream(3), against(10)], 30), RULE, PLACES) == []


def test_where_people_go_both_ways_there_is_no_stream():
    made = scene([*stream(12, is_mixed=True), against(20)], 40)
    assert play(counter_flow, made, RULE, PLACES) == []


def test_the_stream_is_forgotten():
    rule = counter_flow.Config(
        name="exit", zone="exit", min_objects=5, min_distance_frac=0.1, learn_s=20
    )
    assert play(counter_flow, scene([*stream(8), against(45)], 60), rule, PLACES) == []


def test_who_was_told_teaches_nothing():
    state = counter_flow.initial()
    for view in scene([*stream(8), against(14)], 40):
        state, _ = counter_flow.step(view, state, RULE, PLACES)
    assert len(state.passes) == 8
    assert all(item.direction.x > 0.9 for item in state.passes)
