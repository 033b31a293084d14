"""From points of known place to a ground plane, its lens and its error.

Normalised direct linear transform, refined by Levenberg-Marquardt over the distances in the
picture, where the error is made (Hartley, Zisserman: "Multiple View Geometry", 2004: 4.1, 4.4,
algorithm 4.3, A6.2). Where lines that are straight in reality are given, the lens's first radial
term k1 is fitted together with the plane: their points must lie on a line once freed of it (7.4).
The error of a length follows from the covariance of the parameters (5.2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.core.errors import ConfigError
from agent.vision.analytics import Ground
from agent.vision.calibration import Mark
from agent.vision.survey import Survey

LEAST: Final = 4
VERIFIED_FROM: Final = 6
MAX_CONDITION: Final = 3000.0  # of the normalised system; well spread points give 10 to 300
MAX_RESIDUAL_FRAC: Final = 0.03  # of the span of the points
MAX_K1: Final = 0.8
FOOT_SD_FRAC: Final = 0.003  # of the width: how well a detector tells where an object stands

_LEAST_PX_FRAC: Final = 0.002  # of the width: two points nearer than that are one
_LEAST_M: Final = 0.05
_THIN_PICTURE: Final = 0.012  # height of a triangle, in widths of the picture
_THIN_GROUND: Final = 0.03  # height of a triangle, as a share of its longest side
_STARTS_K1: Final = (0.0, -0.15, 0.15, -0.3, 0.3, -0.5)
_ROUNDS_K1: Final = 30
_STEP: Final = 1e-6
_LEAST_SD_PX: Final = 0.5  # a click is never better
_UNKNOWN_SD_PX: Final = 3.0  # of four points, which always fit
_DAMPING: Final = 1e-3
_MAX_DAMPING: Final = 1e12
_MAX_ROUNDS: Final = 100
_PARAMETERS: Final = 8  # of a homography
_LEFT_OUT_HELPS: Final = 3.0  # a wrong point: without it the residual falls to a third

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted plane; the matrix maps the picture to the ground as in `Ground`."""

    matrix: tuple[float, ...]
    k1: float
    residuals_px: tuple[float, ...]
    residuals_m: tuple[float, ...]
    residual_px: float  # root mean square
    residual_m: float
    scale_sd_frac: float
    is_verified: bool

    def marks(self, survey: Survey) -> tuple[Mark, ...]:
        """Give the survey's points with their residuals."""
        offs = zip(survey.marks, self.residuals_px, self.residuals_m, strict=True)
        return tuple(replace(mark, residual_px=px, residual_m=m) for mark, px, m in offs)


def fit(survey: Survey) -> Fit:
    """Fit the ground plane to a survey.

    Raises:
        ConfigError: the points do not make a plane: too few, repeated, on one line, on both sides
            of the horizon, or against each other.
    """
    picture, places = _arrays(survey)
    _check_marks(survey, picture, places)
    plane = _Plane(survey, picture, places)
    parameters = plane.solve()
    matrix = plane.matrix(parameters)
    found = _measured(plane, parameters, matrix, survey)
    _check_residual(found, plane, parameters, places)
    return found


def reach(ground: Ground) -> tuple[float, float] | None:
    """Give how far the ground is told in the middle of the picture.

    Returns:
        The height in the picture, as a fraction, up to which a pixel is less than half a metre,
        and its distance in metres from the ground at the picture's lower edge; None where even
        that edge is too far.
    """
    nearest = ground.locate(0.5, 1.0)
    if nearest is None:
        return None
    sky, told = 0.0, 1.0
    for _ in range(40):
        middle = (sky + told) / 2
        if ground.locate(0.5, middle) is None:
            sky = middle
        else:
            told = middle
    farthest = ground.locate(0.5, told)
    if farthest is None:
        return None
    away = np.hypot(farthest.x_m - nearest.x_m, farthest.y_m - nearest.y_m)
    return told, float(away)


def distance_m(
    ground: Ground, first: tuple[float, float], last: tuple[float, float]
) -> float | None:
    """Give the length on the ground between two points of the picture; None above the horizon."""
    one, other = ground.project(*first), ground.project(*last)
    if one is None or other is None:
        return None
    return float(np.hypot(one[0] - other[0], one[1] - other[1]))


