"""One scene for a kind of rule and a seed, with what can go wrong between detector and rule."""

from dataclasses import replace
from typing import Final

import numpy as np

from firmware_sim.scenes import people, vehicles
from firmware_sim.scenes.people import Script
from firmware_sim.scenes.stage import Actor, Mark, Scene, sample
from firmware_sim.scenes.studio import GANTRY, MAST, WALL, Studio

SHORTEST_S: Final = 20.0
LONGEST_S: Final = 120.0

_AFTER_S: Final = 4.0  # the scene goes on after the last one has gone
_SWITCH_SHARE: Final = 0.35  # of actors that get a new id once
_NEAR_FRAC: Final = 0.03  # feet so close may change ids
_SWAP_SHARE: Final = 0.3
_CLICK_PX: Final = 0.7  # error of a person who marks a point
_GRID_S: Final = 0.2


def scene_for(kind: str, seed: int) -> Scene:
    """Give the scene of a kind of rule for a seed; the same for ever.

    Raises:
        KeyError: there is no script for such a kind.
    """
    is_of_people = kind in people.SCRIPTS
    script_for = people.SCRIPTS[kind] if is_of_people else vehicles.SCRIPTS[kind]
    number = sorted((*people.SCRIPTS, *vehicles.SCRIPTS)).index(kind)
    dice = np.random.default_rng([seed, 0, number])
    mast = WALL if is_of_people else GANTRY if kind == "congestion" else MAST
    camera = mast.camera(dice)
    studio = Studio(dice, camera)
    script = script_for(studio)
    plain = Scene(
        kind,
        seed,
        script.seconds or _ends_s(script),
        camera,
        tuple(script.actors),
        {"kind": kind, **script.rule},
        script.zones,
        script.lines,
        marks(studio),
        straights(studio),
    )
    return _with_id_faults(studio, plain)


def _ends_s(script: Script) -> float:
    """Give the end of the last walk, or of the last drive past the picture."""
    last = max(_gone_s(actor) for actor in script.actors)
    return min(max(last + _AFTER_S, SHORTEST_S), LONGEST_S)


def _gone_s(actor: Actor) -> float:
    if np.isfinite(actor.vanishes_s):
        return actor.vanishes_s
    return actor.pace.reaches_s(actor.way.length_m)


def marks(studio: Studio) -> tuple[Mark, ...]:
    """Give measured points on the ground, well spread over the lower part of the picture."""
    camera = studio.camera
    found = []
    for y in (0.42, 0.58, 0.74, 0.92):
        for x in (0.12, 0.5, 0.88):
            place = camera.ground(x, y)
            off_x = studio.dice.normal(0, _CLICK_PX) / camera.width_px
            off_y = studio.dice.normal(0, _CLICK_PX) / camera.height_px
            found.append(Mark(x + float(off_x), y + float(off_y), *place))
    return tuple(found)


def straights(studio: Studio) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Give points on pictures of lines that are straight in the world, for the lens."""
    camera = studio.camera
    found = []
    for (x0, y0), (x1, y1) in (
        ((0.08, 0.5), (0.92, 0.46)),
        ((0.06, 0.93), (0.94, 0.9)),
        ((0.1, 0.45), (0.08, 0.93)),
        ((0.9, 0.45), (0.92, 0.93)),
    ):
        first, last = np.array(camera.ground(x0, y0)), np.array(camera.ground(x1, y1))
        shares = np.linspace(0.0, 1.0, 7)[:, None]
        seen = camera.project(np.hstack((first + shares * (last - first), np.zeros((7, 1)))))
        found.append(tuple((float(x), float(y)) for x, y in seen))
    return tuple(found)


def _with_id_faults(studio: Studio, scene: Scene) -> Scene:
    """Add moments at which objects get a new id, and at which near ones change theirs."""
    seen = sample(scene, _GRID_S)
    switches, swaps = [], []
    for row in range(len(scene.actors)):
        there = np.flatnonzero(seen.is_seen[row])
        if len(there) and studio.is_so(_SWITCH_SHARE):
            at = int(there[studio.whole(0, len(there) - 1)])
            switches.append((float(seen.t_s[at]), row))
        for other in range(row):
            both = seen.is_seen[row] & seen.is_seen[other]
            away = np.hypot(*(seen.feet[row] - seen.feet[other]).T)
            near = np.where(both, away, np.inf)
            if near.min() < _NEAR_FRAC and studio.is_so(_SWAP_SHARE):
                swaps.append((float(seen.t_s[int(near.argmin())]), row, other))
    return replace(scene, switches=tuple(sorted(switches)), swaps=tuple(sorted(swaps)))
