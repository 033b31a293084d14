"""Evidence time: burst, jitter, drift, jumps, steps of the wall clock."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import NS_PER_MS, NS_PER_S
from agent.vision.timeline import Timeline

UTC_NS = 1_790_000_000 * NS_PER_S
FRAME_NS = 100 * NS_PER_MS


def feed(timeline: Timeline, media_ns: int, arrival_ns: int, wall_ns: int = 0):
    return timeline.stamp(media_ns, arrival_ns, UTC_NS + arrival_ns + wall_ns)


def settled(seconds: int = 10) -> Timeline:
    """A timeline that has seen a steady stream, its media time equal to its arrival."""
    timeline = Timeline()
    for place in range(seconds * 10):
        assert not feed(timeline, place * FRAME_NS, place * FRAME_NS).is_break
    return timeline


def test_steady_stream_is_stamped_with_its_arrival() -> None:
    timeline = Timeline()
    for place in range(100):
        stamp = feed(timeline, place * FRAME_NS, place * FRAME_NS)
        assert (stamp.utc_ns, stamp.is_break) == (UTC_NS + place * FRAME_NS, False)


def test_burst_at_the_start_settles_on_live_time() -> None:
    """A cached group of 2 s comes at once; from the first live picture on times are right."""
    timeline = Timeline()
    before = 0
    for place in range(60):
        arrival_ns = max(20 * FRAME_NS, place * FRAME_NS)
        stamp = feed(timeline, place * FRAME_NS, arrival_ns + place)
        assert not stamp.is_break
        assert stamp.utc_ns > before
        before = stamp.utc_ns
        if place >= 21:
            assert abs(stamp.utc_ns - UTC_NS - arrival_ns) < NS_PER_MS


def test_jitter_is_smoothed_away() -> None:
    dice = random.Random(3)
    timeline = settled()
    for place in range(100, 1000):
        late_ns = dice.randrange(0, 300) * NS_PER_MS
        stamp = feed(timeline, place * FRAME_NS, place * FRAME_NS + late_ns)
        assert not stamp.is_break
        assert abs(stamp.utc_ns - UTC_NS - place * FRAME_NS) < 10 * NS_PER_MS


def test_delay_and_catching_up_is_no_break() -> None:
    timeline = settled()
    for place in range(100, 130):  # three seconds of pictures at once
        stamp = feed(timeline, place * FRAME_NS, 130 * FRAME_NS)
        assert not stamp.is_break
        assert abs(stamp.utc_ns - UTC_NS - place * FRAME_NS) < 5 * NS_PER_MS


class Camera:
    """What a camera sends over a day: its clock is off, its network is not even.

    Truth is the instant at which a picture was taken plus the least delay that its way takes: more
    than that nobody can know from arrivals.
    """

    LEAST_NS = 20 * NS_PER_MS

    def __init__(self, ppm: int, seed: int, fps: int = 5) -> None:
        self.ppm, self.fps = ppm, fps
        self.dice = random.Random(seed)

    def packets(self, seconds: int) -> Iterator[tuple[int, int, int]]:
        """Give (media, arrival, truth) of each picture, in ns from the start."""
        arrived_ns, jam_until_ns = 0, 0
        for number in range(seconds * self.fps):
            taken_ns = number * NS_PER_S // self.fps
            media_ns = taken_ns + taken_ns * self.ppm // 1_000_000
            late_ns = int(self.dice.expovariate(1 / (15 * NS_PER_MS)))
            if number > 30 * self.fps and self.dice.random() < 1 / (600 * self.fps):
                jam_until_ns = taken_ns + self.dice.randrange(3 * NS_PER_S)  # every ten minutes
            came_ns = max(taken_ns + self.LEAST_NS + late_ns, jam_until_ns, arrived_ns + 1)
            arrived_ns = came_ns
            yield media_ns, came_ns, taken_ns + self.LEAST_NS


@pytest.mark.parametrize("ppm", [200, -200])
def test_drift_and_jitter_stay_within_50_ms_of_truth_over_a_day(ppm: int) -> None:
    timeline = Timeline()
    worst_ns = 0
    for media_ns, arrival_ns, truth_ns in Camera(ppm, 7).packets(86_400):
        stamp = feed(timeline, media_ns, arrival_ns)
        assert not stamp.is_break
        worst_ns = max(worst_ns, abs(stamp.utc_ns - UTC_NS - truth_ns))
    assert worst_ns < 50 * NS_PER_MS


def test_slew_of_the_wall_clock_is_kept_up_with() -> None:
    """NTP turns the clock by half a second in twenty minutes, while the camera drifts too."""
    timeline = Timeline()
    worst_ns = 0
    for media_ns, arrival_ns, truth_ns in Camera(-150, 8).packets(3600):
        turned_ns = min(max(0, arrival_ns - 600 * NS_PER_S), 1200 * NS_PER_S) * 400 // 1_000_000
        stamp = feed(timeline, media_ns, arrival_ns, turned_ns)
        assert not stamp.is_break
        worst_ns = max(worst_ns, abs(stamp.utc_ns - UTC_NS - turned_ns - truth_ns))
    assert worst_ns < 50 * NS_PER_MS


def test_jam_of_the_first_seconds_is_made_up_for_soon() -> None:
    """Whole seconds of a run come late: from the first live picture on times approach the truth."""
    timeline = settled(0)
    for place in range(400):
        taken_ns = place * FRAME_NS
        late_ns = 900 * NS_PER_MS if place < 80 else 0
        stamp = feed(timeline, taken_ns, taken_ns + late_ns)
        assert not stamp.is_break
        if place > 80 + 100:
            assert abs(stamp.utc_ns - UTC_NS - taken_ns) < 50 * NS_PER_MS


@pytest.mark.parametrize("jump_s", [100, 2, -0.5, -5, -1000])
def test_jump_of_the_source_is_a_break_with_right_time(jump_s: float) -> None:
    timeline = settled()
    jump_ns = int(jump_s * NS_PER_S)
    stamp = feed(timeline, 100 * FRAME_NS + jump_ns, 100 * FRAME_NS)
    assert stamp.is_break
    assert stamp.utc_ns == UTC_NS + 100 * FRAME_NS
    after = feed(timeline, 101 * FRAME_NS + jump_ns, 101 * FRAME_NS)
    assert not after.is_break
    assert after.utc_ns == UTC_NS + 101 * FRAME_NS


def test_jump_forward_is_a_break_in_a_young_run_too() -> None:
    timeline = settled(1)
    assert feed(timeline, 10 * FRAME_NS + 100 * NS_PER_S, 10 * FRAME_NS).is_break


def test_equal_times_are_a_break() -> None:
    timeline = settled()
    assert feed(timeline, 99 * FRAME_NS, 100 * FRAME_NS).is_break


def test_silence_on_both_clocks_is_no_break() -> None:
    timeline = settled()
    stamp = feed(timeline, 400 * FRAME_NS, 400 * FRAME_NS)
    assert not stamp.is_break
    assert stamp.utc_ns == UTC_NS + 400 * FRAME_NS


@pytest.mark.parametrize("step_s", [3600, 1.5, -1.5, -86_400])
def test_step_of_the_wall_clock_is_a_break(step_s: float) -> None:
    timeline = settled()
    wall_ns = int(step_s * NS_PER_S)
    stamp = feed(timeline, 100 * FRAME_NS, 100 * FRAME_NS, wall_ns)
    assert stamp.is_break
    assert stamp.utc_ns == UTC_NS + 100 * FRAME_NS + wall_ns
    assert not feed(timeline, 101 * FRAME_NS, 101 * FRAME_NS, wall_ns).is_break


@pytest.mark.parametrize("step_ms", [400, -400])
def test_small_step_of_the_wall_clock_is_followed_without_a_jump(step_ms: int) -> None:
    timeline = settled()
    before = UTC_NS + 99 * FRAME_NS
    for place in range(100, 12_000):
        arrival_ns = place * FRAME_NS
        stamp = feed(timeline, arrival_ns, arrival_ns, step_ms * NS_PER_MS)
        assert not stamp.is_break
        assert abs(stamp.utc_ns - before - FRAME_NS) <= 50_000 + 1000  # 500 ppm
        before = stamp.utc_ns
    assert abs(before - UTC_NS - 11_999 * FRAME_NS - step_ms * NS_PER_MS) < NS_PER_MS


def test_source_that_paused_its_clock_is_right_again_after_a_minute() -> None:
    timeline = settled()
    breaks = 0
    stamp = None
    for place in range(100, 1000):
        stamp = feed(timeline, place * FRAME_NS, place * FRAME_NS + 10 * NS_PER_S)
        breaks += stamp.is_break
    assert breaks == 1
    assert stamp is not None
    assert stamp.utc_ns == UTC_NS + 999 * FRAME_NS + 10 * NS_PER_S


def test_run_that_began_in_a_jam_is_right_when_the_jam_is_over() -> None:
    timeline = Timeline()
    for place in range(80):
        feed(timeline, place * FRAME_NS, place * FRAME_NS + 3 * NS_PER_S)
    stamps = [
        feed(timeline, place * FRAME_NS, max(place * FRAME_NS, 11 * NS_PER_S))
        for place in range(80, 200)
    ]
    assert sum(stamp.is_break for stamp in stamps) <= 2
    assert abs(stamps[-1].utc_ns - UTC_NS - 199 * FRAME_NS) < 200 * NS_PER_MS


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-3000, 5000),  # media step, ms
            st.integers(0, 5000),  # arrival step, ms
            st.integers(-3000, 3000),  # step of the wall clock, ms
        ),
        max_size=80,
    )
)
def test_times_never_go_back_within_a_run(steps: list[tuple[int, int, int]]) -> None:
    timeline = Timeline()
    media_ms = arrival_ms = wall_ms = 0
    before = None
    for media_step, arrival_step, wall_step in steps:
        media_ms += media_step
        arrival_ms += arrival_step
        wall_ms += wall_step if wall_step % 7 == 0 else 0
        stamp = feed(timeline, media_ms * NS_PER_MS, arrival_ms * NS_PER_MS, wall_ms * NS_PER_MS)
        if before is not None and not stamp.is_break:
            assert stamp.utc_ns > before
        if stamp.is_break:
            assert stamp.utc_ns == UTC_NS + (arrival_ms + wall_ms) * NS_PER_MS
        before = stamp.utc_ns


def test_set_clock_waits_for_a_key_frame() -> None:
    timeline = settled()
    hour_ns = 3600 * NS_PER_S
    for place in range(100, 105):
        arrival_ns = place * FRAME_NS
        stamp = timeline.stamp(arrival_ns, arrival_ns, UTC_NS + arrival_ns + hour_ns, is_key=False)
        assert (stamp.utc_ns, stamp.is_break) == (UTC_NS + arrival_ns, False)
    stamp = feed(timeline, 105 * FRAME_NS, 105 * FRAME_NS, hour_ns)
    assert (stamp.utc_ns, stamp.is_break) == (UTC_NS + 105 * FRAME_NS + hour_ns, True)


def test_jump_of_the_source_waits_for_nothing() -> None:
    timeline = settled()
    stamp = timeline.stamp(0, 100 * FRAME_NS, UTC_NS + 100 * FRAME_NS, is_key=False)
    assert stamp.is_break
