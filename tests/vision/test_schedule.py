"""Schedules: local time, midnight, both changes of the clock, single days, dawn and dusk."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.core.errors import ConfigError
from agent.vision.schedule import ScheduleConfig, is_armed

VIENNA = {"timezone": "Europe/Vienna", "latitude_deg": 48.2, "longitude_deg": 16.4}


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e9)


def armed(schedule: ScheduleConfig, *texts: str) -> list[bool]:
    return [is_armed(schedule, at(text)) for text in texts]


def test_a_night_goes_over_midnight_and_belongs_to_the_day_it_began():
    nights = ScheduleConfig(**VIENNA, weekly=("mon-fri 20:00-06:00",))
    assert armed(
        nights,
        "2026-11-23T19:59+01:00",  # a Monday
        "2026-11-23T20:00+01:00",
        "2026-11-24T05:59+01:00",
        "2026-11-24T06:00+01:00",
        "2026-11-28T05:00+01:00",  # Saturday morning is Friday's night
        "2026-11-28T21:00+01:00",
        "2026-11-23T05:00+01:00",  # Monday morning is Sunday's
    ) == [False, True, True, False, True, False, False]


def test_a_whole_day_and_days_over_the_weekend():
    whole = ScheduleConfig(**VIENNA, weekly=("sat-mon 00:00-24:00",))
    assert armed(whole, "2026-11-23T23:59+01:00", "2026-11-24T00:00+01:00") == [True, False]
    assert armed(whole, "2026-11-21T00:00+01:00", "2026-11-20T23:59+01:00") == [True, False]


def test_a_single_date():
    once = ScheduleConfig(**VIENNA, dates=("2026-12-31 18:00-02:00",))
    assert armed(once, "2026-12-31T17:59+01:00", "2027-01-01T01:59+01:00") == [False, True]
    assert armed(once, "2027-01-01T02:00+01:00", "2025-12-31T19:00+01:00") == [False, False]


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)],
)
def test_a_day_on_which_the_clocks_change_has_its_own_length(day, hours):
    whole = ScheduleConfig(**VIENNA, dates=(f"{day} 00:00-24:00",))
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=UTC) - timedelta(hours=12)
    quarters = [
        is_armed(whole, round((start + timedelta(minutes=15 * n)).timestamp() * 1e9))
        for n in range(48 * 4)
    ]
    assert sum(quarters) / 4 == hours


def test_the_hour_that_is_left_out_and_the_one_that_comes_twice():
    early = ScheduleConfig(**VIENNA, weekly=("sun 02:30-03:30",))
    # In March 02:30 does not exist: one hour of clock time is missing, not a day's arming.
    assert armed(early, "2026-03-29T01:29+00:00", "2026-03-29T01:31+00:00") == [False, False]
    spring = ScheduleConfig(**VIENNA, weekly=("sun 01:30-04:00",))
    assert armed(spring, "2026-03-29T00:30+00:00", "2026-03-29T01:59+00:00") == [True, True]
    assert armed(spring, "2026-03-29T02:00+00:00") == [False]
    # In October it comes twice: armed from the first to the end.
    assert armed(
        early, "2026-10-25T00:29+00:00", "2026-10-25T00:30+00:00", "2026-10-25T01:45+00:00"
    ) == [False, True, True]
    assert armed(early, "2026-10-25T02:29+00:00", "2026-10-25T02:30+00:00") == [True, False]


def test_dusk_till_dawn_follows_the_sun():
    nights = ScheduleConfig(**VIENNA, weekly=("mon-sun dusk-dawn",))
    # Civil twilight in Vienna, by the almanac: 21 June 04:12-21:40, 21 December 07:06-16:38 local.
    assert armed(nights, "2026-06-21T04:08+02:00", "2026-06-21T04:16+02:00") == [True, False]
    assert armed(nights, "2026-06-21T21:36+02:00", "2026-06-21T21:44+02:00") == [False, True]
    assert armed(nights, "2026-12-21T07:02+01:00", "2026-12-21T07:10+01:00") == [True, False]
    assert armed(nights, "2026-12-21T16:34+01:00", "2026-12-21T16:42+01:00") == [False, True]


def test_where_the_sun_does_not_set_nothing_breaks():
    arctic = ScheduleConfig(
        timezone="Arctic/Longyearbyen",
        weekly=("mon-sun dusk-dawn",),
        latitude_deg=78.2,
        longitude_deg=15.6,
    )
    assert not any(armed(arctic, *(f"2026-06-21T{hour:02}:00+02:00" for hour in range(2, 24))))
    assert all(armed(arctic, *(f"2026-12-21T{hour:02}:00+01:00" for hour in range(24))))


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"timezone": "Mars/Olympus", "weekly": ("mon 00:00-24:00",)}, "'Mars/Olympus'"),
        ({"timezone": "../etc/passwd", "weekly": ("mon 00:00-24:00",)}, "timezone"),
        ({"timezone": "UTC"}, "no times"),
        ({"timezone": "UTC", "weekly": ("mo 00:00-24:00",)}, "'mo 00:00-24:00'"),
        ({"timezone": "UTC", "weekly": ("mon 00:00-24:01",)}, "'24:01'"),
        ({"timezone": "UTC", "weekly": ("mon 10:60-12:00",)}, "'10:60'"),
        ({"timezone": "UTC", "weekly": ("xyz-fri 10:00-12:00",)}, "xyz-fri"),
        ({"timezone": "UTC", "dates": ("2026-02-30 10:00-12:00",)}, "2026-02-30"),
        ({"timezone": "UTC", "weekly": ("mon dusk-dawn",)}, "latitude_deg"),
    ],
)
def test_what_cannot_be_is_named(extra, told):
    with pytest.raises(ConfigError) as caught:
        ScheduleConfig(**extra)
    assert told in str(caught.value)
