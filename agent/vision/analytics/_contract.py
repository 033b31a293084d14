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
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from agent.core.config import NAME, Doc, Length, Pattern, Range
from agent.core.model import Line, Signal, View, Zone

LABEL = Pattern(r"person|vehicle|bicycle", "person, vehicle, bicycle")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a rule says of itself."""

    kind: str  # also the module's name and the event's
    needs: frozenset[str]  # subset of {"tracks"} so far
    onvif_topic: str  # "" where ONVIF has none
    version: int


@dataclass(frozen=True, slots=True)
class Places:
    """The zones and lines of a camera by name."""

    zones: Mapping[str, Zone]
    lines: Mapping[str, Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig:
    """Keys that every rule has."""

    name: Annotated[str, Doc("Name of the rule, unique in its camera"), NAME]
    labels: Annotated[
        tuple[Annotated[str, LABEL], ...], Doc("Kinds of object it looks at"), Length(1, 3)
    ] = ("person", "vehicle", "bicycle")
    cooldown_s: Annotated[
        float, Doc("Seconds after an event in which the same object makes no other"), Range(0, 3600)
    ] = 0.0
    pre_s: Annotated[float, Doc("Seconds of clip before the event"), Range(0, 60)] = 5.0
    post_s: Annotated[float, Doc("Seconds of clip after the event"), Range(0, 60)] = 5.0


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