class Forward:
    """Ground to picture: the inverse of a `Ground`, for many points at once."""

    def __init__(self, ground: Ground) -> None:
        self._inverse = np.linalg.inv(np.array(ground.matrix).reshape(3, 3))
        self._k1 = ground.k1
        self._aspect = ground.width_px / ground.height_px

    def __call__(self, places: Floats) -> Floats:
        """Give picture fractions, N x 2, of places in metres, N x 2; not a number in the sky."""
        mapped = _homogeneous(places) @ self._inverse.T
        with np.errstate(divide="ignore", invalid="ignore"):
            free = np.where(mapped[:, 2:] > 0, mapped[:, :2] / mapped[:, 2:], np.nan)
        is_folded = 1.0 + 3.0 * self._k1 * np.sum(free * free, axis=1, keepdims=True) <= 0
        seen = _distorted(np.where(is_folded, np.nan, free), self._k1)
        return np.column_stack((seen[:, 0] + 0.5, seen[:, 1] * self._aspect + 0.5))


class _Plane:
    """The least-squares problem: parameters are a homography, ground to picture, and k1.

    The homography works between normalised coordinates, its last entry is 1: the middle of the
    points is not on the horizon.
    """

    def __init__(self, survey: Survey, picture: Floats, places: Floats) -> None:
        self.survey = survey
        self._width_px = survey.width_px
        self._picture, self._places = picture, places
        self._straights = [_widths(np.array(line), survey) for line in survey.straights]
        self._to_places = _normaliser(places)
        self._near = _applied(self._to_places, places)

    @property
    def has_lens(self) -> bool:
        """Whether k1 is fitted."""
        return bool(self._straights)

    def solve(self) -> Floats:
        """Give the parameters with the least squared distances in the picture."""
        k1 = self._start_k1()
        self._to_picture = _normaliser(_freed(self._picture, k1))
        start = self._direct(k1)
        return _least_squares(self._residuals, np.append(start, k1) if self.has_lens else start)

    def matrix(self, parameters: Floats) -> tuple[float, ...]:
        """Give picture to ground, with W positive at the points.

        Raises:
            ConfigError: the points stand on both sides of the horizon.
        """
        forward = np.linalg.inv(self._to_picture) @ _square(parameters) @ self._to_places
        back = np.asarray(np.linalg.inv(forward), dtype=np.float64)
        weights = _homogeneous(_freed(self._picture, self.k1(parameters))) @ back[2]
        back /= np.mean(weights)
        sky = np.flatnonzero(weights / np.mean(weights) <= 0)
        if sky.size:
            raise ConfigError(
                f"calibrate: point {self.survey.marks[sky[0]].name} would be above the"
                f" horizon{_culprit(parameters, self)}; allowed: points on the ground, each with"
                " its own place"
            )
        return tuple(float(item) for item in back.ravel())

    def k1(self, parameters: Floats) -> float:
        """Give the lens."""
        return float(parameters[_PARAMETERS]) if self.has_lens else 0.0

    def offsets_px(self, parameters: Floats) -> Floats:
        """Give where each point is predicted minus where it was seen, N x 2."""
        back: Floats = np.asarray(np.linalg.inv(self._to_picture), dtype=np.float64)
        free = _applied(back, _applied(_square(parameters), self._near))
        seen = _distorted(free, self.k1(parameters))
        offsets: Floats = (seen - self._picture) * self._width_px
        return offsets

    def scale_sd_frac(self, parameters: Floats) -> float:
        """Give the largest relative standard deviation of a length between the points."""
        offsets = self.offsets_px(parameters).ravel()
        free = offsets.size - _PARAMETERS
        noise_px = _UNKNOWN_SD_PX
        if free > 0:
            few = 1.0 + 1.3 / free + 2.2 / free**2  # Student's t over the normal, 97.5 %
            noise_px = max(_LEAST_SD_PX, float(np.sqrt(offsets @ offsets / free)) * few)
        slopes = _slopes(self._residuals, parameters)
        spread = np.linalg.pinv(slopes.T @ slopes) * noise_px**2
        lengths = self._lengths(parameters)
        rates = _slopes(self._lengths, parameters)
        sd = np.sqrt(np.einsum("ij,jk,ik->i", rates, spread, rates))
        long = lengths > np.median(lengths)
        return float(np.max(sd[long] / lengths[long])) if long.any() else 0.0

    def _lengths(self, parameters: Floats) -> Floats:
        back = np.linalg.inv(_square(parameters)) @ self._to_picture
        free = _freed(self._picture, self.k1(parameters))
        scale = self._to_places[0, 0]
        places = _applied(back, free) / scale
        pairs = np.array(list(combinations(range(len(places)), 2)))
        apart: Floats = np.linalg.norm(places[pairs[:, 0]] - places[pairs[:, 1]], axis=1)
        return apart

    def _residuals(self, parameters: Floats) -> Floats:
        k1 = self.k1(parameters)
        bends = [_bend(_freed(line, k1)) * self._width_px for line in self._straights]
        return np.concatenate((self.offsets_px(parameters).ravel(), *bends))

    def _start_k1(self) -> float:
        if not self.has_lens:
            return 0.0

        def bent(k1: float) -> float:
            return sum(float(np.sum(_bend(_freed(line, k1)) ** 2)) for line in self._straights)

        return min(_STARTS_K1, key=bent)

    def _direct(self, k1: float) -> Floats:
        """Give the direct linear transform between the normalised points."""
        near, seen = self._near, _applied(self._to_picture, _freed(self._picture, k1))
        rows = []
        for (x, y), (u, v) in zip(near, seen, strict=True):
            rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y, -u])
            rows.append([0, 0, 0, x, y, 1, -v * x, -v * y, -v])
        _, singular, right = np.linalg.svd(np.array(rows))
        condition = float(singular[0] / max(singular[_PARAMETERS - 1], 1e-12))
        if condition > MAX_CONDITION or abs(right[-1, -1]) < 1e-9:  # noqa: PLR2004 - zero
            raise ConfigError(
                f"calibrate: the points hardly tell a plane (condition {condition:.0f});"
                f" allowed: up to {MAX_CONDITION:.0f}; spread them over the ground"
            )
        first: Floats = right[-1, :_PARAMETERS] / right[-1, -1]
        return first


