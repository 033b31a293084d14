"""The record of what truly happened, and how far a coin flip reaches."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, cast

from firmware_sim.scenes.stage import Polygon, Sampled, Segment

MARGIN_S: Final = 1.0  # thresholds of time missed or met by less are a coin flip,
MARGIN_SHARE: Final = 0.25  # or by less than this share of short ones
MARGIN_FRAC: Final = 0.01  # the same for borders and ways, of the picture
MARGIN_SPEED: Final = 0.03  # the same for speeds, of the limit
MARGIN_ANGLE: Final = 0.2  # the same for along against across


@dataclass(frozen=True, slots=True)
class Truth:
    """One event as the definitions have it, for a perfect observer."""

    kind: str
    objects: tuple[int, ...]  # actors; those inside at its start, for kinds of many
    start_s: float
    end_s: float
    told_from_s: float  # nobody can know it earlier
    measured: Mapping[str, float] = field(default_factory=dict)
    is_doubtful: bool = False  # whether it exists is a coin flip: scored neither way


@dataclass(frozen=True, slots=True)
class Lean:
    """A reading of the definitions: 0 as they stand, 1 by a margin harder, -1 easier."""

    side: int = 0

    def time(self, needed_s: float) -> float:
        """Give a time that a condition must hold, under this reading."""
        return needed_s + self.side * min(MARGIN_S, MARGIN_SHARE * needed_s)

    def allowed(self, most_s: float) -> float:
        """Give a time for which something may be missing, under this reading."""
        return most_s - self.side * min(MARGIN_S, MARGIN_SHARE * most_s)

    @property
    def frac(self) -> float:
        """Added to distances in the picture."""
        return self.side * MARGIN_FRAC

    @property
    def speed(self) -> float:
        """Factor of a speed that must be exceeded."""
        return 1.0 + self.side * MARGIN_SPEED

    @property
    def angle(self) -> float:
        """Factor of the way across that the way along must reach."""
        return 1.0 + self.side * MARGIN_ANGLE


@dataclass(frozen=True, slots=True)
class Case:
    """What one telling needs: the observed scene, the rule's keys, the places, the reading."""

    seen: Sampled
    rule: Mapping[str, object]
    zones: Mapping[str, Polygon]
    lines: Mapping[str, Segment]
    lean: Lean = Lean()

    def number(self, key: str) -> float:
        """Give a key of the rule that is a number."""
        return float(cast("float", self.rule[key]))

    @property
    def actors(self) -> list[int]:
        """Rows of the objects that the rule looks at."""
        labels = cast("tuple[str, ...]", self.rule["labels"])
        return [row for row, label in enumerate(self.seen.labels) if label in labels]

    @property
    def zone(self) -> Polygon:
        """The rule's zone."""
        return self.zones[str(self.rule["zone"])]

    @property
    def excluded(self) -> list[Polygon]:
        """Zones that are taken out of the rule's own."""
        return [self.zones[name] for name in cast("tuple[str, ...]", self.rule.get("exclude", ()))]

    @property
    def line(self) -> Segment:
        """The rule's line."""
        return self.lines[str(self.rule["line"])]

    def leaning(self, side: int) -> "Case":
        """Give the same under another reading."""
        return replace(self, lean=Lean(side))
