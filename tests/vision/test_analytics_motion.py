"""Motion: what moves where, for how long, without any detector."""

from agent.core.model import Box, Phase, Picture, Point, View, Zone
from agent.vision.analytics import Places, motion
from tests.vision.tracks import phases

PLACES = Places(
    zones={
        "yard": Zone("yard", (Point(0.5, 0.0), Point(1.0, 0.0), Point(1.0, 1.0), Point(0.5, 1.0)))
    },
    lines={},
)
LEFT, RIGHT = Box(0.1, 0.4, 0.1, 0.2), Box(0.7, 0.4, 0.1, 0.2)


def play(boxes_at, rule, seconds=30):
    state, said = motion.initial(), []
    for n in range(seconds * 5):
        picture = Picture(90.0, 40.0, 1.0, 1.0, moving=boxes_at(n / 5))
        state, signals = motion.step(View(n * 200_000, 0, (), picture=picture), state, rule, PLACES)
        said += signals
    return said


def test_it_begins_after_a_second_and_ends_when_it_came_to_rest():
    said = play(lambda t: (RIGHT,) if 5 <= t < 12 else (), motion.Config(name="m", zone="yard"))
    (begin,), (end,) = phases(said, Phase.BEGIN), phases(said, Phase.END)
    assert (begin.t_us, end.t_us, end.reason) == (6_000_000, 12_000_000, "rest")
    assert begin.measured["area_frac"] == 0.02


def test_outside_of_the_zone_anything_may_move():
    rule = motion.Config(name="m", zone="yard")
    assert play(lambda _t: (LEFT,), rule) == []
    assert len(play(lambda _t: (LEFT,), motion.Config(name="m"))) == 1


def test_a_flicker_is_no_motion_and_a_pause_does_not_end_it():
    assert play(lambda t: (RIGHT,) if t % 10 < 0.5 else (), motion.Config(name="m")) == []
    said = play(lambda t: (RIGHT,) if t % 4 < 3 else (), motion.Config(name="m"))
    assert [signal.phase for signal in said] == [Phase.BEGIN]


def test_small_things_are_left_out():
    tiny = Box(0.7, 0.4, 0.02, 0.02)
    assert play(lambda _t: (tiny,), motion.Config(name="m")) == []
