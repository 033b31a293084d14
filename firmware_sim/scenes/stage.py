"""A scene: who moves where before which camera, and what a perfect observer sees of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firmware_sim.scenes.paths import Aside, Pace, Way
from firmware_sim.scenes.pinhole import Camera, Floats

Bools = NDArray[np.bool_]
Ints = NDArray[np.intp]
Polygon = tuple[tuple[float, float], ...]
Segment = tuple[tuple[float, float], tuple[float, float]]

PERSON: Final = (0.5, 1.75, 0.0)  # width, height, length in metres
CAR: Final = (1.8, 1.5, 4.4)
STEP_S: Final = 0.02  # of the truth's samples; moments are interpolated between them

_MIN_IN_PICTURE: Final = 0.5  # of a box: with less the detector says nothing
_MIN_HEIGHT_FRAC: Final = 0.02
_EDGE: Final = 0.005
_HIDDEN_FRAC: Final = 0.7  # of a box behind nearer ones: it is not seen


@dataclass(frozen=True, slots=True)
class Actor:
    """One object: what it is, where it goes, and when it is there at all."""

    label: str
    body_m: tuple[float, float, float]  # width, height, length
    way: Way
    pace: Pace
    aside: Aside = field(default_factory=Aside)
    appears_s: float = -math.inf  # out of a door, from behind a wall
    vanishes_s: float = math.inf
    hidden: tuple[tuple[float, float], ...] = ()  # behind something that is no object: from, to
    plot: str = ""  # what it does, for a person who looks for the reason of a failure

    def places(self, t_s: Floats) -> tuple[Floats, Floats]:
        """Give where its middle is on the ground (n, 2), and which way it points (n, 2)."""
        gone = self.pace.at(t_s)
        heading = self.way.heading(gone)
        left = np.stack((-heading[:, 1], heading[:, 0]), axis=-1)
        return self.way.at(gone) + left * self.aside.at(t_s)[:, None], heading

    def boxes(self, camera: Camera, t_s: Floats) -> Floats:
        """Give its boxes (n, 4), not cut to the picture; nan where it is behind the camera."""
        place, heading = self.places(t_s)
        if self.label == "person":
            heading = place / np.maximum(np.hypot(*place.T), 1e-6)[:, None]
        return _boxes(camera, place, heading, self.body_m)

    def is_there(self, t_s: Floats) -> Bools:
        """Tell at which times it is there and nothing of the scenery hides it."""
        there = (t_s >= self.appears_s) & (t_s < self.vanishes_s)
        for begin, end in self.hidden:
            there &= ~((t_s >= begin) & (t_s < end))
        return np.asarray(there)


@dataclass(frozen=True, slots=True)
class Mark:
    """A measured point of the ground, and where a person clicked on it."""

    x: float
    y: float
    x_m: float
    y_m: float


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens before one camera, and the rule that watches it."""

    kind: str
    seed: int
    seconds: float
    camera: Camera
    actors: tuple[Actor, ...]
    rule: Mapping[str, object]  # keys of the rule's configuration, without name
    zones: Mapping[str, Polygon] = field(default_factory=dict)
    lines: Mapping[str, Segment] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    straights: tuple[tuple[tuple[float, float], ...], ...] = ()
    switches: tuple[tuple[float, int], ...] = ()  # s, actor: it gets a new id
    swaps: tuple[tuple[float, int, int], ...] = ()  # s, two actors: they change ids


@dataclass(frozen=True, slots=True)
class Sampled:
    """A scene as arrays over actors (n) and time (t): what the truth is told from."""

    t_s: Floats  # (t,)
    labels: tuple[str, ...]
    feet: Floats  # (n, t, 2) fractions of the picture
    is_seen: Bools  # (n, t)
    ground_m: Floats  # (n, t, 2)
    is_whole: Bools | None = None  # (n, t) no edge of the picture but the upper one cuts its box


