"""Messages of a made vehicle: what a flight sounds like, without a wire."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from agent.core.clock import NS_PER_MS, NS_PER_S
from agent.core.vehicle import Heard

START_UTC_NS = 1_760_000_000 * NS_PER_S
HOME_E7 = (498_000_000, 731_000_000)
STEP_MS = 200


@dataclass(frozen=True, slots=True)
class Moment:
    """How the vehicle is, `at_s` after the start."""

    at_s: float
    is_armed: bool = False
    height_m: float = 0.0
    north_m: float = 0.0
    climb_mps: float = 0.0


def heard(at_s: float, name: str, **fields: Any) -> Heard:
    """Make one message of vehicle 1's autopilot."""
    at_ns = round(at_s * NS_PER_S)
    return Heard("", name, 1, 1, SimpleNamespace(**fields), START_UTC_NS + at_ns, at_ns)


def messages(
    moments: Sequence[Moment], *, landed: bool = False, boot_s: float = 0.0
) -> Iterator[Heard]:
    """Tell moments as an autopilot does.

    Args:
        moments: by time.
        landed: whether it tells EXTENDED_SYS_STATE.
        boot_s: when it was started.
    """
    for moment in moments:
        boot_ms = round((moment.at_s - boot_s) * 1000)
        yield heard(
            moment.at_s,
            "SYSTEM_TIME",
            time_unix_usec=(START_UTC_NS + round(moment.at_s * NS_PER_S)) // 1000,
            time_boot_ms=boot_ms,
        )
        yield heard(
            moment.at_s, "HEARTBEAT", type=2, autopilot=3, base_mode=128 if moment.is_armed else 0
        )
        yield heard(
            moment.at_s,
            "GLOBAL_POSITION_INT",
            time_boot_ms=boot_ms,
            lat=HOME_E7[0] + round(moment.north_m / 0.0111195),
            lon=HOME_E7[1],
            alt=round(300_000 + moment.height_m * 1000),
            relative_alt=round(moment.height_m * 1000),
            vx=0,
            vy=0,
            vz=round(-moment.climb_mps * 100),
            hdg=9000,
        )
        if landed:
            is_up = moment.height_m > 0.2
            yield heard(moment.at_s, "EXTENDED_SYS_STATE", landed_state=2 if is_up else 1)


def flown(
    start_s: float = 10.0, *, top_m: float = 20.0, cruise_s: float = 30.0, after_s: float = 30.0
) -> list[Moment]:
    """Give a flight: armed at `start_s`, up at 2 m/s, north at 5 m/s, down, disarmed."""
    up_s = top_m / 2
    moments = []
    end_s = start_s + 3 + up_s + cruise_s + up_s + 3
    at_s = start_s - 5
    while at_s < end_s + after_s:
        into_s = at_s - start_s - 3
        height_m, climb = 0.0, 0.0
        if 0 <= into_s < up_s:
            height_m, climb = 2 * into_s, 2.0
        elif up_s <= into_s < up_s + cruise_s:
            height_m = top_m
        elif up_s + cruise_s <= into_s < 2 * up_s + cruise_s:
            height_m, climb = top_m - 2 * (into_s - up_s - cruise_s), -2.0
        north_m = 5 * min(max(0.0, into_s - up_s), cruise_s)
        moments.append(Moment(at_s, start_s <= at_s < end_s, height_m, north_m, climb))
        at_s = round(at_s + STEP_MS / 1000, 3)
    return moments


def shifted(items: Sequence[Heard], from_s: float, by_s: float) -> list[Heard]:
    """Have our own clock jump: every message from a moment on comes that much later."""
    by_ns = round(by_s * NS_PER_S)
    return [
        replace(item, utc_ns=item.utc_ns + by_ns, mono_ns=item.mono_ns + by_ns)
        if item.mono_ns >= from_s * NS_PER_S
        else item
        for item in items
    ]


def ms(time_ns: int) -> int:
    """Give milliseconds since the made start."""
    return (time_ns - START_UTC_NS) // NS_PER_MS