def _measured(plane: _Plane, parameters: Floats, matrix: tuple[float, ...], survey: Survey) -> Fit:
    k1 = plane.k1(parameters)
    if abs(k1) > MAX_K1:
        raise ConfigError(
            f"calibrate: the straights make a lens of k1 {k1:.2f}; allowed: -{MAX_K1} to {MAX_K1};"
            " give longer lines that are straight in reality"
        )
    ground = Ground("", matrix, k1, survey.width_px, survey.height_px, 0.0)
    residuals_m = np.array(
        [
            np.hypot(spot[0] - mark.x_m, spot[1] - mark.y_m)
            for mark in survey.marks
            if (spot := ground.project(mark.x, mark.y)) is not None
        ]
    )
    residuals_px = np.linalg.norm(plane.offsets_px(parameters), axis=1)
    return Fit(
        matrix,
        k1,
        tuple(map(float, residuals_px)),
        tuple(map(float, residuals_m)),
        _rms(residuals_px),
        _rms(residuals_m),
        min(1.0, plane.scale_sd_frac(parameters)),
        len(survey.marks) >= VERIFIED_FROM,
    )


def _check_marks(survey: Survey, picture: Floats, places: Floats) -> None:
    marks = survey.marks
    if len(marks) < LEAST:
        raise ConfigError(
            f"calibrate: {len(marks)} points; allowed: {LEAST} or more, and {VERIFIED_FROM} or"
            " more to know the error"
        )
    for one, other in combinations(range(len(marks)), 2):
        is_one_spot = np.linalg.norm(picture[one] - picture[other]) < _LEAST_PX_FRAC
        if is_one_spot or np.linalg.norm(places[one] - places[other]) < _LEAST_M:
            raise ConfigError(
                f"calibrate: points {marks[one].name} and {marks[other].name} are the same;"
                f" allowed: {_LEAST_PX_FRAC:.1%} of the width and {_LEAST_M:g} m apart"
            )
    if not _has_frame(picture, places):
        raise ConfigError(
            "calibrate: three of every four points are nearly on one line; allowed: four points, no"
            " three of them on one line"
        )


def _has_frame(picture: Floats, places: Floats) -> bool:
    """Whether four of the points make a frame: no three of them nearly on one line."""
    count = len(picture)
    thick = np.zeros((count, count, count), dtype=bool)
    for trio in combinations(range(count), 3):
        rows = list(trio)
        height, _ = _thinness(picture[rows])
        low, longest = _thinness(places[rows])
        thick[trio] = height >= _THIN_PICTURE and low >= _THIN_GROUND * longest
    return any(
        thick[a, b, c] and thick[a, b, d] and thick[a, c, d] and thick[b, c, d]
        for a, b, c, d in combinations(range(count), 4)
    )


def _thinness(corners: Floats) -> tuple[float, float]:
    """Give the least height of a triangle and its longest side."""
    one, other = corners[1] - corners[0], corners[2] - corners[0]
    longest = max(map(np.linalg.norm, (one, other, other - one)))
    doubled = abs(float(one[0] * other[1] - one[1] * other[0]))
    return doubled / max(float(longest), 1e-12), float(longest)


def _check_residual(found: Fit, plane: _Plane, parameters: Floats, places: Floats) -> None:
    span_m = max(float(np.linalg.norm(one - other)) for one, other in combinations(places, 2))
    if found.residual_m > MAX_RESIDUAL_FRAC * span_m:
        raise ConfigError(
            f"calibrate: the points are {found.residual_m:.2f} m off over {span_m:.1f} m"
            f"{_culprit(parameters, plane)}; allowed: up to {MAX_RESIDUAL_FRAC:.0%} of the span"
        )


