"""What each stage of seeing has cost."""

from dataclasses import dataclass, fields

from agent.core.clock import NS_PER_MS


@dataclass(slots=True)
class Costs:
    """Time spent in each stage, in nanoseconds since the start."""

    motion_ns: int = 0
    picture_ns: int = 0
    detect_ns: int = 0
    flow_ns: int = 0
    track_ns: int = 0
    rules_ns: int = 0

    def as_ms(self) -> dict[str, float]:
        """Give the figures of the statistics line, in milliseconds by the stage's name."""
        return {
            field.name.removesuffix("_ns"): round(getattr(self, field.name) / NS_PER_MS, 1)
            for field in fields(self)
        }
