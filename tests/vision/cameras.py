"""A camera over the plaza, and eyes that see what a test wants."""

from collections.abc import Callable, Sequence

from agent.core.config import Kinded
from agent.core.model import Box, Detection
from agent.vision.analytics import line_cross, zone_enter
from agent.vision.config import CameraConfig, LineConfig, ZoneConfig

CROSSING = ZoneConfig("crossing", ((0.30, 0.35), (0.72, 0.35), (0.80, 0.80), (0.25, 0.80)))
KERB = LineConfig("kerb", (0.5, 0.2), (0.5, 0.95))


def plaza(camera_id: str = "plaza", **options) -> CameraConfig:
    """The demo's camera; `main` and `sub` are names that a test's builder understands."""
    values = {
        "main": Kinded("main", None),
        "sub": Kinded("sub", None),
        "zones": (CROSSING,),
        "lines": (KERB,),
        "rules": (
            Kinded(
                "zone_enter",
                zone_enter.Config(name="on-crossing", zone="crossing", labels=("person",)),
            ),
            Kinded(
                "line_cross", line_cross.Config(name="over-kerb", line="kerb", labels=("person",))
            ),
        ),
    }
    return CameraConfig(camera_id, **(values | options))


class Walker:
    """An eye for which one person walks from left to right in `seconds`."""

    model_id = "walker@000000000000"
    is_cropping = False

    def __init__(self, seconds: float = 8.0, score: float = 0.7) -> None:
        self.seconds = seconds
        self.score = score
        self.calls: list[int] = []

    def detect(self, frame) -> tuple[Detection, ...]:
        self.calls.append(frame.t_us)
        x = 0.02 + 0.9 * frame.t_us / 1e6 / self.seconds
        if x > 0.92:
            return ()
        return (Detection("person", self.score, Box(x, 0.4, 0.05, 0.2)),)


class Script:
    """An eye that sees what a function of stream time says."""

    model_id = "script@000000000000"
    is_cropping = False

    def __init__(self, see: Callable[[float], Sequence[Detection]]) -> None:
        self.see = see
        self.calls: list[int] = []

    def detect(self, frame) -> tuple[Detection, ...]:
        self.calls.append(frame.t_us)
        return tuple(self.see(frame.t_us / 1e6))
