"""What was heard of one vehicle in one flight, as a track; what makes no sense stays out."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

from agent.core.clock import NS_PER_S
from agent.core.vehicle import Heard
from agent.flight import place
from agent.flight.model import (
    Attitude,
    Charge,
    Fix,
    Gimbal,
    Notice,
    Photo,
    Quality,
    TimeQuality,
    Track,
)

NS_PER_US = 1_000
NO_HEADING, NO_EPH, NO_SATELLITES, NO_VOLTAGE = 65_535, 65_535, 255, 65_535
YAW_IN_EARTH, YAW_LOCK, YAW_IN_VEHICLE = 64, 16, 32  # GIMBAL_DEVICE_FLAGS
HIGHEST_M = 100_000.0  # what is above is no height of a vehicle
SEQUENCE = 256

Timed = TypeVar("Timed", Fix, Attitude, Gimbal, Charge, Photo, Notice)


class TrackMaker:
    """Collects the messages of one vehicle, each in that vehicle's time."""

    def __init__(self) -> None:
        self._fixes: list[Fix] = []
        self._attitudes: list[Attitude] = []
        self._gimbals: list[Gimbal] = []
        self._charges: list[Charge] = []
        self._photos: dict[int, Photo] = {}
        self._notices: list[Notice] = []
        self._seconds: dict[int, list[int]] = {}  # messages and lost ones
        self._numbers: dict[int, int] = {}  # last number of each part
        self._satellites: int | None = None
        self._eph_m: float | None = None

    def take(self, heard: Heard) -> None:
        """Follow one message, of whichever part of the vehicle."""
        self._count(heard)
        match heard.name:
            case "GLOBAL_POSITION_INT":
                self._fix(heard.utc_ns, heard.said)
            case "GPS_RAW_INT":
                self._reception(heard.said)
            case "ATTITUDE":
                self._attitude(heard.utc_ns, heard.said)
            case "SYS_STATUS":
                self._charge(heard.utc_ns, heard.said)
            case "CAMERA_IMAGE_CAPTURED":
                self._photo(heard.utc_ns, heard.said)
            case "STATUSTEXT":
                told = Notice(heard.utc_ns, int(heard.said.severity), text(heard.said.text))
                self._notices.append(told)
            case _:
                self._camera_turned(heard)

    def track(self, time: TimeQuality) -> Track:
        """Give what was collected; times that ran backwards are put in order."""
        return Track(
            fixes=_by_time(self._fixes),
            attitudes=_by_time(self._attitudes),
            gimbals=_by_time(self._gimbals),
            charges=_by_time(self._charges),
            photos=_by_time(self._photos.values()),
            notices=_by_time(self._notices),
            qualities=tuple(
                Quality(second * NS_PER_S, messages, lost)
                for second, (messages, lost) in sorted(self._seconds.items())
            ),
            time=time,
        )

    def _count(self, heard: Heard) -> None:
        second = self._seconds.setdefault(heard.utc_ns // NS_PER_S, [0, 0])
        second[0] += 1
        last = self._numbers.get(heard.compid)
        if last is not None and heard.seq >= 0:
            missed = (heard.seq - last - 1) % SEQUENCE
            second[1] += missed if missed < SEQUENCE // 2 else 0  # a large step back: out of order
        self._numbers[heard.compid] = heard.seq

    def _fix(self, utc_ns: int, said: Any) -> None:
        spot = place.spot(said.lat, said.lon)
        alt_m, height_m = said.alt / 1000, said.relative_alt / 1000
        if spot is None or max(abs(alt_m), abs(height_m)) > HIGHEST_M:
            return
        heading = said.hdg
        self._fixes.append(
            Fix(
                utc_ns,
                *spot,
                alt_m,
                height_m,
                north_mps=said.vx / 100,
                east_mps=said.vy / 100,
                down_mps=said.vz / 100,
                heading_deg=None if heading == NO_HEADING else heading / 100,
                satellites=self._satellites,
                eph_m=self._eph_m,
            )
        )

    def _reception(self, said: Any) -> None:
        count, eph = said.satellites_visible, said.eph
        self._satellites = None if count == NO_SATELLITES else count
        self._eph_m = None if eph == NO_EPH else eph / 100

    def _attitude(self, utc_ns: int, said: Any) -> None:
        angles = (said.roll, said.pitch, said.yaw, said.yawspeed)
        if all(map(math.isfinite, angles)):
            self._attitudes.append(Attitude(utc_ns, *angles))

    def _camera_turned(self, heard: Heard) -> None:
        if heard.name == "GIMBAL_DEVICE_ATTITUDE_STATUS":
            self._gimbal(heard.utc_ns, heard.said)
        elif heard.name == "MOUNT_STATUS":
            self._mount(heard.utc_ns, heard.said)

    def _gimbal(self, utc_ns: int, said: Any) -> None:
        angles = euler(*said.q)
        if angles is None:
            return
        flags = int(said.flags)
        is_earth = bool(flags & YAW_IN_EARTH)
        if not flags & (YAW_IN_EARTH | YAW_IN_VEHICLE):  # of before these two were defined
            is_earth = bool(flags & YAW_LOCK)
        self._gimbals.append(Gimbal(utc_ns, *angles, is_earth_yaw=is_earth))

    def _mount(self, utc_ns: int, said: Any) -> None:
        pitch, roll, yaw = (
            math.radians(angle / 100)
            for angle in (said.pointing_a, said.pointing_b, said.pointing_c)
        )
        self._gimbals.append(Gimbal(utc_ns, roll, pitch, yaw, is_earth_yaw=False))

    def _charge(self, utc_ns: int, said: Any) -> None:
        voltage, current, left = (
            said.voltage_battery,
            said.current_battery,
            said.battery_remaining,
        )
        self._charges.append(
            Charge(
                utc_ns,
                None if voltage == NO_VOLTAGE else voltage / 1000,
                None if current < 0 else current / 100,
                None if left < 0 else left / 100,
            )
        )

    def _photo(self, utc_ns: int, said: Any) -> None:
        spot = place.spot(said.lat, said.lon)
        if spot is None or said.capture_result == 0:
            return
        taken_ns = said.time_utc * NS_PER_US or utc_ns
        index = int(said.image_index)
        self._photos[index] = Photo(taken_ns, index, *spot, said.alt / 1000, text(said.file_url))


def euler(w: float, x: float, y: float, z: float) -> tuple[float, float, float] | None:
    """Give roll, pitch and yaw in radians of a quaternion; None if it is none.

    Source: Diebel, "Representing Attitude", 2006, sequence (1, 2, 3).
    """
    norm = math.sqrt(w * w + x * x + y * y + z * z)
    if not math.isfinite(norm) or norm < 0.5:  # noqa: PLR2004 - a rotation's norm is 1
        return None
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    return roll, pitch, math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def text(told: str | bytes) -> str:
    """Give a text of the vehicle: up to its first zero, what is no UTF-8 replaced."""
    known = told.decode("utf-8", "replace") if isinstance(told, bytes) else told
    return known.partition("\0")[0].strip()


def _by_time(samples: Iterable[Timed]) -> tuple[Timed, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.utc_ns))