def _culprit(parameters: Floats, plane: _Plane) -> str:
    """Name the point without which the others agree, if there is one."""
    survey = plane.survey
    if len(survey.marks) < VERIFIED_FROM:
        return ""
    before_px = _rms(np.linalg.norm(plane.offsets_px(parameters), axis=1))
    left_px, index = min((_without(index, survey), index) for index in range(len(survey.marks)))
    if left_px * _LEFT_OUT_HELPS >= before_px:
        return ""
    return f": point {survey.marks[index].name} does not fit the others"


def _without(index: int, survey: Survey) -> float:
    """Give the residual in pixels that the other points leave."""
    marks = tuple(mark for number, mark in enumerate(survey.marks) if number != index)
    rest = replace(survey, marks=marks)
    plane = _Plane(rest, *_arrays(rest))
    try:
        return _rms(np.linalg.norm(plane.offsets_px(plane.solve()), axis=1))
    except ConfigError:
        return math.inf


def _least_squares(residuals: Callable[[Floats], Floats], start: Floats) -> Floats:
    """Give the parameters of the least sum of squares (Levenberg-Marquardt, A6.2)."""
    parameters, damping = start, _DAMPING
    here = residuals(parameters)
    for _ in range(_MAX_ROUNDS):
        slopes = _slopes(residuals, parameters)
        normal, pull = slopes.T @ slopes, slopes.T @ here
        step = np.linalg.lstsq(normal + damping * np.diag(np.diag(normal)), -pull, rcond=None)[0]
        there = residuals(parameters + step)
        before, after = float(here @ here), float(there @ there)
        if after < before:
            gain = 1.0 - after / before
            parameters, here = parameters + step, there
            damping = max(damping / 10, 1e-12)
            if gain < 1e-10:  # noqa: PLR2004 - no change worth a round
                break
        else:
            damping *= 10
            if damping > _MAX_DAMPING:
                break
    return parameters


def _slopes(values: Callable[[Floats], Floats], parameters: Floats) -> Floats:
    columns = []
    for index in range(len(parameters)):
        step = np.zeros_like(parameters)
        step[index] = _STEP * max(1.0, abs(parameters[index]))
        columns.append((values(parameters + step) - values(parameters - step)) / (2 * step[index]))
    return np.column_stack(columns)


def _arrays(survey: Survey) -> tuple[Floats, Floats]:
    """Give the points in picture widths from the middle, and their places in metres."""
    seen = np.array([(mark.x, mark.y) for mark in survey.marks], dtype=np.float64).reshape(-1, 2)
    places = np.array([(mark.x_m, mark.y_m) for mark in survey.marks], dtype=np.float64)
    return _widths(seen, survey), places.reshape(-1, 2)


def _widths(fractions: Floats, survey: Survey) -> Floats:
    aspect = survey.height_px / survey.width_px
    return np.column_stack((fractions[:, 0] - 0.5, (fractions[:, 1] - 0.5) * aspect))


def _square(parameters: Floats) -> Floats:
    return np.append(parameters[:_PARAMETERS], 1.0).reshape(3, 3)


def _homogeneous(points: Floats) -> Floats:
    return np.column_stack((points, np.ones(len(points))))


def _applied(matrix: Floats, points: Floats) -> Floats:
    mapped = _homogeneous(points) @ matrix.T
    result: Floats = mapped[:, :2] / mapped[:, 2:]
    return result


def _normaliser(points: Floats) -> Floats:
    """Give the similarity that brings points to mean 0 and mean distance sqrt 2 (4.4.4)."""
    middle = points.mean(axis=0)
    scale = np.sqrt(2) / np.linalg.norm(points - middle, axis=1).mean()
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1.0]])


def _distorted(free: Floats, k1: float) -> Floats:
    result: Floats = free * (1.0 + k1 * np.sum(free * free, axis=1, keepdims=True))
    return result


def _freed(seen: Floats, k1: float) -> Floats:
    free = seen
    for _ in range(_ROUNDS_K1 if k1 else 0):
        free = seen / (1.0 + k1 * np.sum(free * free, axis=1, keepdims=True))
    return free


def _bend(line: Floats) -> Floats:
    """Give the signed distances of points from the line through them that fits best."""
    away = line - line.mean(axis=0)
    normal = np.linalg.svd(away)[2][1]
    chord = line[-1] - line[0]
    sign = 1.0 if normal @ np.array([-chord[1], chord[0]]) >= 0 else -1.0
    distances: Floats = sign * (away @ normal)
    return distances


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values * values)))
