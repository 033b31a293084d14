"""Where something is at any moment: a way over the ground, and how far along it one has come.

All are functions of continuous time; times in seconds, places in metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim.scenes.pinhole import Floats

_ROUNDINGS: Final = 3  # of a way's corners
_NOSE_M: Final = 0.25  # over which a way's direction is taken


@dataclass(frozen=True, slots=True)
class Way:
    """A line over the ground with rounded corners; it goes on straight beyond both ends."""

    points: Floats  # (n, 2)
    lengths: Floats  # (n,) from the first point on

    @classmethod
    def through(cls, corners: Sequence[tuple[float, float]], *, is_round: bool = True) -> "Way":
        """Give the way past these corners (Chaikin's corner cutting)."""
        points = np.asarray(corners, dtype=np.float64)
        for _ in range(_ROUNDINGS if is_round and len(points) > 2 else 0):  # noqa: PLR2004 - an end each
            cut = np.empty((2 * len(points) - 2, 2))
            cut[0::2] = 0.75 * points[:-1] + 0.25 * points[1:]
            cut[1::2] = 0.25 * points[:-1] + 0.75 * points[1:]
            points = np.vstack((points[:1], cut, points[-1:]))
        steps = np.hypot(*np.diff(points, axis=0).T)
        kept = np.concatenate(([True], steps > 1e-9))  # noqa: PLR2004 - the same point twice
        return cls(points[kept], np.concatenate(([0.0], np.cumsum(steps[kept[1:]]))))

    @property
    def length_m(self) -> float:
        """From end to end."""
        return float(self.lengths[-1])

    def at(self, gone_m: Floats) -> Floats:
        """Give the places (n, 2) after so many metres (n,)."""
        place = np.searchsorted(self.lengths, gone_m, side="right") - 1
        place = np.clip(place, 0, len(self.lengths) - 2)
        first, last = self.points[place], self.points[place + 1]
        span = self.lengths[place + 1] - self.lengths[place]
        share = (gone_m - self.lengths[place]) / span
        return np.asarray(first + share[:, None] * (last - first))

    def heading(self, gone_m: Floats) -> Floats:
        """Give unit vectors (n, 2) of the way's direction after so many metres."""
        ahead = self.at(gone_m + _NOSE_M) - self.at(gone_m - _NOSE_M)
        length = np.hypot(ahead[:, 0], ahead[:, 1])
        return np.asarray(ahead / np.maximum(length, 1e-9)[:, None])


@dataclass(frozen=True, slots=True)
class Pace:
    """Metres gone over time: knots of time, place, speed and acceleration, constant in between."""

    t_s: Floats
    gone_m: Floats
    speed_mps: Floats
    gain_mps2: Floats

    @classmethod
    def of(
        cls,
        phases: Sequence[tuple[float, float]],
        *,
        start_s: float = 0.0,
        speed_mps: float = 0.0,
        begin_m: float = 0.0,
    ) -> "Pace":
        """Give a drive in phases of (seconds, acceleration); the last speed is kept."""
        rows = [(start_s, begin_m, speed_mps, 0.0)]
        for lasts_s, gain in phases:
            begin, gone, speed, _ = rows.pop()
            rows.append((begin, gone, speed, gain))
            ends = gone + speed * lasts_s + gain * lasts_s**2 / 2
            rows.append((begin + lasts_s, ends, speed + gain * lasts_s, 0.0))
        return cls(*np.array(rows).T)

    @classmethod
    def steps(cls, phases: Sequence[tuple[float, float]], *, start_s: float = 0.0) -> "Pace":
        """Give a walk in phases of (seconds, speed), the speed changing at once."""
        rows, begin, gone = [], start_s, 0.0
        for lasts_s, speed in phases:
            rows.append((begin, gone, speed, 0.0))
            begin, gone = begin + lasts_s, gone + speed * lasts_s
        rows.append((begin, gone, phases[-1][1], 0.0))
        return cls(*np.array(rows).T)

    @property
    def ends_s(self) -> float:
        """The last knot's time."""
        return float(self.t_s[-1])

    def at(self, t_s: Floats) -> Floats:
        """Give the metres gone at these times; before the first knot at its speed."""
        knot = np.clip(np.searchsorted(self.t_s, t_s, side="right") - 1, 0, len(self.t_s) - 1)
        since = t_s - self.t_s[knot]
        gain = np.where(since < 0, 0.0, self.gain_mps2[knot])
        return np.asarray(
            self.gone_m[knot] + self.speed_mps[knot] * since + gain * since * since / 2
        )

    def reaches_s(self, gone_m: float) -> float:
        """Give the first moment, to 10 ms, at which so many metres are gone."""
        low, high = float(self.t_s[0]), self.ends_s + 600.0
        coarse = np.linspace(low, high, 2000)
        place = int(np.argmax(self.at(coarse) >= gone_m))
        fine = np.arange(coarse[max(place - 1, 0)], coarse[place] + 0.01, 0.01)
        return float(fine[int(np.argmax(self.at(fine) >= gone_m))])


@dataclass(frozen=True, slots=True)
class Aside:
    """Metres to the left of the way over time: knots, and a smooth change from one to the next."""

    t_s: tuple[float, ...] = (0.0,)
    left_m: tuple[float, ...] = (0.0,)
    sway_m: float = 0.0  # a walker's
    period_s: float = 1.1
    phase: float = 0.0

    def at(self, t_s: Floats) -> Floats:
        """Give the offsets (n,) at these times."""
        times, offsets = np.array(self.t_s), np.array(self.left_m)
        last = max(len(times) - 2, 0)
        knot = np.clip(np.searchsorted(times, t_s, side="right") - 1, 0, last)
        following = np.minimum(knot + 1, len(times) - 1)
        span = np.maximum(times[following] - times[knot], 1e-9)
        share = np.clip((t_s - times[knot]) / span, 0.0, 1.0)
        eased = share * share * (3.0 - 2.0 * share)
        swayed = self.sway_m * np.sin(2 * np.pi * t_s / self.period_s + self.phase)
        return np.asarray(offsets[knot] + eased * (offsets[following] - offsets[knot]) + swayed)
