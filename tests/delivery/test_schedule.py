"""Windows by the clock on the wall, caps, metered links, and a clock that nobody set."""

import itertools
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.clock import NS_PER_S
from agent.core.config import load
from agent.core.errors import ConfigError
from agent.delivery.schedule import ScheduleConfig, UplinkConfig, WindowConfig, allowed, local_day

NIGHT = WindowConfig("22:00-06:00", total_kbit_s=0, files_kbit_s=2000)
VIENNA = ScheduleConfig(
    timezone="Europe/Vienna", total_kbit_s=512, files_kbit_s=256, windows=(NIGHT,)
)


def at(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS_PER_S


def holds(config, text, metered_bytes=0):
    return allowed(config, at(text), metered_bytes)


def test_without_tables_of_time_zones_utc_is_known():
    """In a process of its own: whether there are tables is found out once."""
    script = """
import sys
sys.modules["tzdata"] = None
from agent.core.errors import ConfigError
from agent.delivery.schedule import ScheduleConfig, WindowConfig, allowed, local_day
night = (WindowConfig("22:00-06:00"),)
print(local_day(ScheduleConfig(), 0), allowed(ScheduleConfig("UTC", windows=night), 0, 0).window)
try:
    ScheduleConfig("Europe/Vienna", windows=night)
except ConfigError as error:
    print(error)
"""
    argv = [sys.executable, "-c", script]
    env = os.environ | {"PYTHONTZPATH": ""}
    said = subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout
    assert said.startswith("1970-01-01 22:00-06:00\n")
    assert "apt-get install tzdata" in said


def test_a_window_has_its_own_caps_and_says_until_when():
    day = holds(VIENNA, "2026-11-23 12:00")  # 13:00 at the site
    assert (day.total_bytes_per_s, day.files_bytes_per_s, day.window) == (64_000, 32_000, "")
    assert day.until_utc_ns == at("2026-11-23 21:00")
    night = holds(VIENNA, "2026-11-23 23:30")
    assert (night.total_bytes_per_s, night.files_bytes_per_s) == (0, 250_000)
    assert (night.window, night.until_utc_ns) == ("22:00-06:00", at("2026-11-24 05:00"))


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("2026-11-27 20:59:59", False),  # Friday
        ("2026-11-27 21:00", True),
        ("2026-11-28 04:59:59", True),  # begun on Friday, over midnight
        ("2026-11-28 05:00", False),
        ("2026-11-28 21:30", False),  # Saturday evening
        ("2026-11-29 21:30", True),  # Sunday evening
        ("2026-11-30 02:00", True),  # Monday morning
    ],
)
def test_days_of_the_week_are_those_of_the_beginning(text, is_open):
    config = ScheduleConfig("Europe/Vienna", windows=(WindowConfig("sun-fri 22:00-06:00"),))
    assert bool(holds(config, text).window) is is_open


def test_a_window_follows_the_clock_on_the_wall_through_the_change_to_winter_time():
    assert holds(VIENNA, "2026-10-24 20:00").window
    assert holds(VIENNA, "2026-10-24 20:00").until_utc_ns == at("2026-10-25 05:00")
    assert not holds(VIENNA, "2026-10-25 05:00").window
    assert not holds(VIENNA, "2026-10-25 20:30").window
    assert holds(VIENNA, "2026-10-25 21:00").window


def test_a_whole_day_that_never_changes_has_no_end():
    always = ScheduleConfig("UTC", windows=(WindowConfig("00:00-24:00", 100),))
    assert holds(always, "2026-11-23 12:00").until_utc_ns is None
    assert allowed(ScheduleConfig(), at("2026-11-23 12:00"), 0).until_utc_ns is None


def test_of_overlapping_windows_the_first_holds():
    config = ScheduleConfig(
        "UTC", windows=(WindowConfig("01:00-02:00", 100), WindowConfig("00:00-06:00", 50))
    )
    assert holds(config, "2026-11-23 00:30").until_utc_ns == at("2026-11-23 01:00")
    assert holds(config, "2026-11-23 01:30").window == "01:00-02:00"


