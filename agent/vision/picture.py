"""Figures of the small brightness plane: worked out once a look, and only those that are asked for.

They know nothing after a restart. A reference of unknown age would be worth less than none: light,
season, or somebody who set the camera right meanwhile would all read as a fault.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import cv2
import numpy as np

from agent.core.clock import NS_PER_S
from agent.core.config import Kinded
from agent.core.model import Box, Picture, Zone
from agent.vision import analytics
from agent.vision.analytics._contract import PATCHES, PICTURE, SHIFT, SIMILARITY
from agent.vision.decode import Image
from agent.vision.likeness import Likeness
from agent.vision.patches import Patches
from agent.vision.shift import Shift

MIN_SPREAD: Final = 6.0  # grey levels: a plane with less shows nothing that could be compared
CORRUPT_OVER_S: Final = 60

_US_PER_S: Final = 1_000_000
_DIGITS: Final = 3


class Seen(Protocol):
    """What the figures need of a frame besides its plane."""

    t_us: int
    utc_ns: int
    camera_utc_ns: int | None
    is_corrupt: bool


class Figures:
    """Works out the figures of one camera; for the thread that decodes.

    Args:
        asked: which of SHIFT and PATCHES any rule wants.
        zones: those whose similarity is wanted, by name.
    """

    def __init__(self, asked: frozenset[str], zones: Mapping[str, Zone]) -> None:
        self._before: Image = np.empty((0, 0), np.uint8)
        self._shift = Shift() if SHIFT in asked else None
        self._patches = Patches() if PATCHES in asked else None
        self._likeness = {name: Likeness(zone.points) for name, zone in zones.items()}
        self._corrupt: deque[tuple[int, int, int]] = deque()  # second, pictures, damaged ones

    @classmethod
    def for_rules(cls, rules: Sequence[Kinded], zones: Mapping[str, Zone]) -> "Figures | None":
        """Give what the rules of a camera ask for; None where none asks.

        Args:
            rules: as configured.
            zones: of the camera, by name.
        """
        asked: frozenset[str] = frozenset()
        watched: dict[str, Zone] = {}
        is_asked = False
        for item in rules:
            spec = analytics.rule(item.kind).SPEC
            is_asked |= PICTURE in spec.needs
            asked |= spec.figures
            if SIMILARITY in spec.figures:
                watched[item.settings.zone] = zones[item.settings.zone]
        return cls(asked, watched) if is_asked else None

    def count(self, frame: Seen) -> None:
        """Take note of a decoded picture, looked at or not."""
        second = frame.t_us // _US_PER_S
        pictures = damaged = 0
        if self._corrupt and self._corrupt[-1][0] == second:
            _, pictures, damaged = self._corrupt.pop()
        self._corrupt.append((second, pictures + 1, damaged + frame.is_corrupt))
        while self._corrupt[0][0] <= second - CORRUPT_OVER_S:
            self._corrupt.popleft()

    def step(self, plane: Image, frame: Seen, moving: Sequence[Box]) -> Picture:
        """Give the figures of a plane.

        A plane without any contrast is not compared with what was learned, nor learned from: what
        stood in the picture before the lens was covered stands there still when it is free again.

        Args:
            plane: brightness, 180x320.
            frame: whose plane it is.
            moving: what moves in it.
        """
        mean, spread = (float(value[0, 0]) for value in cv2.meanStdDev(plane))
        smooth = cv2.GaussianBlur(plane, (3, 3), 0)
        edges = cv2.Laplacian(smooth, cv2.CV_16S)
        is_same_size = self._before.shape == plane.shape
        change = cv2.norm(plane, self._before, cv2.NORM_L1) / plane.size if is_same_size else 0.0
        change_max = cv2.norm(plane, self._before, cv2.NORM_INF) if is_same_size else 0.0
        self._before = plane
        is_blank = spread < MIN_SPREAD
        patches, shift = self._patches, self._shift
        return Picture(
            luma_mean=round(mean, _DIGITS),
            luma_sd=round(spread, _DIGITS),
            sharpness=round(cv2.norm(edges, cv2.NORM_L2SQR) / plane.size, _DIGITS),
            change=round(change, 6),
            shift_frac=None if shift is None or is_blank else shift.step(plane, frame.t_us),
            moving=tuple(moving),
            patches=(
                ()
                if patches is None
                else patches.known
                if is_blank
                else patches.step(plane, frame.t_us)
            ),
            similarity={} if is_blank else self._similarity(plane, frame.t_us),
            clock_offset_s=_clock_offset_s(frame),
            corrupt_share=self._corrupt_share(),
            change_max=change_max,
        )

    def _similarity(self, plane: Image, t_us: int) -> dict[str, float]:
        found = {name: item.step(plane, t_us) for name, item in self._likeness.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _corrupt_share(self) -> float:
        pictures = sum(item[1] for item in self._corrupt)
        return round(sum(item[2] for item in self._corrupt) / pictures, 4) if pictures else 0.0


def _clock_offset_s(frame: Seen) -> float | None:
    if frame.camera_utc_ns is None:
        return None
    return round((frame.camera_utc_ns - frame.utc_ns) / NS_PER_S, _DIGITS)
