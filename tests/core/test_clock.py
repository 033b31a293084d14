"""Real and simulated time, ids, and the guard of slow steps."""

import logging
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import NS_PER_MS, NS_PER_S, Clock, RealClock, SimClock, watch

MADE_CLOCKS = [RealClock, SimClock]


@pytest.mark.parametrize("make", MADE_CLOCKS)
def test_ids_are_16_bytes_of_hex_and_never_the_same(make: type[Clock]) -> None:
    clock = make()
    ids = [clock.new_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert all(len(each) == 32 and bytes.fromhex(each).hex() == each for each in ids)


def test_ids_sort_by_the_time_they_were_made() -> None:
    clock = SimClock()
    ids = []
    for _ in range(200):
        ids.append(clock.new_id())
        clock.advance(0.001)
    assert ids == sorted(ids)
    assert int(ids[0][:12], 16) == 1_700_000_000_000


@given(utc_s=st.integers(-(10**9), 10**13))
@settings(max_examples=60)
def test_no_wall_time_breaks_an_id(utc_s: int) -> None:
    assert len(SimClock(utc_s * NS_PER_S).new_id()) == 32


def test_simulated_waits_take_no_time() -> None:
    clock = SimClock()
    event = threading.Event()
    begun = time.monotonic()
    assert not clock.wait(event, 48 * 3600)
    assert time.monotonic() - begun < 1
    assert clock.mono_ns() == 48 * 3600 * NS_PER_S
    assert clock.utc_ns() == (1_700_000_000 + 48 * 3600) * NS_PER_S
    event.set()
    assert clock.wait(event, 10)
    assert clock.mono_ns() == 48 * 3600 * NS_PER_S, "a set event is not waited for"


@given(steps=st.lists(st.floats(-(10**8), 10**8), max_size=20))
@settings(max_examples=60)
def test_the_monotonic_clock_does_not_follow_the_wall(steps: list[float]) -> None:
    clock = SimClock()
    for step_s in steps:
        before_ns = clock.mono_ns()
        clock.step_wall(step_s)
        assert clock.mono_ns() == before_ns
    clock.advance(1.5)
    assert clock.mono_ns() == 1_500 * NS_PER_MS


def test_the_same_seed_gives_the_same_ids() -> None:
    assert SimClock(seed=3).new_id() == SimClock(seed=3).new_id()
    assert SimClock(seed=3).new_id() != SimClock(seed=4).new_id()


def test_real_time_passes_and_an_event_ends_a_wait() -> None:
    clock = RealClock()
    event = threading.Event()
    begun_ns, begun_utc_ns = clock.mono_ns(), clock.utc_ns()
    assert not clock.wait(event, 0.02)
    assert not clock.wait(event, -1), "a deadline that has passed is no mistake"
    assert clock.mono_ns() - begun_ns >= 20 * NS_PER_MS
    assert clock.utc_ns() > begun_utc_ns
    threading.Timer(0.02, event.set).start()
    assert clock.wait(event, 5)
    assert clock.mono_ns() - begun_ns < 3 * NS_PER_S


def test_watch_names_a_slow_step_and_only_that(caplog: pytest.LogCaptureFixture) -> None:
    clock = SimClock()
    with watch(clock, "sqlite commit", limit_s=1.0):
        clock.advance(0.9)
    assert not caplog.records
    with watch(clock, "sqlite commit", limit_s=1.0):
        clock.advance(2.5)
    assert [line.getMessage() for line in caplog.records] == [
        'slow step step="sqlite commit" took_s=2.5 limit_s=1.0'
    ]
    assert caplog.records[0].levelno == logging.WARNING
