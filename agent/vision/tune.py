"""Alarms a day of every rule at every sensitivity, counted on recorded track logs.

All of them run over the log at once: a rule's variants are rules of their own beside it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from agent.core.clock import Clock
from agent.core.config import Kinded
from agent.core.model import Event, EventState
from agent.vision.analytics import Ground, RuleConfig
from agent.vision.analytics._contract import BY_SENSITIVITY
from agent.vision.config import CameraConfig
from agent.vision.replay import Extent, Replay
from agent.vision.tracklog import Item

LEVELS: Final = (1, 2, 3, 4, 5)
PRESENT: Final = "present"
FEW_HOURS: Final = 24.0

_HOURS_A_DAY: Final = 24
_MARK: Final = "@"  # no name of a rule holds it


@dataclass(frozen=True, slots=True)
class Row:
    """One rule."""

    rule: str
    kind: str
    keys: str  # what the sensitivity sets, with its present value; empty where it sets nothing
    events: Mapping[str, int]  # level or PRESENT to how many in the log


@dataclass(frozen=True, slots=True)
class Table:
    """What the log says of every rule."""

    rows: Sequence[Row]
    extent: Extent

    def a_day(self, row: Row, level: str) -> float | None:
        """Give alarms a day; None where the level changes nothing or nothing was seen."""
        if level not in row.events or not self.extent.hours:
            return None
        return row.events[level] * _HOURS_A_DAY / self.extent.hours


def tune(camera: CameraConfig, ground: Ground | None, items: Iterable[Item], clock: Clock) -> Table:
    """Count what each rule of a camera would have told at each sensitivity.

    Args:
        camera: whose rules.
        ground: its calibration, if it has one.
        items: of its track logs, in order.
        clock: ids of events.
    """
    variants = tuple(item for rule in camera.rules for item in _variants(rule))
    replay = Replay(replace(camera, rules=variants), ground, clock)
    counts = Counter(event.rule for event in replay.events(items) if _is_alarm(event))
    return Table([_row(rule, counts) for rule in camera.rules], replay.extent)


def _variants(rule: Kinded) -> list[Kinded]:
    settings: RuleConfig = rule.settings
    found = [Kinded(rule.kind, replace(settings, name=_name(settings, PRESENT)))]
    if not settings.LEVELS:
        return found
    chosen_by_level = dict.fromkeys(settings.LEVELS, BY_SENSITIVITY)
    for level in LEVELS:
        name = _name(settings, str(level))
        changed = replace(settings, name=name, sensitivity=level, **chosen_by_level)  # type: ignore[arg-type]
        found.append(Kinded(rule.kind, changed))
    return found


def _row(rule: Kinded, counts: Counter[str]) -> Row:
    settings: RuleConfig = rule.settings
    levels = [PRESENT, *(map(str, LEVELS) if settings.LEVELS else ())]
    keys = ", ".join(f"{key} {getattr(settings, key):g}" for key in settings.LEVELS)
    return Row(
        settings.name,
        rule.kind,
        keys,
        {level: counts[_name(settings, level)] for level in levels},
    )


def _name(settings: RuleConfig, level: str) -> str:
    return f"{settings.name}{_MARK}{level}"


def _is_alarm(event: Event) -> bool:
    """Whether it is told for the first time, and no mere report."""
    return event.state is EventState.OPEN
