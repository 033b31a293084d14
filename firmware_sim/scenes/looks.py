"""What a detector says of a scene: trembling boxes, misses, weak scores, ghosts, lost pictures.

Boxes tremble with two parts, one new at every look and one that drifts within a third of a second;
misses come alone and in bursts. All from one seed; a look at the same time and seed is the same
whatever came before it only for the same rate and drops.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim.scenes.pinhole import Floats
from firmware_sim.scenes.stage import Bools, Scene, cast, cut

_DRIFT_S: Final = 0.35
_FIRST_S: Final = 0.013  # the first picture: not on the scene's own grid
_GHOST_H: Final = (0.05, 0.25)  # of the picture
_LABELS: Final = ("person", "vehicle")


@dataclass(frozen=True, slots=True)
class Noise:
    """How badly the detector sees; shares and rates, boxes in fractions of the picture."""

    floor_frac: float = 0.0008  # trembling of an edge, standard deviation
    size_frac: float = 0.02  # the same, of the box's size: added to the floor
    miss_share: float = 0.05
    burst_per_s: float = 0.02
    burst_s: float = 0.8  # mean length
    score_mean: float = 0.72
    score_sd: float = 0.12
    weak_share: float = 0.08  # looks at which the score is low
    ghost_per_look: float = 0.01


NOISELESS: Final = Noise(0.0, 0.0, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Seen:
    """One box that the detector gives; `actor` is None for a ghost."""

    label: str
    score: float
    box: tuple[float, float, float, float]  # left, top, width, height
    actor: int | None


@dataclass(frozen=True, slots=True)
class Look:
    """One picture that was looked at; strongest boxes first."""

    t_us: int
    seen: tuple[Seen, ...]


def look_times_us(scene: Scene, fps: float, drop_share: float = 0.0) -> list[int]:
    """Give the moments of the pictures that arrive."""
    dice = np.random.default_rng([scene.seed, 1, round(fps * 1000), round(drop_share * 1000)])
    count = int((scene.seconds - _FIRST_S) * fps) + 1
    kept = dice.random(count) >= drop_share
    kept[0] = True
    return [round((_FIRST_S + index / fps) * 1e6) for index in range(count) if kept[index]]


def looks(
    scene: Scene, fps: float, *, drop_share: float = 0.0, noise: Noise | None = None
) -> list[Look]:
    """Give all that the detector says of a scene at this rate."""
    noise = Noise() if noise is None else noise
    times_us = look_times_us(scene, fps, drop_share)
    t_s = np.array(times_us) / 1e6
    dice = np.random.default_rng([scene.seed, 2, round(fps * 1000), round(drop_share * 1000)])
    shown = cast(scene, t_s)
    given = shown.is_seen.copy()
    boxes = shown.boxes.copy()
    scores = np.zeros(given.shape)
    for row in range(len(boxes)):
        boxes[row] = _trembling(dice, boxes[row], t_s, noise)
        given[row] &= ~_missed(dice, t_s, shown.hidden_frac[row], noise)
        scores[row] = _scores(dice, len(t_s), noise)
    found = []
    for column, t_us in enumerate(times_us):
        seen = [
            Seen(
                scene.actors[row].label,
                round(float(scores[row, column]), 3),
                _rounded(boxes[row, column]),
                row,
            )
            for row in np.flatnonzero(given[:, column]).tolist()
        ]
        seen += _ghosts(dice, noise)
        found.append(Look(t_us, tuple(sorted(seen, key=lambda item: -item.score))))
    return found


def _rounded(box: Floats) -> tuple[float, float, float, float]:
    left, top, width, height = (round(float(part), 5) for part in box)
    return left, top, width, height


def _trembling(dice: np.random.Generator, boxes: Floats, t_s: Floats, noise: Noise) -> Floats:
    """Move each edge, half of the power new at every look and half drifting."""
    fresh = dice.standard_normal((len(t_s), 4))
    drift = np.empty_like(fresh)
    kicks = dice.standard_normal((len(t_s), 4))
    drift[:1] = kicks[:1]
    keep = np.exp(-np.diff(t_s) / _DRIFT_S)
    for column in range(1, len(t_s)):
        kept = keep[column - 1]
        drift[column] = kept * drift[column - 1] + math.sqrt(1 - kept * kept) * kicks[column]
    sd = noise.floor_frac + noise.size_frac * np.tile(boxes[:, 2:], 2)
    moved = (fresh + drift) * sd / math.sqrt(2)
    first = boxes[:, :2] + moved[:, :2]
    last = boxes[:, :2] + boxes[:, 2:] + moved[:, 2:]
    size = np.maximum(last - first, 0.25 * boxes[:, 2:])
    return cut(np.concatenate((first, size), axis=-1))


def _missed(dice: np.random.Generator, t_s: Floats, hidden_frac: Floats, noise: Noise) -> Bools:
    """Tell the looks at which it is not found: the more it is hidden, the more often."""
    alone = dice.random(len(t_s)) < noise.miss_share * (1.0 + 6.0 * hidden_frac)
    missed = np.asarray(alone)
    if noise.burst_per_s and len(t_s):
        count = int(dice.poisson(noise.burst_per_s * float(t_s[-1])))
        for begin in dice.uniform(0.0, float(t_s[-1]), count):
            missed |= (t_s >= begin) & (t_s < begin + dice.exponential(noise.burst_s))
    return missed


def _scores(dice: np.random.Generator, count: int, noise: Noise) -> Floats:
    strong = np.clip(dice.normal(noise.score_mean, noise.score_sd, count), 0.42, 0.99)
    weak = dice.uniform(0.21, 0.39, count)
    return np.where(dice.random(count) < noise.weak_share, weak, strong)


def _ghosts(dice: np.random.Generator, noise: Noise) -> list[Seen]:
    if dice.random() >= noise.ghost_per_look:
        return []
    height = float(dice.uniform(*_GHOST_H))
    width = height * float(dice.uniform(0.3, 1.0))
    left, top = float(dice.uniform(0, 1 - width)), float(dice.uniform(0, 1 - height))
    box = (round(left, 5), round(top, 5), round(width, 5), round(height, 5))
    score = round(float(dice.uniform(0.4, 0.65)), 3)
    return [Seen(_LABELS[int(dice.integers(2))], score, box, None)]
