"""When a rule is armed: weekly times, single dates, dawn and dusk, in the site's own time zone."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.core.config import Doc, Length, Range
from agent.core.errors import ConfigError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DUSK_DEG: Final = -6.0  # civil twilight: below it one needs lamps

_EDGE = r"(?:\d\d:\d\d|dawn|dusk)"
_WEEKLY: Final = re.compile(rf"([a-z]{{3}})(?:-([a-z]{{3}}))? ({_EDGE})-({_EDGE})")
_DATED: Final = re.compile(rf"(\d{{4}}-\d\d-\d\d) ({_EDGE})-({_EDGE})")
_NS_PER_S: Final = 1_000_000_000
_J2000: Final = datetime(2000, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """Times at which a rule is armed; what ends before it begins ends on the day after."""

    timezone: Annotated[str, Doc("IANA name of the site's time zone, Europe/Vienna for example")]
    weekly: Annotated[
        tuple[str, ...],
        Doc("`mon-fri 20:00-06:00`, `sun 00:00-24:00`, `mon-sun dusk-dawn`"),
        Length(0, 64),
    ] = ()
    dates: Annotated[
        tuple[str, ...], Doc("Single days besides: `2026-12-31 18:00-24:00`"), Length(0, 400)
    ] = ()
    latitude_deg: Annotated[
        float | None,
        Doc("Where the site is, north positive; dawn and dusk need it"),
        Range(-90, 90),
    ] = None
    longitude_deg: Annotated[
        float | None,
        Doc("Where the site is, east positive; dawn and dusk need it"),
        Range(-180, 180),
    ] = None

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"timezone: {self.timezone!r} is not known here; allowed: an IANA name"
                " (if all are refused: apt-get install tzdata)"
            ) from None
        if not self.weekly and not self.dates:
            raise ConfigError("schedule: no times; allowed: weekly, dates or both")
        spans = [*(_weekly(text) for text in self.weekly), *(_dated(text) for text in self.dates)]
        needs_sun = any({"dawn", "dusk"} & {span.begin, span.end} for span in spans)
        if needs_sun and (self.latitude_deg is None or self.longitude_deg is None):
            raise ConfigError("schedule: dawn and dusk need latitude_deg and longitude_deg")


@dataclass(frozen=True, slots=True)
class _Span:
    days: tuple[int, ...]  # Monday is 0; empty: a single date
    day: date | None
    begin: str
    end: str


def is_armed(schedule: ScheduleConfig, utc_ns: int) -> bool:
    """Whether an instant lies in one of the schedule's times."""
    return _is_armed_in_minute(schedule, utc_ns // (60 * _NS_PER_S))


@lru_cache(maxsize=256)
def _is_armed_in_minute(schedule: ScheduleConfig, minute: int) -> bool:
    moment = datetime.fromtimestamp(minute * 60, UTC)
    zone = ZoneInfo(schedule.timezone)
    today = moment.astimezone(zone).date()
    spans = [
        *(_weekly(text) for text in schedule.weekly),
        *(_dated(text) for text in schedule.dates),
    ]
    return any(
        begin <= moment < end
        for day in (today - timedelta(days=1), today)
        for span in spans
        if span.day == day or day.weekday() in span.days
        for begin, end in [_bounds(span, day, zone, schedule)]
    )


def _bounds(
    span: _Span, day: date, zone: tzinfo, schedule: ScheduleConfig
) -> tuple[datetime, datetime]:
    begin = _edge(span.begin, day, zone, schedule)
    end = _edge(span.end, day, zone, schedule)
    is_next_day = span.end <= span.begin or "d" in span.begin + span.end  # dawn, dusk
    if end <= begin and is_next_day:
        end = _edge(span.end, day + timedelta(days=1), zone, schedule)
    return begin, end


def _edge(text: str, day: date, zone: tzinfo, schedule: ScheduleConfig) -> datetime:
    """Give the instant of `06:00`, `24:00`, `dawn` or `dusk` on a day.

    A local time that the change to summer time leaves out is read by the clock before the change;
    one that comes twice is the first of the two.
    """
    if text in ("dawn", "dusk"):
        return _sun(text, day, schedule.latitude_deg or 0.0, schedule.longitude_deg or 0.0)
    hours, minutes = int(text[:2]), int(text[3:])
    if hours == 24:  # noqa: PLR2004 - the end of the day
        day, hours = day + timedelta(days=1), 0
    return datetime.combine(day, time(hours, minutes), zone).astimezone(UTC)


def _sun(which: str, day: date, latitude_deg: float, longitude_deg: float) -> datetime:
    """Give civil dawn or dusk by the sunrise equation (Meeus, "Astronomical Algorithms", 1998).

    Where the sun does not set or rise that day, dawn and dusk fall together on noon or midnight.
    """
    noon = datetime.combine(day, time(12), UTC) - timedelta(hours=longitude_deg / 15)
    days = (noon - _J2000) / timedelta(days=1)
    anomaly = math.radians((357.5291 + 0.98560028 * days) % 360)
    centre = 1.9148 * math.sin(anomaly) + 0.02 * math.sin(2 * anomaly)
    ecliptic = math.radians(math.degrees(anomaly) + centre + 180 + 102.9372)
    equation_days = 0.0053 * math.sin(anomaly) - 0.0069 * math.sin(2 * ecliptic)
    declination = math.asin(math.sin(ecliptic) * math.sin(math.radians(23.44)))
    latitude = math.radians(latitude_deg)
    cosine = (math.sin(math.radians(DUSK_DEG)) - math.sin(latitude) * math.sin(declination)) / max(
        1e-9, math.cos(latitude) * math.cos(declination)
    )
    half_day = timedelta(days=math.acos(max(-1.0, min(1.0, cosine))) / math.tau)
    transit = noon + timedelta(days=equation_days)
    return transit - half_day if which == "dawn" else transit + half_day


@lru_cache(maxsize=256)
def _weekly(text: str) -> _Span:
    found = _WEEKLY.fullmatch(text)
    if found is None or not {found[1], found[2] or found[1]} <= set(DAYS):
        raise ConfigError(
            f"weekly: {text!r}; allowed: `mon-fri 20:00-06:00`, days {', '.join(DAYS)},"
            " times 00:00 to 24:00, dawn, dusk"
        )
    first, last = DAYS.index(found[1]), DAYS.index(found[2] or found[1])
    count = (last - first) % len(DAYS) + 1
    days = tuple((first + step) % len(DAYS) for step in range(count))
    return _Span(days, None, _time(found[3], text), _time(found[4], text))


@lru_cache(maxsize=256)
def _dated(text: str) -> _Span:
    found = _DATED.fullmatch(text)
    try:
        day = date.fromisoformat(found[1]) if found else None
    except ValueError:
        day = None
    if found is None or day is None:
        raise ConfigError(f"dates: {text!r}; allowed: `2026-12-31 18:00-24:00`")
    return _Span((), day, _time(found[2], text), _time(found[3], text))


def _time(edge: str, text: str) -> str:
    if edge not in ("dawn", "dusk") and (edge > "24:00" or edge[3:] > "59"):
        raise ConfigError(f"schedule: {edge!r} in {text!r}; allowed: 00:00 to 24:00, dawn, dusk")
    return edge
