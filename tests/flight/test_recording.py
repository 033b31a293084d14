"""The flights of a recording."""

import math
from types import SimpleNamespace

import pytest

from agent.core.clock import NS_PER_S
from agent.core.vehicle import Heard
from agent.flight import place
from agent.flight.model import Kind
from agent.flight.recording import flights, tracks
from agent.flight.track import euler, text
from tests.flight.told import START_UTC_NS, flown, heard, messages


def test_each_flight_comes_with_its_own_track() -> None:
    first = flown()
    items = list(messages([*first, *flown(first[-1].at_s + 40)]))
    (one, one_track), (two, two_track) = tracks(items)
    assert one.kind == two.kind == Kind.FLIGHT
    for flight, track in ((one, one_track), (two, two_track)):
        assert track.fixes[0].utc_ns == pytest.approx(flight.start_utc_ns, abs=NS_PER_S)
        assert track.fixes[-1].utc_ns <= flight.end_utc_ns + 6 * NS_PER_S
        assert max(fix.height_m for fix in track.fixes) == pytest.approx(20, abs=0.1)
        assert track.time.source == "gps"
    assert [flight.id for flight in flights(items)] == [one.id, two.id]


def test_a_ground_station_and_a_stranger_are_no_vehicles() -> None:
    station = Heard(
        "", "HEARTBEAT", 255, 190, SimpleNamespace(type=6, autopilot=8, base_mode=128), 0, 0
    )
    stray = heard(1.0, "GLOBAL_POSITION_INT", time_boot_ms=0)
    assert flights([stray, station]) == []


def test_times_are_the_vehicles_where_the_logger_is_off() -> None:
    late = 7 * NS_PER_S
    items = [
        Heard(item.link, item.name, 1, 1, item.said, item.utc_ns + late, item.mono_ns)
        for item in messages(flown())
    ]
    ((flight, track),) = tracks(items)
    assert track.time.offset_s == pytest.approx(-7, abs=0.01)
    assert flight.start_utc_ns - START_UTC_NS == pytest.approx(10 * NS_PER_S, abs=NS_PER_S // 2)


def test_no_place_is_no_fix() -> None:
    assert place.spot(0, 0) is None
    assert place.spot(2_000_000_000, 0) is None
    assert place.spot(498_000_000, 731_000_000) == pytest.approx((49.8, 73.1))
    assert place.distance_m(0, 0, 0, 1) == pytest.approx(111_195, abs=1)


def test_a_quaternion_becomes_angles_and_nonsense_none() -> None:
    half = math.radians(-45) / 2
    assert euler(math.cos(half), 0, math.sin(half), 0) == pytest.approx((0, math.radians(-45), 0))
    assert euler(math.nan, 0, 0, 0) is None
    assert euler(0, 0, 0, 0) is None


def test_a_text_ends_at_its_zero() -> None:
    assert text(b"Low Battery!\0\0rubbish") == "Low Battery!"
    assert text("EKF \xff") == "EKF ÿ"
    assert text(b"\xff\xfe") == "\ufffd\ufffd"
