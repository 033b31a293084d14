"""Line crossing: direction, touch, frame rate, real detections on both sides."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.core.model import Line, Phase, Point, View
from agent.vision.analytics import Places, line_cross
from tests.vision.tracks import play, track, views

PLACES = Places(zones={}, lines={"kerb": Line("kerb", Point(0.5, 0.2), Point(0.5, 0.9))})
RULE = line_cross.Config(name="over", line="kerb")
FPS = [2.0, 5.0, 10.0, 15.0, 30.0]


def straight(start: tuple[float, float], end: tuple[float, float], seconds: float):
    return lambda t: (
        start[0] + (end[0] - start[0]) * t / seconds,
        start[1] + (end[1] - start[1]) * t / seconds,
    )


def crossings(made, rule=RULE, places=PLACES):
    said = play(line_cross, made, rule, places)
    begins = [signal for signal in said if signal.phase is Phase.BEGIN]
    ends = [signal for signal in said if signal.phase is Phase.END]
    assert [(one.key, one.t_us) for one in begins] == [(one.key, one.t_us) for one in ends]
    return ends


def test_a_line_drawn_downwards_has_side_a_on_the_right_of_the_picture():
    to_left = views(straight((0.8, 0.5), (0.2, 0.5), 4), 4, 10)
    (signal,) = crossings(to_left)
    assert signal.reason == "a_to_b"
    assert signal.measured["direction"] == 1.0
    assert signal.measured["x"] == pytest.approx(0.5)
    assert signal.t_us == pytest.approx(2_000_000, abs=10)
    assert signal.track_ids == (1,)
    (back,) = crossings(views(straight((0.2, 0.5), (0.8, 0.5), 4), 4, 10))
    assert back.reason == "b_to_a"
    assert back.measured["direction"] == -1.0


def test_turning_the_line_turns_the_direction():
    turned = Places({}, {"kerb": Line("kerb", Point(0.5, 0.9), Point(0.5, 0.2))})
    (signal,) = crossings(views(straight((0.8, 0.5), (0.2, 0.5), 4), 4, 10), places=turned)
    assert signal.reason == "b_to_a"


@pytest.mark.parametrize(("direction", "count"), [("both", 1), ("a_to_b", 1), ("b_to_a", 0)])
def test_only_the_wanted_direction_counts(direction, count):
    rule = line_cross.Config(name="over", line="kerb", direction=direction)
    made = views(straight((0.8, 0.5), (0.2, 0.5), 4), 4, 10)
    assert len(crossings(made, rule)) == count


@given(
    start=st.tuples(st.floats(0.55, 0.95), st.floats(0.3, 0.8)),
    end=st.tuples(st.floats(0.05, 0.45), st.floats(0.3, 0.8)),
    seconds=st.floats(1.0, 8.0),
)
@settings(max_examples=30, deadline=None)
def test_the_crossing_does_not_depend_on_the_frame_rate(start, end, seconds):
    path = straight(start, end, seconds)
    found = []
    for fps in FPS:
        whole = math.floor(seconds * fps) / fps
        assume(path(whole)[0] < 0.48)
        ends = crossings(views(path, seconds, fps))
        assert len(ends) == 1
        found.append(ends[0])
    for signal in found:
        assert signal.reason == "a_to_b"
        assert abs(signal.t_us - found[0].t_us) <= 3
        assert signal.measured["y"] == pytest.approx(found[0].measured["y"], abs=2e-6)


@given(
    start=st.tuples(st.floats(0.02, 0.98), st.floats(0.02, 0.98)),
    end=st.tuples(st.floats(0.02, 0.98), st.floats(0.02, 0.98)),
    fps=st.sampled_from(FPS),
)
@settings(max_examples=100, deadline=None)
def test_the_way_back_gives_the_other_direction(start, end, fps):
    there = crossings(views(straight(start, end, 4), 4, fps))
    back = crossings(views(straight(end, start, 4), 4, fps))
    assert len(there) == len(back)
    turned = {"a_to_b": "b_to_a", "b_to_a": "a_to_b"}
    assert [signal.reason for signal in back] == [turned[signal.reason] for signal in there]


@given(
    depth=st.floats(0.0, 0.009),
    y=st.floats(0.3, 0.8),
    fps=st.sampled_from(FPS),
)
@settings(max_examples=60, deadline=None)
def test_who_only_touches_does_not_cross(depth, y, fps):
    def touch(t: float) -> tuple[float, float]:
        return 0.5 - depth + abs(t - 2) * 0.15, y

    assert crossings(views(touch, 4, fps)) == []


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_a_trembling_walk_crosses_once(seed):
    import random

    dice = random.Random(seed)
    shake = [dice.uniform(-0.008, 0.008) for _ in range(200)]

    def path(t: float) -> tuple[float, float]:
        return 0.8 - 0.1 * t + shake[int(t * 20) % 200], 0.5

    assert len(crossings(views(path, 6, 10))) == 1


def test_going_there_and_back_counts_twice():
    def path(t: float) -> tuple[float, float]:
        return 0.3 + 0.4 * abs(math.cos(t * math.pi / 8)), 0.5

    assert [signal.reason for signal in crossings(views(path, 8, 10))] == ["a_to_b", "b_to_a"]


def test_going_round_the_end_of_the_line_is_no_crossing():
    def path(t: float) -> tuple[float, float]:
        angle = math.pi * t / 4
        return 0.5 + 0.3 * math.cos(angle), 0.2 + 0.05 - 0.2 * math.sin(angle)

    assert path(0)[0] > 0.7
    assert path(4)[0] < 0.3
    assert crossings(views(path, 4, 10)) == []


def test_after_going_round_the_next_crossing_has_the_right_direction():
    points = [(0, 0.7, 0.5), (1, 0.7, 0.1), (2, 0.3, 0.1), (3, 0.3, 0.5), (4, 0.7, 0.5)]
    made = [
        View(
            t * 500_000,
            0,
            (track([(s * 500_000, x, y) for s, x, y in points[: t + 1]]),),
        )
        for t in range(5)
    ]
    assert [signal.reason for signal in crossings(made)] == ["b_to_a"]


def test_a_predicted_point_on_the_other_side_is_no_evidence():
    points = [(0, 0.6, 0.5), (400_000, 0.54, 0.5), (800_000, 0.46, 0.5), (1_200_000, 0.4, 0.5)]
    unseen = (800_000, 1_200_000)
    made = [
        View(points[count][0], 0, (track(points[: count + 1], unseen=unseen),))
        for count in range(4)
    ]
    assert crossings(made) == []
    seen_again = [*points, (1_600_000, 0.36, 0.5)]
    made.append(View(1_600_000, 0, (track(seen_again, unseen=unseen),)))
    (signal,) = crossings(made)
    assert signal.t_us == pytest.approx(400_000 + 1_200_000 * 0.04 / 0.18, abs=2)


def test_too_long_unseen_is_not_believed():
    points = [(0, 0.6, 0.5), (5_000_000, 0.4, 0.5)]
    made = [View(points[n][0], 0, (track(points[: n + 1]),)) for n in range(2)]
    assert crossings(made) == []


def test_a_break_of_the_stream_is_not_bridged():
    points = [(0, 0.6, 0.5), (3_000_000, 0.4, 0.5)]
    made = [View(0, 0, (track(points[:1]),)), View(3_000_000, 4_500_000, (track(points[1:]),))]
    assert crossings(made) == []


def test_points_from_before_the_track_was_confirmed_count():
    points = [(0, 0.6, 0.5), (400_000, 0.4, 0.5)]
    (signal,) = crossings([View(400_000, 0, (track(points),))])
    assert signal.reason == "a_to_b"
    assert signal.t_us == 200_000


def test_other_labels_are_passed_over():
    rule = line_cross.Config(name="over", line="kerb", labels=("vehicle",))
    path = straight((0.8, 0.5), (0.2, 0.5), 4)
    assert crossings(views(path, 4, 10), rule) == []
    assert len(crossings(views(path, 4, 10, label="vehicle"), rule)) == 1


def test_the_same_input_gives_the_same_bytes():
    made = views(straight((0.83, 0.31), (0.17, 0.77), 3.3), 3.3, 7.5)
    assert repr(play(line_cross, made, RULE, PLACES)) == repr(play(line_cross, made, RULE, PLACES))


def test_state_forgets_who_is_gone():
    state = line_cross.initial()
    for number in range(50):
        view = View(number * 100_000, 0, (track([(number * 100_000, 0.6, 0.5)], track_id=number),))
        state, _ = line_cross.step(view, state, RULE, PLACES)
        assert len(state.walks) <= 42  # a lost one is remembered for the four seconds of a path
    state, _ = line_cross.step(View(10_000_000, 0, ()), state, RULE, PLACES)
    assert state.walks == ()