@dataclass(frozen=True, slots=True)
class Cast:
    """All actors at some times: boxes cut to the picture, and how much of each is hidden."""

    boxes: Floats  # (n, t, 4) left, top, width, height
    is_shown: Bools  # (n, t) there and enough of it in the picture
    hidden_frac: Floats  # (n, t) by nearer actors
    ground_m: Floats  # (n, t, 2)

    @property
    def is_seen(self) -> Bools:
        """Whether a perfect observer sees it."""
        return np.asarray(self.is_shown & (self.hidden_frac < _HIDDEN_FRAC))


def cast(scene: Scene, t_s: Floats) -> Cast:
    """Give every actor's box at these times."""
    count = len(scene.actors)
    boxes = np.zeros((count, len(t_s), 4))
    is_shown = np.zeros((count, len(t_s)), dtype=bool)
    ground = np.zeros((count, len(t_s), 2))
    for row, actor in enumerate(scene.actors):
        ground[row], _ = actor.places(t_s)
        whole = actor.boxes(scene.camera, t_s)
        boxes[row] = cut(whole)
        area = np.maximum(whole[:, 2] * whole[:, 3], 1e-12)
        share = boxes[row, :, 2] * boxes[row, :, 3] / area
        is_tall = boxes[row, :, 3] >= _MIN_HEIGHT_FRAC
        is_shown[row] = actor.is_there(t_s) & (share >= _MIN_IN_PICTURE) & is_tall
    return Cast(boxes, is_shown, _hidden(boxes, is_shown, np.hypot(*ground.T).T), ground)


def sample(scene: Scene, step_s: float = STEP_S) -> Sampled:
    """Give the scene as the perfect observer sees it, every `step_s`."""
    t_s = np.arange(0.0, scene.seconds + step_s / 2, step_s)
    seen = cast(scene, t_s)
    feet = np.stack(
        (seen.boxes[..., 0] + seen.boxes[..., 2] / 2, seen.boxes[..., 1] + seen.boxes[..., 3]),
        axis=-1,
    )
    labels = tuple(actor.label for actor in scene.actors)
    last = seen.boxes[..., :2] + seen.boxes[..., 2:]
    is_whole = (
        (seen.boxes[..., 0] > _EDGE) & (last[..., 0] < 1 - _EDGE) & (last[..., 1] < 1 - _EDGE)
    )
    return Sampled(t_s, labels, feet, seen.is_seen, seen.ground_m, is_whole)


def cut(boxes: Floats) -> Floats:
    """Give boxes (..., 4) cut to the picture; without area where nothing is left."""
    first = np.clip(np.nan_to_num(boxes[..., :2]), 0.0, 1.0)
    last = np.clip(np.nan_to_num(boxes[..., :2] + boxes[..., 2:]), 0.0, 1.0)
    return np.concatenate((first, np.maximum(last - first, 0.0)), axis=-1)


def _boxes(
    camera: Camera, place: Floats, heading: Floats, body_m: tuple[float, float, float]
) -> Floats:
    width, height, length = body_m
    left = np.stack((-heading[:, 1], heading[:, 0]), axis=-1)
    corners = np.zeros((len(place), 8, 3))
    row = 0
    for along in (-length / 2, length / 2):
        for across in (-width / 2, width / 2):
            corners[:, row : row + 2, :2] = (place + along * heading + across * left)[:, None]
            corners[:, row + 1, 2] = height
            row += 2
    seen = camera.project(corners)
    first, last = seen.min(axis=1), seen.max(axis=1)
    return np.concatenate((first, last - first), axis=-1)


def _hidden(boxes: Floats, is_shown: Bools, away_m: Floats) -> Floats:
    """Give the share of each box that nearer ones cover, at most 1; overlaps count twice."""
    first, last = boxes[..., :2], boxes[..., :2] + boxes[..., 2:]
    area = np.maximum(boxes[..., 2] * boxes[..., 3], 1e-12)
    covered = np.zeros(is_shown.shape)
    for row in range(len(boxes)):
        near = is_shown & is_shown[row] & (away_m < away_m[row])
        near[row] = False
        others = np.flatnonzero(near.any(axis=1))
        shared = np.minimum(last[others], last[row]) - np.maximum(first[others], first[row])
        shared = np.maximum(shared, 0.0).prod(axis=-1) * near[others]
        covered[row] = shared.sum(axis=0) / area[row]
    return np.minimum(covered, 1.0)
