"""What goes, in which order and why, when the box needs room: a pure decision over its stock.

First what has had its days, then what is over its kind's share. If the disk's share is exceeded
all the same: clips that the centre has signed for (never before their least time here), exports,
what lies in quarantine past its days; then the recordings shrink to their floor; then new clips
of low severity are refused. A clip without a receipt never goes, nor what a hold or a pin guards.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SPARE_SHARE = 0.01  # of the share of the disk: it is kept so far below, and so much more goes
AGAIN_FACTOR = 1.25  # clips are taken again once there is so much more room than they need
SEVERITIES = ("info", "warning", "alarm")  # of events, the first one refused first


class Kind(StrEnum):
    """What lies on the disk; those of `GOING` in the order in which they go."""

    RECEIPTED = "receipted clip"
    EXPORT = "export"
    QUARANTINE = "file in quarantine"
    CLIP = "clip without a receipt"
    SPOOL = "picture of an event"
    DATABASE = "database"
    OTHER = "other file"


GOING = (Kind.RECEIPTED, Kind.EXPORT, Kind.QUARANTINE)
"""All that a plan may delete."""


class Action(StrEnum):
    """What is done."""

    DELETE = "delete"
    SHRINK = "shrink"  # the oldest recordings go
    REFUSE = "refuse"  # new clips of a severity


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on the disk."""

    kind: Kind
    name: str  # by which it is found again
    size_bytes: int
    age_s: float  # since it was sealed, exported or set aside
    guard: str = ""  # why it must stay, in words; empty: nothing keeps it


@dataclass(frozen=True, slots=True)
class Rule:
    """How long a kind stays and how much of it."""

    least_s: float = 0.0  # it never goes before
    most_s: float = math.inf  # it goes after that in any case
    most_bytes: int = sys.maxsize


@dataclass(frozen=True, slots=True)
class Rules:
    """What may stay."""

    max_bytes: int = sys.maxsize  # of all together
    kinds: Mapping[Kind, Rule] = field(default_factory=dict)
    recordings_least_bytes: int = 0  # they never shrink below
    clips_share: float = 0.1  # of all: below it clips of `info` are refused, below half `warning`


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is on one disk."""

    items: tuple[Item, ...]
    recordings_bytes: int
    recordings_kept_bytes: int = 0  # of these: a hold, a clip or an open event needs them
    coming_bytes: int = 0  # of clips that are wanted and not yet made
    free_bytes: int = sys.maxsize
    reserve_bytes: int = 0  # of the disk, to be left free

    @property
    def used_bytes(self) -> int:
        """All together."""
        return self.recordings_bytes + sum(item.size_bytes for item in self.items)

    def share_bytes(self, rules: Rules) -> int:
        """Give what all together may take: by the rules, and so that the reserve stays free."""
        by_disk = self.used_bytes + self.free_bytes - self.reserve_bytes
        return max(0, min(rules.max_bytes, by_disk))


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    action: Action
    kind: str  # of an item; `recordings`, `clips`
    name: str
    size_bytes: int
    rule: str  # days, share, room
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what is then still lacking."""

    steps: tuple[Step, ...]
    share_bytes: int
    used_bytes: int  # before it
    recordings_max_bytes: int  # what the recording loop may keep
    headroom_bytes: int  # for more clips without receipts, once all that may go is gone
    refused: int  # so many of `SEVERITIES` are refused, from the first
    lacking_bytes: int = 0
    lacking_reason: str = ""

    @property
    def frees_bytes(self) -> int:
        """What the steps give back."""
        return sum(step.size_bytes for step in self.steps)


def plan(stock: Stock, rules: Rules, refused: int = 0) -> Plan:
    """Decide what goes.

    Args:
        stock: what there is.
        rules: what may stay.
        refused: how many severities the plan before refused; they come back a little later.
    """
    share_bytes = stock.share_bytes(rules)
    limit_bytes = round(share_bytes * (1 - SPARE_SHARE))
    steps = _by_days(stock, rules)
    steps |= _over_shares(stock, rules, steps)
    wanted_bytes = _excess(stock, share_bytes, steps)
    steps |= _for_room(stock, rules, steps, wanted_bytes)
    left_bytes = stock.used_bytes - _total(steps.values())
    floor_bytes = max(rules.recordings_least_bytes, stock.recordings_kept_bytes)
    shrink_bytes = 0
    if left_bytes > limit_bytes:
        most_bytes = max(0, stock.recordings_bytes - floor_bytes)
        shrink_bytes = min(left_bytes - limit_bytes, most_bytes)
    stays_bytes = sum(item.size_bytes for item in stock.items if not _may_go(item, rules))
    headroom_bytes = limit_bytes - stays_bytes - floor_bytes - stock.coming_bytes
    level = refused_severities(headroom_bytes, round(share_bytes * rules.clips_share), refused)
    lacking_bytes = max(0, left_bytes - shrink_bytes - limit_bytes)
    return Plan(
        steps=(*steps.values(), *_shrinking(shrink_bytes), *_refusing(level, headroom_bytes)),
        share_bytes=share_bytes,
        used_bytes=stock.used_bytes,
        recordings_max_bytes=max(floor_bytes, limit_bytes - stays_bytes),
        headroom_bytes=headroom_bytes,
        refused=level,
        lacking_bytes=lacking_bytes,
        lacking_reason=_lack(stock, rules) if lacking_bytes else "",
    )


