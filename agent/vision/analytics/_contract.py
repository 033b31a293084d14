"""What a rule is: one module with `SPEC`, `Config`, `initial` and a pure `step`.

    SPEC: Spec
    class Config(RuleConfig): ...        # adds the rule's own keys, units in their names
    def initial() -> State               # any frozen value made of plain types
    def step(view, state, rule, places) -> tuple[State, tuple[Signal, ...]]

`step` sees stream time only: no wall clock, no file, no log, no thread, no randomness, no order
of a dict or set in its result. The same input gives the same signals byte for byte, so that a
recorded stream can be judged again. Floats in signals are rounded (`_geometry.rounded`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal, Protocol

from agent.core.config import NAME, Doc, Length, Pattern, Range
from agent.core.model import Line, Signal, View, Zone
from agent.vision.analytics._ground import Ground
from agent.vision.schedule import ScheduleConfig

LABEL = Pattern(r"person|vehicle|bicycle", "person, vehicle, bicycle")
BY_SENSITIVITY: Final = -1
"""Default of a key whose value the rule's sensitivity chooses; no allowed value is negative."""

TRACKS, GROUND, PICTURE = "tracks", "ground", "picture"
SHIFT, PATCHES, SIMILARITY = "shift_frac", "patches", "similarity"
"""Figures of `Picture` that cost something; the others come with every picture asked for."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a rule says of itself."""

    kind: str  # also the module's name and the event's
    needs: frozenset[str]  # subset of TRACKS, GROUND, PICTURE
    onvif_topic: str  # "" where ONVIF has none
    version: int
    is_lasting: bool = False  # its events may last for days: never split, the clip shows the start
    is_on_camera: bool = False
    """It judges the camera, not what happens before it: it is told while no picture comes, is never
    blind, and a loss of the source ends none of its events."""
    blinds: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Keys of its events that make rules blind, and the needs of which those rules have one."""
    onvif_topics: Mapping[str, str] = field(default_factory=dict)  # by the event's label, if finer
    figures: frozenset[str] = frozenset()  # of SHIFT, PATCHES, SIMILARITY: the costly ones


@dataclass(frozen=True, slots=True)
class Places:
    """The zones and lines of a camera by name, and its ground where it is calibrated."""

    zones: Mapping[str, Zone]
    lines: Mapping[str, Line]
    ground: Ground | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig:
    """Keys that every rule has."""

    LEVELS: ClassVar[Mapping[str, tuple[float, float, float, float, float]]] = {}

    name: Annotated[str, Doc("Name of the rule, unique in its camera"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("person", "vehicle", "bicycle")
    sensitivity: Annotated[
        int, Doc("From 1, few alarms, to 5, many; a key that is set wins over it"), Range(1, 5)
    ] = 3
    severity: Annotated[
        Literal["info", "warning", "alarm"], Doc("How urgent its events are at the centre")
    ] = "warning"
    schedule: Annotated[
        ScheduleConfig | None, Doc("When the rule is armed; always, without it")
    ] = None
    cooldown_s: Annotated[
        float, Doc("Seconds after an event in which the same object makes no other"), Range(0, 3600)
    ] = 0.0
    pre_s: Annotated[float, Doc("Seconds of clip before the event"), Range(0, 60)] = 5.0
    post_s: Annotated[float, Doc("Seconds of clip after the event"), Range(0, 60)] = 5.0

    def __post_init__(self) -> None:
        for key, levels in self.LEVELS.items():
            if getattr(self, key) == BY_SENSITIVITY:
                object.__setattr__(self, key, levels[self.sensitivity - 1])


class Rule(Protocol):
    """A rule's module, as the pipeline uses it."""

    SPEC: Spec
    Config: type[RuleConfig]

    def initial(self) -> Any:
        """Give the state before the first view."""
        ...

    def step(
        self, view: View, state: Any, rule: Any, places: Places
    ) -> tuple[Any, tuple[Signal, ...]]:
        """Judge one instant."""
        ...
