"""Told events against what truly happened."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks._chain import Played, Told
from firmware_sim.scenes import Scene, Truth

HIT_S: Final = 1.0  # a hit begins so near to the true start
DOUBTFUL_S: Final = 4.0  # a told event so near to a doubtful one is scored neither way

_DAY_S: Final = 86_400.0


@dataclass(slots=True)
class Score:
    """Sums over scenes."""

    hits: int = 0
    right: int = 0  # hits that are about the right object
    misses: int = 0
    false: int = 0
    doubtful: int = 0
    seconds: float = 0.0
    delays_s: list[float] = field(default_factory=list)
    offs_s: list[float] = field(default_factory=list)  # of the start
    failed: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """Of what was told, the share that is true."""
        return self.hits / max(1, self.hits + self.false)

    @property
    def recall(self) -> float:
        """Of what happened, the share that was told."""
        return self.hits / max(1, self.hits + self.misses)

    @property
    def false_per_day(self) -> float:
        """False alarms a camera and day, were every minute like these."""
        return self.false / max(1e-9, self.seconds) * _DAY_S

    @property
    def doubtful_share(self) -> float:
        """Of all that happened, the share that is a coin flip."""
        return self.doubtful / max(1, self.hits + self.misses + self.doubtful)

    def take(self, scene: Scene, truth: Sequence[Truth], played: Played, spare_s: float) -> None:
        """Score a scene; `spare_s` is added to what a hit's start may be off."""
        self.seconds += scene.seconds
        if scene.kind == "counting":
            self._take_counts(scene, truth, played)
            return
        sure = [item for item in truth if not item.is_doubtful]
        self.doubtful += len(truth) - len(sure)
        pairs, extra, missed = matched(sure, played.told, HIT_S + spare_s)
        _, extra, _ = matched([item for item in truth if item.is_doubtful], extra, DOUBTFUL_S)
        self.hits, self.misses = self.hits + len(pairs), self.misses + len(missed)
        self.false += len(extra)
        for item, told in pairs:
            self.right += is_same(item, told)
            self.delays_s.append(max(0.0, told.told_s - item.told_from_s))
            self.offs_s.append(abs(told.start_s - item.start_s))
        for lost in missed:
            plots = [scene.actors[row].plot for row in lost.objects]
            self.failed.append(
                f"{scene.kind} {scene.seed} missed {lost.start_s:.2f} {lost.objects} {plots}"
            )
        for told in extra:
            plots = [scene.actors[row].plot for row in told.actors]
            self.failed.append(
                f"{scene.kind} {scene.seed} false {told.start_s:.2f} {told.actors} {plots}"
            )

    def _take_counts(self, scene: Scene, truth: Sequence[Truth], played: Played) -> None:
        """Score the crossings of every report."""
        reports = sorted(played.told, key=lambda item: item.start_s)
        for number, item in enumerate(truth):
            if item.is_doubtful:
                self.doubtful += 1
                continue
            given = reports[number].event.measured if number < len(reports) else {}
            for way in ("a_to_b", "b_to_a"):
                true, told = int(item.measured[way]), int(given.get(way, 0))
                self.hits += min(true, told)
                self.misses += max(0, true - told)
                self.false += max(0, told - true)
                if true != told:
                    self.failed.append(
                        f"counting {scene.seed} {way} {told} for {true} by {item.start_s:.2f}"
                    )
            if number < len(reports):
                self.delays_s.append(max(0.0, reports[number].told_s - item.told_from_s))
                self.offs_s.append(abs(reports[number].start_s - item.start_s))


def is_same(one: Truth, other: Told) -> bool:
    """Whether a told event is about the object, or one of the objects, of a true one."""
    return not one.objects or bool(set(one.objects) & set(other.actors))


def matched(
    truth: Sequence[Truth], told: Sequence[Told], within_s: float
) -> tuple[list[tuple[Truth, Told]], list[Told], list[Truth]]:
    """Pair the same object first, then what is nearest in time; gives pairs, extra, missed."""
    near = sorted(
        (not is_same(one, other), abs(one.start_s - other.start_s), row, column)
        for row, one in enumerate(truth)
        for column, other in enumerate(told)
    )
    rows: dict[int, int] = {}
    for _, away_s, row, column in near:
        if away_s <= within_s and row not in rows and column not in rows.values():
            rows[row] = column
    taken = set(rows.values())
    return (
        [(truth[row], told[column]) for row, column in sorted(rows.items())],
        [item for column, item in enumerate(told) if column not in taken],
        [item for row, item in enumerate(truth) if row not in rows],
    )
