"""The ground's grid drawn over a snapshot: an eye tells whether a calibration is right."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from agent.core.errors import ConfigError
from agent.core.files import write_atomic
from agent.vision.calibrate import Floats, Forward
from agent.vision.calibration import Calibration

MAX_LINES: Final = 120  # of one direction: beyond that the grid is coarser than a metre
STEPS_M: Final = (1, 2, 5, 10, 20, 50, 100)

_BEYOND: Final = 0.6  # of the points' extent: how far the grid goes past them
_SAMPLES: Final = 160  # of a line
Colour = tuple[int, int, int]

_THIN, _THICK = (90, 200, 90), (40, 255, 255)  # blue, green, red
_MARK, _OFF = (40, 40, 255), (255, 80, 255)
_EVERY: Final = 5  # lines: thick and named
_NAMES_APART: Final = 0.04
_MARGIN: Final = 0.02
_WRITABLE: Final = 0.9  # of the width: further right a name would be cut
_APART_PX: Final = 7  # thin lines nearer to each other than that would hide the picture
_JPEG_QUALITY: Final = 90


def picture_size(snapshot: Path) -> tuple[int, int]:
    """Give width and height of a snapshot; ConfigError where it is no picture."""
    height, width = _opened(snapshot).shape[:2]
    return width, height


def draw(snapshot: Path, found: Calibration, target: Path) -> int:
    """Draw grid, points and their errors over the snapshot.

    Args:
        snapshot: the picture that was calibrated.
        found: its calibration.
        target: the JPEG to write.

    Returns:
        Metres between two lines.

    Raises:
        ConfigError: the snapshot is no picture, or the disk refuses.
    """
    sheet = _Sheet(_opened(snapshot), found)
    step_m = sheet.grid()
    sheet.marks()
    is_done, coded = cv2.imencode(".jpg", sheet.canvas, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    try:
        write_atomic(target, coded.tobytes() if is_done else b"")
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}; allowed: a file to write") from error
    return step_m


def _opened(snapshot: Path) -> Any:
    try:
        content = np.frombuffer(snapshot.read_bytes(), np.uint8)
    except OSError as error:
        raise ConfigError(f"{snapshot}: {error.strerror}; allowed: a JPEG or PNG") from error
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if picture is None:
        raise ConfigError(f"{snapshot}: no picture; allowed: a JPEG or PNG")
    return picture


class _Sheet:
    """The snapshot while it is drawn on."""

    def __init__(self, canvas: Any, found: Calibration) -> None:
        self.canvas = canvas
        self._found = found
        self._ground = found.ground
        self._forward = Forward(found.ground)
        self._size = np.array([canvas.shape[1], canvas.shape[0]])
        self._scale = canvas.shape[1] / 1000
        self._named: list[tuple[float, float]] = []

    def grid(self) -> int:
        """Draw the lines of both directions and give the metres between two."""
        places = np.array([(mark.x_m, mark.y_m) for mark in self._found.marks])
        low, high = places.min(axis=0), places.max(axis=0)
        beyond = max(2.0, _BEYOND * float((high - low).max()))
        low, high = low - beyond, high + beyond
        extent_m = float((high - low).max())
        step_m = next((step for step in STEPS_M if extent_m / step <= MAX_LINES), STEPS_M[-1])
        for axis in (0, 1):
            first, last = int(np.ceil(low[axis] / step_m)), int(np.floor(high[axis] / step_m))
            points = np.empty((_SAMPLES, 2))
            points[:, 1 - axis] = np.linspace(low[1 - axis], high[1 - axis], _SAMPLES)
            for number in range(first, last + 1):
                points[:, axis] = number * step_m
                spots = self._forward(points)
                if number % _EVERY:
                    self._line(spots, _THIN, 1.0, _APART_PX / step_m)
                else:
                    self._line(spots, _THICK, 1.8, 0.0)
                    self._name(spots, f"{'xy'[axis]} {number * step_m} m")
        return step_m

    def marks(self) -> None:
        """Draw the points, and a stroke from each to where the calibration puts it."""
        stroke = max(1, round(2 * self._scale))
        for mark in self._found.marks:
            seen = self._px(np.array([mark.x, mark.y]))
            told = self._px(self._forward(np.array([[mark.x_m, mark.y_m]]))[0])
            cv2.circle(self.canvas, seen, round(5 * self._scale), _MARK, stroke)
            cv2.line(self.canvas, seen, told, _OFF, stroke)
            self._text(f"{mark.name}: {mark.x_m:g}, {mark.y_m:g}", (mark.x, mark.y), _MARK)

    def _line(self, spots: Floats, colour: Colour, stroke: float, apart_px: float) -> None:
        """Draw the pieces of a line that lie in the picture and where the ground is told."""
        width = max(1, round(stroke * self._scale))
        told = [_is_in(spot) and self._is_told(spot, apart_px) for spot in spots]
        for (one, is_first_told), (other, is_next_told) in pairwise(zip(spots, told, strict=True)):
            if is_first_told and is_next_told:
                ends = self._px(one), self._px(other)
                cv2.line(self.canvas, *ends, colour, width, cv2.LINE_AA)

    def _is_told(self, spot: Any, apart_px: float) -> bool:
        """Whether the ground is told there, and a metre takes so many pixels of the snapshot."""
        place = self._ground.locate(float(spot[0]), float(spot[1]))
        return place is not None and place.sd_m * apart_px <= self._ground.sd_px

    def _name(self, spots: Floats, text: str) -> None:
        """Write beside the point of a line that is lowest in the picture."""
        inside = [spot for spot in spots if _is_in(spot, _MARGIN) and float(spot[0]) < _WRITABLE]
        if not inside:
            return
        lowest = max(inside, key=lambda spot: float(spot[1]))
        x, y = float(lowest[0]), float(lowest[1])
        if all(math.dist((x, y), other) > _NAMES_APART for other in self._named):
            self._named.append((x, y))
            self._text(text, (x, y), _THICK)

    def _text(self, text: str, spot: tuple[float, float], colour: Colour) -> None:
        x = round(min(spot[0], _WRITABLE) * self.canvas.shape[1] + 7 * self._scale)
        y = round(spot[1] * self.canvas.shape[0] - 5 * self._scale)
        font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.45 * self._scale
        for shade, width in (((0, 0, 0), 3), (colour, 1)):
            stroke = max(1, round(width * self._scale))
            cv2.putText(self.canvas, text, (x, y), font, size, shade, stroke, cv2.LINE_AA)

    def _px(self, spot: Floats) -> tuple[int, int]:
        x, y = np.round(spot * self._size).astype(int).tolist()
        return x, y


def _is_in(spot: Any, margin: float = 0.0) -> bool:
    x, y = float(spot[0]), float(spot[1])
    return margin <= x <= 1 - margin and margin <= y <= 1 - margin
