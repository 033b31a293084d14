"""When a vehicle flew, as told by what was heard of it."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.clock import NS_PER_S
from agent.core.vehicle import Heard
from agent.flight.model import Flight, Kind, LinkLoss, Phase
from agent.flight.session import LOST_S, Change, Sessions, State
from tests.flight.told import Moment, flown, heard, messages, ms, shifted


def follow(items: Sequence[Heard]) -> tuple[Sessions, list[Change]]:
    sessions = Sessions("vehicle-1")
    changes = [change for item in items for change in sessions.take(item)]
    return sessions, [*changes, *sessions.finish()]


def flights(items: Sequence[Heard]) -> list[Flight]:
    return [change.flight for change in follow(items)[1] if change.phase == Phase.DISARMED]


@pytest.mark.parametrize("landed", [False, True])
def test_a_flight_has_every_phase_once(landed: bool) -> None:
    _, changes = follow(list(messages(flown(), landed=landed)))
    assert [change.what for change in changes] == [
        "armed",
        "airborne",
        "landed",
        "disarmed",
        "ended",
    ]
    flight = changes[-1].flight
    assert flight.kind == Kind.FLIGHT
    assert flight.is_whole
    assert ms(flight.start_utc_ns) == pytest.approx(10_000, abs=250)
    assert ms(flight.end_utc_ns) == pytest.approx(66_000, abs=250)
    assert flight.takeoff_utc_ns is not None
    assert flight.landed_utc_ns is not None
    assert ms(flight.takeoff_utc_ns) == pytest.approx(13_500, abs=2000)
    assert ms(flight.landed_utc_ns) == pytest.approx(63_000, abs=2500)
    assert flight.max_height_m == pytest.approx(20, abs=0.1)
    assert flight.distance_m == pytest.approx(150, abs=3)
    assert (flight.start_s, flight.end_s) == (pytest.approx(5, abs=0.3), pytest.approx(61, abs=0.3))


def test_an_arm_cycle_that_never_left_the_ground_is_a_ground_run() -> None:
    moments = [Moment(at, 5 <= at < 30, 0.4 if at > 10 else 0.0) for at in range(60)]
    (flight,) = flights(list(messages(moments)))
    assert flight.kind == Kind.GROUND_RUN
    assert flight.takeoff_utc_ns is None
    assert flight.distance_m == 0


def test_a_quick_rearm_is_another_flight_of_the_same_session() -> None:
    first = flown(after_s=0)
    second = flown(first[-1].at_s + 10)
    third = flown(second[-1].at_s + 10)
    found = flights(list(messages([*first, *second, *third])))
    assert len(found) == 3
    assert found[0].session == found[1].session == found[0].id
    assert found[2].session == found[2].id  # 30 s later: another one


def test_a_height_above_home_at_arming_is_the_ground() -> None:
    moments = [replace(item, height_m=item.height_m + 40) for item in flown()]
    (flight,) = flights(list(messages(moments)))
    assert flight.kind == Kind.FLIGHT
    assert flight.max_height_m == pytest.approx(20, abs=0.1)


def test_a_link_that_is_lost_in_the_air_is_told_and_the_flight_goes_on() -> None:
    items = [item for item in messages(flown()) if not 25 < item.mono_ns / NS_PER_S < 40]
    _, changes = follow(items)
    assert [change.what for change in changes].count("link back") == 1
    flight = changes[-1].flight
    (loss,) = flight.losses
    assert (ms(loss.start_utc_ns), ms(loss.end_utc_ns)) == (
        pytest.approx(25_000, abs=300),
        pytest.approx(40_000, abs=300),
    )
    assert flight.kind == Kind.FLIGHT


def test_a_disarming_that_nobody_heard_ends_where_the_link_was_lost() -> None:
    items = [item for item in messages(flown()) if not 40 < item.mono_ns / NS_PER_S < 80]
    (flight,) = flights(items)
    assert not flight.is_whole
    assert ms(flight.end_utc_ns) == pytest.approx(40_000, abs=300)
    assert isinstance(flight.losses[0], LinkLoss)


def test_silence_ends_a_session_and_says_so() -> None:
    sessions = Sessions("vehicle-1")
    items = [item for item in messages(flown()) if item.mono_ns < 30 * NS_PER_S]
    for item in items:
        sessions.take(item)
    at_ns = items[-1].mono_ns
    assert [change.what for change in sessions.tick(at_ns + 6 * NS_PER_S)] == ["link lost"]
    assert sessions.tick(at_ns + 7 * NS_PER_S) == []
    ended = sessions.tick(at_ns + round((LOST_S + 1) * NS_PER_S))
    assert [change.what for change in ended] == ["disarmed", "ended"]
    assert not ended[-1].flight.is_whole
    assert ms(ended[-1].flight.end_utc_ns) == pytest.approx(30_000, abs=300)


def test_our_clock_that_jumps_is_no_loss() -> None:
    items = shifted(list(messages(flown())), 30, 3600)
    (flight,) = flights(items)
    assert flight.losses == ()
    assert flight.kind == Kind.FLIGHT


def test_a_reboot_in_the_air_is_counted_and_joined() -> None:
    before = [item for item in flown() if item.at_s < 30]
    after = [item for item in flown() if item.at_s >= 31]
    items = [*messages(before), *messages(after, boot_s=30.5)]
    (flight,) = flights(items)
    assert flight.reboots == 1
    assert flight.is_whole


def test_heard_first_in_the_air_is_a_flight_that_is_not_whole() -> None:
    (flight,) = flights(list(messages([item for item in flown() if item.at_s > 30])))
    assert flight.kind == Kind.FLIGHT
    assert not flight.is_whole
    assert flight.max_height_m == pytest.approx(20, abs=0.1)


def test_a_restart_of_the_agent_goes_on_in_the_air() -> None:
    items = list(messages(flown()))
    sessions = Sessions("vehicle-1")
    changes: list[Change] = []
    for number, item in enumerate(items):
        if number % 50 == 0:
            stored = json.loads(json.dumps(sessions.state.stored()))
            sessions = Sessions("vehicle-1", State.restored(stored))
        changes += sessions.take(item)
    changes += sessions.finish()
    assert changes[-1].flight == follow(items)[1][-1].flight
    assert [change.what for change in changes] == [change.what for change in follow(items)[1]]


def test_a_jump_of_the_position_adds_no_distance() -> None:
    moments = [
        replace(item, north_m=item.north_m + (50_000 if index == 120 else 0))
        for index, item in enumerate(flown())
    ]
    (flight,) = flights(list(messages(moments)))
    assert flight.distance_m == pytest.approx(150, abs=5)


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(0, 2**32 - 1))
def test_whatever_is_lost_or_wrong_phases_keep_their_order(lost: list[int], boot_ms: int) -> None:
    items = [item for number, item in enumerate(messages(flown())) if number not in set(lost)]
    odd = heard(33.0, "SYSTEM_TIME", time_unix_usec=0, time_boot_ms=boot_ms)
    items.insert(len(items) // 2, odd)
    _, changes = follow(items)
    whats = [change.what for change in changes if change.what in ("armed", "disarmed", "ended")]
    assert whats == ["armed", "disarmed", "ended"] * (len(whats) // 3)
    for change in changes:
        assert change.flight.end_s >= change.flight.start_s
