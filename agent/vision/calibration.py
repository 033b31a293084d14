"""A camera's calibration as a file: points, matrix, lens, residual, who made it and from what.

Made by `outpost calibrate` (`calibrate`), read at every start. Imports nothing heavy.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.core import wire
from agent.core.errors import ConfigError, MalformedMessage
from agent.core.files import write_atomic
from agent.vision.analytics import Ground
from agent.vision.config import CameraConfig

MAX_BYTES: Final = 256 * 1024
TOLERANCE: Final = 1.02  # a file's own residuals come out again but for rounding
CURE: Final = "allowed: a file made by outpost calibrate"

_ROUNDING_M: Final = 0.002
_METRES_DIGITS: Final = 4
_PX_DIGITS: Final = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of the ground that was measured, and where it is seen."""

    name: str
    x: float  # fractions of the picture
    y: float
    x_m: float
    y_m: float
    residual_px: float = 0.0
    residual_m: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that the file holds."""

    calibration_id: str
    snapshot_sha256: str
    width_px: int
    height_px: int
    marks: tuple[Mark, ...]
    straights: tuple[tuple[tuple[float, float], ...], ...]
    matrix: tuple[float, ...]
    k1: float
    residual_px: float
    residual_m: float
    scale_sd_frac: float
    foot_sd_px: float
    is_verified: bool
    made_by: str
    made_utc_ms: int

    @property
    def ground(self) -> Ground:
        """What the rules use of it."""
        return Ground(
            self.calibration_id,
            self.matrix,
            self.k1,
            self.width_px,
            self.height_px,
            self.foot_sd_px,
            self.scale_sd_frac,
        )

    @property
    def summary(self) -> str:
        """One line for a person."""
        if not self.is_verified:
            return f"{self.calibration_id}: UNVERIFIED, {len(self.marks)} points give no residual"
        return (
            f"{self.calibration_id}: {len(self.marks)} points,"
            f" residual {self.residual_px:g} px, {self.residual_m:g} m"
        )


def load(path: Path) -> Ground:
    """Read a calibration file and give the ground that the rules use.

    Raises:
        ConfigError: naming the file, what is wrong with it, and what is allowed.
    """
    return read(path).ground


def of(camera: CameraConfig) -> Ground | None:
    """Give a camera's ground; None where it has no calibration.

    Raises:
        ConfigError: it has one that cannot be used.
    """
    return None if camera.calibration_path is None else load(camera.calibration_path)


def read(path: Path) -> Calibration:
    """Read a calibration file; ConfigError as `load`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {CURE}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: {len(content)} bytes; allowed: {MAX_BYTES}")
    try:
        found = _from_document(wire.check("calibration", _json(content)))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {str(error)[:80]}; {CURE}") from error
    except MalformedMessage as error:
        raise ConfigError(f"{path}: {error}; {CURE}") from error
    if wrong := _misfit(found):
        raise ConfigError(f"{path}: {wrong}; {CURE}")
    return found


def write(found: Calibration, path: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        ConfigError: the disk refuses.
    """
    text = json.dumps(wire.check("calibration", _document(found)), indent=2) + "\n"
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; allowed: a file to write") from error


def _json(content: bytes) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    return json.loads(content, parse_constant=refuse)


def _misfit(found: Calibration) -> str:
    """Say which point the matrix does not bring where the file says it does."""
    if not all(map(math.isfinite, found.matrix)):
        return "matrix holds a number that is not finite"
    ground = found.ground
    for number, mark in enumerate(found.marks, start=1):
        spot = ground.project(mark.x, mark.y)
        if spot is None:
            return f"matrix puts point {number} above the horizon"
        away_m = math.dist(spot, (mark.x_m, mark.y_m))
        if away_m > mark.residual_m * TOLERANCE + _ROUNDING_M:
            return f"matrix puts point {number} {away_m:.3g} m from where it was measured"
    return ""


def _document(found: Calibration) -> dict[str, Any]:
    return {
        "sv": wire.SCHEMA_VERSION,
        "calibration_id": found.calibration_id,
        "made_by": found.made_by,
        "made_utc_ms": found.made_utc_ms,
        "snapshot_sha256": found.snapshot_sha256,
        "width_px": found.width_px,
        "height_px": found.height_px,
        "is_verified": found.is_verified,
        "residual_px": round(found.residual_px, _PX_DIGITS),
        "residual_m": round(found.residual_m, _METRES_DIGITS),
        "scale_sd_frac": round(found.scale_sd_frac, _METRES_DIGITS),
        "foot_sd_px": round(found.foot_sd_px, _PX_DIGITS),
        "k1": found.k1,
        "matrix": list(found.matrix),
        "points": [
            {
                "name": mark.name,
                "picture": [mark.x, mark.y],
                "ground_m": [mark.x_m, mark.y_m],
                "residual_px": round(mark.residual_px, _PX_DIGITS),
                "residual_m": round(mark.residual_m, _METRES_DIGITS),
            }
            for mark in found.marks
        ],
        "straights": [[list(point) for point in line] for line in found.straights],
    }


def _from_document(document: wire.Json) -> Calibration:
    return Calibration(
        calibration_id=document["calibration_id"],
        snapshot_sha256=document["snapshot_sha256"],
        width_px=document["width_px"],
        height_px=document["height_px"],
        marks=tuple(
            Mark(
                item["name"],
                float(item["picture"][0]),
                float(item["picture"][1]),
                float(item["ground_m"][0]),
                float(item["ground_m"][1]),
                item["residual_px"],
                item["residual_m"],
            )
            for item in document["points"]
        ),
        straights=tuple(
            tuple((float(x), float(y)) for x, y in line) for line in document["straights"]
        ),
        matrix=tuple(map(float, document["matrix"])),
        k1=float(document["k1"]),
        residual_px=document["residual_px"],
        residual_m=document["residual_m"],
        scale_sd_frac=document["scale_sd_frac"],
        foot_sd_px=document["foot_sd_px"],
        is_verified=document["is_verified"],
        made_by=document["made_by"],
        made_utc_ms=document["made_utc_ms"],
    )
