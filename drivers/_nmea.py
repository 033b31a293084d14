"""Sentences of NMEA 0183 as satellite receivers send them: checked, then read.

Read are RMC (time, date, whether it is valid), GGA (quality, place) and ZDA (time, date), from any
system of satellites. Everything else is passed over. Bytes are a stranger's: nothing raises.
Source: NMEA 0183 as described by https://gpsd.gitlab.io/gpsd/NMEA.html.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MOST_BYTES = 120  # a sentence has at most 82; some receivers send more
EARLIEST_YEAR, LAST_YEAR = 2025, 2065  # others come of a week number that has run over
NS_PER_US = 1000
_SENTENCE = re.compile(rb"\$([\x20-\x23\x25-\x29\x2b-\x7e]{5,110})\*([0-9A-Fa-f]{2})")
_TIME = re.compile(r"(\d\d)(\d\d)(\d\d)(?:\.(\d{1,6}))?")
_ANGLE = re.compile(r"(\d{2,3})(\d\d(?:\.\d{1,8})?)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Moment:
    """Time from RMC or ZDA; `is_valid` as the receiver says of it, None where it does not say."""

    utc_ns: int
    is_valid: bool | None


@dataclass(frozen=True, slots=True)
class Place:
    """Place from GGA; None where there is no fix."""

    quality: int  # 0 none, 1 GPS, 2 differential, 4 and 5 RTK, 6 estimated, 8 simulated
    satellites: int
    lat_deg: float | None
    lon_deg: float | None
    hdop: float | None
    altitude_m: float | None


def read(line: bytes) -> Moment | Place | bool | None:
    """Give what a line says: None for a sentence that is not needed, False for a bad line."""
    found = _SENTENCE.fullmatch(line)
    if found is None or len(line) > MOST_BYTES:
        return False
    checksum = 0
    for byte in found[1]:
        checksum ^= byte
    if checksum != int(found[2], 16):
        return False
    fields = found[1].decode("ascii").split(",")
    reader = _READERS.get(fields[0][2:])
    try:
        return None if reader is None else reader(fields)
    except (ValueError, IndexError, OverflowError):
        return False


def _rmc(fields: list[str]) -> Moment | None:
    if not fields[1] or not fields[9]:
        return None  # it knows no time yet
    day, month, year = (int(fields[9][at : at + 2]) for at in (0, 2, 4))
    return Moment(_utc_ns(fields[1], 2000 + year, month, day), fields[2] == "A")


def _zda(fields: list[str]) -> Moment | None:
    if not fields[1] or not fields[4]:
        return None
    day, month, year = (int(field) for field in fields[2:5])
    return Moment(_utc_ns(fields[1], year, month, day), None)


def _gga(fields: list[str]) -> Place:
    quality = int(fields[6] or 0)
    satellites = int(fields[7] or 0)
    if not (0 <= quality <= 8 and 0 <= satellites < 1 << 8):  # noqa: PLR2004 - as the standard has it
        raise ValueError(quality)
    lat_deg = _angle(fields[2], fields[3], "NS", 90)
    lon_deg = _angle(fields[4], fields[5], "EW", 180)
    return Place(quality, satellites, lat_deg, lon_deg, _number(fields[8]), _number(fields[9]))


_READERS = {"RMC": _rmc, "ZDA": _zda, "GGA": _gga}


def _utc_ns(text: str, year: int, month: int, day: int) -> int:
    found = _TIME.fullmatch(text)
    if found is None or not EARLIEST_YEAR <= year <= LAST_YEAR:
        raise ValueError(text)
    hour, minute, second = int(found[1]), int(found[2]), int(found[3])
    if second > 60:  # noqa: PLR2004 - 60 is a leap second
        raise ValueError(text)
    micro = int((found[4] or "0").ljust(6, "0"))
    base = datetime(year, month, day, hour, minute, tzinfo=UTC)
    since = base + timedelta(seconds=second, microseconds=micro) - _EPOCH
    return (since // timedelta(microseconds=1)) * NS_PER_US


def _angle(text: str, side: str, sides: str, most_deg: int) -> float | None:
    if not text:
        return None
    found = _ANGLE.fullmatch(text)
    if found is None or side not in sides or not side:
        raise ValueError(text)
    angle_deg = int(found[1]) + float(found[2]) / 60
    if angle_deg > most_deg or float(found[2]) >= 60:  # noqa: PLR2004 - minutes
        raise ValueError(text)
    return -angle_deg if side == sides[1] else angle_deg


def _number(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value) or abs(value) > 1e6:  # noqa: PLR2004 - no place on earth
        raise ValueError(text)
    return value