def test_a_metered_link_sends_files_in_windows_and_up_to_a_daily_amount():
    config = ScheduleConfig("UTC", metered=True, files_mb_per_day=2, small_kb=100, windows=(NIGHT,))
    assert holds(config, "2026-11-23 12:00", 1_999_999).files_go
    spent = holds(config, "2026-11-23 12:00", 2_000_000)
    assert (spent.files_go, spent.small_bytes) == (False, 100_000)
    assert spent.until_utc_ns == at("2026-11-23 22:00")
    assert holds(config, "2026-11-23 23:00", 2_000_000).files_go
    daily = ScheduleConfig("Europe/Vienna", metered=True, files_mb_per_day=1)
    assert holds(daily, "2026-11-23 12:00", 1_000_000).until_utc_ns == at("2026-11-23 23:00")
    assert local_day(daily, at("2026-11-23 23:00")) == "2026-11-24"


def test_with_a_clock_that_was_never_right_the_lowest_caps_hold_and_no_window_is_open():
    unknown = allowed(VIENNA, None, 0)
    assert (unknown.total_bytes_per_s, unknown.files_bytes_per_s) == (64_000, 32_000)
    assert (unknown.window, unknown.until_utc_ns) == ("", None)
    slow_nights = ScheduleConfig("UTC", total_kbit_s=512, windows=(WindowConfig("22:00-06:00", 8),))
    assert allowed(slow_nights, None, 0).total_bytes_per_s == 1000
    metered = ScheduleConfig("UTC", metered=True, windows=(NIGHT,), small_kb=50)
    assert not allowed(metered, None, 0).files_go


@given(
    minute=st.integers(29_000_000, 31_000_000),
    begin=st.integers(0, 1439),
    end=st.integers(0, 1439),
    zone=st.sampled_from(["UTC", "Europe/Vienna", "America/New_York", "Asia/Kolkata"]),
)
def test_what_holds_holds_until_it_says(minute, begin, end, zone):
    if begin == end:
        return
    times = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    config = ScheduleConfig(zone, windows=(WindowConfig(times, 100),))
    now = allowed(config, minute * 60 * NS_PER_S, 0)
    assert now.until_utc_ns is not None
    last = allowed(config, now.until_utc_ns - 1, 0)
    then = allowed(config, now.until_utc_ns, 0)
    assert last.window == now.window != then.window


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timezone = 'Europe/Wien'", "timezone: 'Europe/Wien' is not known here"),
        ("windows = [{times = '22:00-06:00'}]", "timezone: missing; windows and"),
        ("windows = [{times = '22-06'}]", r"times: '22-06'; allowed: 22:00-06:00"),
        ("windows = [{times = 'xyz 22:00-06:00'}]", "days from mon, tue"),
        ("windows = [{times = '22:60-23:00'}]", "from 00:00 to 24:00"),
        ("windows = [{times = '24:00-06:00'}]", "from 00:00 to 24:00"),
        ("windows = [{times = '06:00-06:00'}]", "the end not the beginning"),
        ("total_kbit_s = 5", "total_kbit_s: 5; allowed: 0, which is none, or from 8"),
        ("total_kbit_s = -1", "total_kbit_s: -1 is out of range"),
        (
            "total_kbit_s = 100\nfiles_kbit_s = 200",
            "files_kbit_s: 200; allowed: up to total_kbit_s 100",
        ),
        ("metered = true", "metered: true, and no file would ever go"),
        ("small_kb = 50", "small_kb: 50; allowed: 0 unless metered = true"),
        ("files_mb_per_day = 5\ntimezone = 'UTC'", "files_mb_per_day: 5; allowed: 0 unless"),
        ("total_kbits = 5", "unknown key; did you mean 'total_kbit_s'"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_is_allowed(tmp_path, text, words):
    file = tmp_path / "uplink.toml"
    file.write_text(f"[schedule]\n{text}\n")
    with pytest.raises(ConfigError, match=words) as raised:
        load(file, UplinkConfig)
    assert all("schedule" in problem for problem in raised.value.problems)


def test_the_example_in_the_configuration_of_a_camera_holds_when_it_is_uncommented(tmp_path):
    lines = (Path(__file__).parents[2] / "configs" / "camera.toml").read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("# [uplink.schedule]"))
    block = itertools.takewhile(lambda line: line.startswith("# "), lines[first:])
    text = "\n".join(line.removeprefix("# ") for line in block)
    file = tmp_path / "uplink.toml"
    file.write_text(text.replace("[uplink.schedule]", "[schedule]"))
    schedule = load(file, UplinkConfig).schedule
    assert schedule.is_set
    assert schedule.metered
    assert not holds(schedule, "2026-11-23 12:00").files_go