def in_turn(stock: Stock, rules: Rules) -> list[Item]:
    """Give what may go now, in the order in which it would for want of room."""
    return [item for item in _ordered(stock.items) if _may_go(item, rules)]


def refused_severities(headroom_bytes: int, kept_bytes: int, before: int = 0) -> int:
    """Say how many severities are refused, from `info`.

    Args:
        headroom_bytes: room for more clips.
        kept_bytes: of it, kept for clips above `info`; half of that for alarms.
        before: how many were refused up to now.
    """
    least_bytes = (kept_bytes, kept_bytes // 2, 1)
    level = 0
    for number, least in enumerate(least_bytes, start=1):
        wanted = least * AGAIN_FACTOR if number <= before else least
        if headroom_bytes < wanted:
            level = number
    return level


def _by_days(stock: Stock, rules: Rules) -> dict[Item, Step]:
    return {
        item: _delete(item, "days", f"{_days(item.age_s)} old; kept: {_days(rule.most_s)}")
        for item in _ordered(stock.items)
        if _may_go(item, rules) and item.age_s > (rule := _rule(item, rules)).most_s
    }


def _over_shares(stock: Stock, rules: Rules, gone: Mapping[Item, Step]) -> dict[Item, Step]:
    steps = {}
    for kind in GOING:
        most_bytes = rules.kinds.get(kind, Rule()).most_bytes
        ours = [item for item in _ordered(stock.items) if item.kind is kind and item not in gone]
        total_bytes = sum(item.size_bytes for item in ours)
        for item in ours:
            if total_bytes <= most_bytes:
                break
            if _may_go(item, rules):
                steps[item] = _delete(item, "share", f"more than {most_bytes} bytes of its kind")
                total_bytes -= item.size_bytes
    return steps


def _for_room(
    stock: Stock, rules: Rules, gone: Mapping[Item, Step], wanted_bytes: int
) -> dict[Item, Step]:
    steps: dict[Item, Step] = {}
    for item in in_turn(stock, rules):
        if wanted_bytes <= 0:
            break
        if item not in gone and item.size_bytes:
            steps[item] = _delete(item, "room", "the disk's share is used up")
            wanted_bytes -= item.size_bytes
    return steps


def _excess(stock: Stock, share_bytes: int, gone: Mapping[Item, Step]) -> int:
    """Give what must go for room: nothing, or a little more than what is too much."""
    left_bytes = stock.used_bytes - _total(gone.values())
    if left_bytes <= round(share_bytes * (1 - SPARE_SHARE)):
        return 0
    return left_bytes - round(share_bytes * (1 - 2 * SPARE_SHARE))


def _shrinking(size_bytes: int) -> list[Step]:
    if not size_bytes:
        return []
    reason = "clips without a receipt need the room"
    return [Step(Action.SHRINK, "recordings", "", size_bytes, "room", reason)]


def _refusing(level: int, headroom_bytes: int) -> list[Step]:
    reason = f"room for {max(0, headroom_bytes)} bytes of clips is left"
    return [Step(Action.REFUSE, "clips", name, 0, "room", reason) for name in SEVERITIES[:level]]


def _lack(stock: Stock, rules: Rules) -> str:
    """Say what takes the room and may not go."""
    guarded: dict[str, int] = {"recordings": stock.recordings_bytes}
    for item in stock.items:
        if not _may_go(item, rules):
            guarded[item.kind] = guarded.get(item.kind, 0) + item.size_bytes
    largest = sorted(guarded.items(), key=lambda pair: (-pair[1], pair[0]))
    return "; ".join(f"{kind}: {size} bytes" for kind, size in largest if size)


def _may_go(item: Item, rules: Rules) -> bool:
    is_going = item.kind in GOING and not item.guard
    return is_going and item.age_s >= _rule(item, rules).least_s


def _rule(item: Item, rules: Rules) -> Rule:
    return rules.kinds.get(item.kind, Rule())


def _ordered(items: Iterable[Item]) -> list[Item]:
    """Sort by kind, the oldest first; by name where nothing else tells two apart."""
    place = {kind: number for number, kind in enumerate(Kind)}
    return sorted(items, key=lambda item: (place[item.kind], -item.age_s, item.name))


def _delete(item: Item, rule: str, reason: str) -> Step:
    return Step(Action.DELETE, item.kind, item.name, item.size_bytes, rule, reason)


def _total(steps: Iterable[Step]) -> int:
    return sum(step.size_bytes for step in steps)


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days"
