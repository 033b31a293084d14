"""Evidence time: burst, jitter, drift, jumps, steps of the wall clock."""

import random

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


@pytest.mark.parametrize("ppm", [100, -100])
def test_drift_of_100_ppm_stays_within_50_ms_over_a_day(ppm: int) -> None:
    timeline = Timeline()
    step_ns = NS_PER_S  # a picture a second is enough to follow
    worst_ns = 0
    for place in range(86_400):
        arrival_ns = place * step_ns
        media_ns = arrival_ns + arrival_ns * ppm // 1_000_000
        stamp = feed(timeline, media_ns, arrival_ns)
        assert not stamp.is_break
        worst_ns = max(worst_ns, abs(stamp.utc_ns - UTC_NS - arrival_ns))
    assert worst_ns < 50 * NS_PER_MS


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


def test_small_step_of_the_wall_clock_is_not_followed() -> None:
    timeline = settled()
    stamp = feed(timeline, 100 * FRAME_NS, 100 * FRAME_NS, 400 * NS_PER_MS)
    assert (stamp.is_break, stamp.utc_ns) == (False, UTC_NS + 100 * FRAME_NS)


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
