"""How the rounds of each fault ended: a count that suites can add up, and its table."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """Rounds by the name of their fault."""

    held: Counter = field(default_factory=Counter)
    broken: Counter = field(default_factory=Counter)
    taken: Counter = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {name: dict(counted) for name, counted in vars(self).items()}

    def add(self, document: Mapping[str, Any]) -> None:
        """Add what another suite counted."""
        self.held.update(document["held"])
        self.broken.update(document["broken"])
        self.taken.update(document["taken"])
        for name, seconds in document["seconds"].items():
            self.seconds.setdefault(name, []).extend(seconds)
        self.skipped.update(document["skipped"])

    def table(self) -> str:
        """Give a line for each fault."""
        lines = [f"{'fault':22}{'rounds':>7}{'held':>6}{'broken':>8}{'taken':>7}{'s/round':>9}"]
        for name in sorted({*self.held, *self.broken}):
            held, broken = self.held[name], self.broken[name]
            mean_s = sum(self.seconds[name]) / len(self.seconds[name])
            lines.append(
                f"{name:22}{held + broken:7}{held:6}{broken:8}{self.taken[name]:7}{mean_s:9.1f}"
            )
        lines += [f"{name:22}skipped: {why}" for name, why in sorted(self.skipped.items())]
        total = sum(self.held.values()) + sum(self.broken.values())
        return "\n".join([*lines, f"{total} rounds, {sum(self.broken.values())} broken"])
