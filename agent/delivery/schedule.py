"""What the link may carry at a time of day: caps, daily windows, and files on a metered link.

Alarms and states always go. A window is read by the local clock on the wall, so that 22:00 stays
22:00 when summer time ends. While the clock was never right, nobody knows which window it is: then
the lowest of all caps holds, no window is open, and no new day begins. Pure: time is a parameter.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.core.clock import NS_PER_S
from agent.core.config import Doc, Length, Range
from agent.core.errors import ConfigError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LEAST_KBIT_S: Final = 8  # less does not carry a beat
BYTES_PER_KBIT: Final = 125
BYTES_PER_KB: Final = 1000
BYTES_PER_MB: Final = 1_000_000
MOST_WINDOWS: Final = 16
_TIMES: Final = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))? )?(\d\d):(\d\d)-(\d\d):(\d\d)")
_DAY_MIN: Final = 24 * 60
_WEEK: Final = 7
_ALLOWED_TIMES: Final = "22:00-06:00, mon-fri 22:00-06:00 or sun 00:00-24:00"


@dataclass(frozen=True, slots=True)
class WindowConfig:
    """A time of day with caps of its own; on a metered link files go in it."""

    times: Annotated[
        str, Doc("`22:00-06:00` every day, `mon-fri 22:00-06:00`, `sun 00:00-24:00`, local time")
    ]
    total_kbit_s: Annotated[
        int, Doc("Cap of everything in this window, kbit/s; 0: none"), Range(0, 10_000_000)
    ] = 0
    files_kbit_s: Annotated[
        int, Doc("Cap of files in this window, kbit/s; 0: none"), Range(0, 10_000_000)
    ] = 0

    def __post_init__(self) -> None:
        problems = list(_cap_problems(self.total_kbit_s, self.files_kbit_s))
        try:
            _span(self.times)
        except ConfigError as error:
            problems = [*error.problems, *problems]
        if problems:
            raise ConfigError(*problems)


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """What the link may carry, and when; of windows that overlap the first one holds."""

    timezone: Annotated[
        str, Doc("IANA name of the site's time zone, Europe/Vienna for example; empty: UTC")
    ] = ""
    total_kbit_s: Annotated[
        int, Doc("Cap of everything outside the windows, kbit/s; 0: none"), Range(0, 10_000_000)
    ] = 0
    files_kbit_s: Annotated[
        int, Doc("Cap of files outside the windows, kbit/s; 0: none"), Range(0, 10_000_000)
    ] = 0
    windows: Annotated[
        tuple[WindowConfig, ...], Doc("Times of day with caps of their own"), Length(0, 16)
    ] = ()
    metered: Annotated[
        bool, Doc("Bytes cost money: files go in windows and up to files_mb_per_day outside")
    ] = False
    files_mb_per_day: Annotated[
        float, Doc("Metered: MB of files a day outside the windows; 0: none"), Range(0, 1e6)
    ] = 0.0
    small_kb: Annotated[
        int,
        Doc("Metered: files up to so many kB, snapshots, go at any time; 0: none"),
        Range(0, 10_000),
    ] = 0

    def __post_init__(self) -> None:
        problems = []
        if self.timezone:
            try:
                _zone(self.timezone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                problems.append(
                    f"timezone: {self.timezone!r} is not known here; allowed: an IANA name"
                    " (if all are refused: apt-get install tzdata)"
                )
        elif self.windows or self.files_mb_per_day:
            problems.append(
                "timezone: missing; windows and files_mb_per_day need an IANA name, or UTC"
            )
        if self.metered and not self.windows and not self.files_mb_per_day:
            problems.append(
                "metered: true, and no file would ever go; allowed: with windows,"
                " files_mb_per_day or both"
            )
        if not self.metered and (self.files_mb_per_day or self.small_kb):
            key = "files_mb_per_day" if self.files_mb_per_day else "small_kb"
            problems.append(f"{key}: {getattr(self, key):g}; allowed: 0 unless metered = true")
        problems += _cap_problems(self.total_kbit_s, self.files_kbit_s)
        if problems:
            raise ConfigError(*problems)

    @property
    def is_set(self) -> bool:
        """Whether it limits anything."""
        return bool(self.total_kbit_s or self.files_kbit_s or self.windows or self.metered)


@dataclass(frozen=True, slots=True)
class UplinkConfig:
    """The link to the centre as the site pays for it."""

    schedule: Annotated[ScheduleConfig, Doc("Caps of bandwidth, daily windows, metered links")] = (
        field(default_factory=ScheduleConfig)
    )


@dataclass(frozen=True, slots=True)
class Allowed:
    """What holds now; a rate of 0 is none."""

    total_bytes_per_s: int
    files_bytes_per_s: int
    files_go: bool  # large ones too
    small_bytes: int  # files up to this size go even so
    window: str  # the times of the one that is open, else empty
    until_utc_ns: int | None  # when it changes by the clock; None: never, or nobody knows


def allowed(config: ScheduleConfig, utc_ns: int | None, metered_bytes: int) -> Allowed:
    """Decide.

    Args:
        config: the schedule.
        utc_ns: wall time; None: the clock was never right.
        metered_bytes: of files sent today outside the windows.
    """
    open_window, until_utc_ns = (None, None) if utc_ns is None else _now(config, _minute(utc_ns))
    has_quota = metered_bytes < config.files_mb_per_day * BYTES_PER_MB
    files_go = not config.metered or open_window is not None or has_quota
    caps: WindowConfig | ScheduleConfig = config if open_window is None else open_window
    total, files = caps.total_kbit_s, caps.files_kbit_s
    if utc_ns is None:
        all_caps: tuple[WindowConfig | ScheduleConfig, ...] = (config, *config.windows)
        total = min((cap.total_kbit_s for cap in all_caps if cap.total_kbit_s), default=0)
        files = min((cap.files_kbit_s for cap in all_caps if cap.files_kbit_s), default=0)
    elif config.metered and open_window is None and config.files_mb_per_day:
        midnight_ns = _midnight_ns(config, utc_ns)
        until_utc_ns = min(until_utc_ns or midnight_ns, midnight_ns)
    return Allowed(
        total * BYTES_PER_KBIT,
        files * BYTES_PER_KBIT,
        files_go,
        config.small_kb * BYTES_PER_KB,
        "" if open_window is None else open_window.times,
        until_utc_ns,
    )


def local_day(config: ScheduleConfig, utc_ns: int) -> str:
    """Give the date at the site, 2026-11-23 for example."""
    return _local(config, _minute(utc_ns)).date().isoformat()


@dataclass(frozen=True, slots=True)
class _Span:
    days: frozenset[int]  # Monday is 0; of the beginning
    begin_min: int
    end_min: int  # not after the beginning: on the next day

    def holds(self, moment: datetime) -> bool:
        minute, day = moment.hour * 60 + moment.minute, moment.weekday()
        if self.begin_min < self.end_min:
            return day in self.days and self.begin_min <= minute < self.end_min
        return (day in self.days and minute >= self.begin_min) or (
            (day - 1) % _WEEK in self.days and minute < self.end_min
        )


@lru_cache(maxsize=64)
def _now(config: ScheduleConfig, minute: int) -> tuple[WindowConfig | None, int | None]:
    """Give the window that is open in a minute since 1970, and when that changes."""
    here = _local(config, minute)
    open_window = _open(config, here)
    edges = {
        edge % _DAY_MIN
        for window in config.windows
        for edge in (_span(window.times).begin_min, _span(window.times).end_min)
    }
    for days in range(_WEEK + 2):
        day = here.date() + timedelta(days=days)
        for edge in sorted(edges):
            # A time that the change to summer time leaves out is read by the clock before it.
            local = datetime.combine(day, time(edge // 60, edge % 60), here.tzinfo)
            then = int(local.timestamp()) // 60
            if then > minute and _open(config, _local(config, then)) is not open_window:
                return open_window, then * 60 * NS_PER_S
    return open_window, None


def _open(config: ScheduleConfig, moment: datetime) -> WindowConfig | None:
    return next((one for one in config.windows if _span(one.times).holds(moment)), None)


def _midnight_ns(config: ScheduleConfig, utc_ns: int) -> int:
    here = _local(config, _minute(utc_ns))
    midnight = datetime.combine(here.date() + timedelta(days=1), time(), here.tzinfo)
    return int(midnight.timestamp()) * NS_PER_S


def _local(config: ScheduleConfig, minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC).astimezone(_zone(config.timezone))


def _zone(name: str) -> tzinfo:
    """Give a time zone; UTC needs no tables, which a small system may lack."""
    return UTC if name in ("", "UTC") else ZoneInfo(name)


def _minute(utc_ns: int) -> int:
    return utc_ns // (60 * NS_PER_S)


@lru_cache(maxsize=64)
def _span(text: str) -> _Span:
    found = _TIMES.fullmatch(text)
    problem = f"times: {text!r}; allowed: {_ALLOWED_TIMES}"
    if found is None:
        raise ConfigError(problem)
    first, last = found[1] or DAYS[0], found[2] or found[1] or DAYS[-1]
    if not {first, last} <= set(DAYS):
        raise ConfigError(f"{problem}, days from {', '.join(DAYS)}")
    begin_min, end_min = (
        int(hours) * 60 + int(minutes) for hours, minutes in (found.group(3, 4), found.group(5, 6))
    )
    is_time = int(found[4]) < 60 and int(found[6]) < 60  # noqa: PLR2004 - minutes
    if not is_time or begin_min >= _DAY_MIN or end_min > _DAY_MIN or begin_min == end_min:
        raise ConfigError(f"{problem}, from 00:00 to 24:00, the end not the beginning")
    here, there = DAYS.index(first), DAYS.index(last)
    count = (there - here) % _WEEK + 1
    return _Span(frozenset((here + step) % _WEEK for step in range(count)), begin_min, end_min)


def _cap_problems(total_kbit_s: int, files_kbit_s: int) -> Iterator[str]:
    for key, value in (("total_kbit_s", total_kbit_s), ("files_kbit_s", files_kbit_s)):
        if 0 < value < LEAST_KBIT_S:
            yield f"{key}: {value}; allowed: 0, which is none, or from {LEAST_KBIT_S}"
    if 0 < total_kbit_s < files_kbit_s:
        yield f"files_kbit_s: {files_kbit_s}; allowed: up to total_kbit_s {total_kbit_s}"
