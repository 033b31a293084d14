"""What truly happened in a scene, as docs/ANALYTICS.md defines it for a perfect observer.

An implementation of its own, over whole paths at once, that shares nothing with the rules. Every
scene is told three times: as the definitions stand, and by a margin (`told`) harder and easier. An
event that is not in all three is a coin flip and marked doubtful.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from firmware_sim.scenes import truth_ground, truth_still, truth_ways, truth_zones
from firmware_sim.scenes.stage import Scene, sample
from firmware_sim.scenes.told import Case, Truth

TELLERS: Final = {
    **truth_zones.TELLERS,
    **truth_ways.TELLERS,
    **truth_still.TELLERS,
    **truth_ground.TELLERS,
}
KINDS: Final = tuple(TELLERS)

_SAME_S: Final = 2.0  # starts of one event in two readings
_NO_OBJECTS: Final = ("crowd", "congestion")  # known by their time alone


def truth_of(scene: Scene) -> list[Truth]:
    """Give a scene's events in the order of their starts, the doubtful ones marked."""
    case = Case(sample(scene), scene.rule, scene.zones, scene.lines)
    return truth_in(scene.kind, case)


def truth_in(kind: str, case: Case) -> list[Truth]:
    """Give the events of one observed scene."""
    tell = TELLERS[kind]
    plain = tell(case)
    if kind == "counting":  # its totals carry their own doubts
        return plain
    readings = [tell(case.leaning(side)) for side in (1, -1)]
    found = [
        replace(item, is_doubtful=not all(_has(reading, item) for reading in readings))
        for item in plain
    ]
    for reading in readings:
        for item in reading:
            if not _has(found, item):
                found.append(replace(item, is_doubtful=True))
    return sorted(found, key=lambda item: (item.start_s, item.objects))


def _has(reading: Sequence[Truth], wanted: Truth) -> bool:
    return any(
        abs(item.start_s - wanted.start_s) <= _SAME_S
        and (wanted.kind in _NO_OBJECTS or item.objects == wanted.objects)
        for item in reading
    )
