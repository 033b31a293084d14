"""Cars that follow each other on one lane.

The Intelligent Driver Model of Treiber, Hennecke and Helbing, "Congested traffic states in
empirical observations and microscopic simulations", 2000, with its usual parameters for a town.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim.scenes.paths import Pace
from firmware_sim.scenes.pinhole import Floats

STEP_S: Final = 0.1

_GAIN_MPS2: Final = 1.5
_BRAKE_MPS2: Final = 2.0
_HEADWAY_S: Final = 1.2
_STANDING_GAP_M: Final = 2.0
_CAR_M: Final = 4.4
_HARDEST_MPS2: Final = 8.0


@dataclass(frozen=True, slots=True)
class Driver:
    """Where one of the lane's drivers begins, and how fast they like to go."""

    begin_m: float  # along the lane
    speed_mps: float
    wish_mps: float


def follow(leader: Pace, drivers: Sequence[Driver], seconds: float) -> list[Pace]:
    """Give the paces of drivers behind `leader`, first the one next to it.

    `leader` counts its metres from the lane's beginning, as the drivers do.
    """
    times = np.arange(0.0, seconds + STEP_S, STEP_S)
    ahead = leader.at(times)
    found = []
    for driver in drivers:
        pace = _drive(driver, times, ahead)
        found.append(pace)
        ahead = pace.gone_m
    return found


def _drive(driver: Driver, times: Floats, ahead: Floats) -> Pace:
    speeds = np.gradient(ahead, times).tolist()
    gone, speed = driver.begin_m, driver.speed_mps
    rows = []
    for front, front_speed in zip(ahead.tolist(), speeds, strict=True):
        gap = max(front - gone - _CAR_M, 0.1)
        closing = speed * (speed - front_speed) / (2.0 * (_GAIN_MPS2 * _BRAKE_MPS2) ** 0.5)
        wanted = _STANDING_GAP_M + max(0.0, speed * _HEADWAY_S + closing)
        gain = _GAIN_MPS2 * (1.0 - (speed / driver.wish_mps) ** 4 - (wanted / gap) ** 2)
        gain = max(gain, -_HARDEST_MPS2, -speed / STEP_S)  # it stops, it does not go back
        rows.append((gone, speed, gain))
        gone += speed * STEP_S + gain * STEP_S**2 / 2
        speed = max(0.0, speed + gain * STEP_S)
    columns = np.array(rows).T
    columns[2, -1] = 0.0
    return Pace(times, *columns)
