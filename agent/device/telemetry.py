"""The box's health: a beat every so often, and a retained state message on every change."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.config import Doc, Range
from agent.core.model import Lane, Message
from agent.device import proc

LOOK_S = 1.0  # between two looks at the states
FIRST_BEAT_S = 5.0  # somebody who has just started the box does not wait for a whole period
MIB = 1 << 20
MAX_WORKER_STATE = 64  # characters, by the schema of beats
MAX_DETAIL = 512  # characters, by the schema of states
# A lost camera is tried again for days: every try would be a message.
PASSING_STATES = frozenset({"connecting", "starting", "waiting"})
ALARM_STATES = frozenset(
    {
        *("degraded", "disabled", "failed", "auth_failed", "unsupported"),
        *("not_recording", "no_keyframe", "clips_refused", "no_room"),
    }
)


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """How the box reports on itself."""

    beat_s: Annotated[float, Doc("Seconds between two beats"), Range(1, 3600)] = 30.0


class Health(Protocol):
    """State of a worker or of a camera."""

    @property
    def state(self) -> str:
        """One lower-case word."""
        ...

    @property
    def since_utc_ns(self) -> int:
        """When it came to be so."""
        ...

    @property
    def detail(self) -> str:
        """Why, in words; empty when all is well."""
        ...


class CameraHealth(Health, Protocol):
    """What a recorder says of its camera."""

    @property
    def lag_ms(self) -> int | None:
        """How late packets come, by the camera's own clock; None: it sends no time."""
        ...

    @property
    def packets(self) -> int:
        """Received since the start."""
        ...

    @property
    def dropped(self) -> int:
        """Received, and lost to a disk that was too slow."""
        ...

    @property
    def ring_bytes(self) -> int:
        """Held in memory."""
        ...


class Counters(Protocol):
    """What the analysis says of a camera."""

    @property
    def frames(self) -> int:
        """Decoded since the start."""
        ...

    @property
    def inferences(self) -> int:
        """Runs of the detector."""
        ...

    @property
    def blind(self) -> Sequence[Mapping[str, object]]:
        """Rules that cannot see, or could not for a time: rule, reason, total_s."""
        ...


def _none() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Facts:
    """Where a beat takes its values from; each is called in the telemetry's thread."""

    folder: Path  # on the disk whose free space is told
    queues: Callable[[], Mapping[str, int]]  # rows waiting, by lane
    files_waiting: Callable[[], int]
    cameras: Mapping[str, Callable[[], CameraHealth]]
    counters: Callable[[str], Counters]  # of a camera
    workers: Callable[[], Mapping[str, Health]]
    last_receipt_utc_ns: Callable[[], int | None] = _none
    custody: Callable[[], Mapping[str, object] | None] = _none  # signed head of the log
    parts: Callable[[], Mapping[str, Health]] = dict  # of the box, told under their names
    storage: Callable[[], Mapping[str, object]] = dict  # of the disk's share; empty: not yet known
    schedule: Callable[[], Mapping[str, object]] = dict  # of the link; empty: the site has none


class Telemetry:
    """Worker that hands beats and states to `put`, the outbox's.

    Raises:
        StorageError: the outbox or the disk refuses; `run` may be called again.
    """

    name = "telemetry"

    def __init__(
        self,
        put: Callable[[Message], object],
        facts: Facts,
        clock: Clock,
        config: TelemetryConfig,
    ) -> None:
        self._put = put
        self._facts = facts
        self._clock = clock
        self._config = config
        self._begun_ns: int | None = None
        self._told: dict[str, str] = {}
        self._measured: tuple[int, float] | None = None  # at mono_ns: cpu_s so far

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """See `Worker.run`."""
        if self._begun_ns is None:
            self._begun_ns = self._clock.mono_ns()
            self._measured = (self._begun_ns, proc.usage(os.getpid()).cpu_s)
        next_ns = self._clock.mono_ns() + round(min(FIRST_BEAT_S, self._config.beat_s) * NS_PER_S)
        while not self._clock.wait(stop, min(LOOK_S, self._config.beat_s)):
            self._tell_changes()
            if self._clock.mono_ns() >= next_ns:
                next_ns = self._clock.mono_ns() + round(self._config.beat_s * NS_PER_S)
                self._put(Message(Lane.TELEMETRY, "beat", self.beat()))
            progress()

    def beat(self) -> Mapping[str, object]:
        """Give the body of one beat; `cpu_pct` is of one core, since the beat before."""
        facts = self._facts
        now_ns, used = self._clock.mono_ns(), proc.usage(os.getpid())
        began_ns = now_ns if self._begun_ns is None else self._begun_ns
        receipt_utc_ns = facts.last_receipt_utc_ns()
        return {
            "uptime_s": (now_ns - began_ns) // NS_PER_S,
            "cpu_pct": self._cpu_pct(now_ns, used.cpu_s),
            "rss_mib": round(used.rss_bytes / MIB, 1),
            "temperature_c": proc.temperature_c(),
            "disk_free_bytes": proc.disk_free_bytes(facts.folder),
            "queues": dict(facts.queues()),
            "files_waiting": facts.files_waiting(),
            "cameras": [self._camera(name, look()) for name, look in facts.cameras.items()],
            "workers": {
                name: health.state[:MAX_WORKER_STATE] for name, health in facts.workers().items()
            },
            "last_receipt_utc_ms": None if receipt_utc_ns is None else receipt_utc_ns // NS_PER_MS,
            "custody": facts.custody(),
            **({"storage": storage} if (storage := facts.storage()) else {}),
            **({"schedule": schedule} if (schedule := facts.schedule()) else {}),
        }

    def _cpu_pct(self, now_ns: int, cpu_s: float) -> float:
        then_ns, then_s = self._measured or (now_ns, cpu_s)
        self._measured = (now_ns, cpu_s)
        span_s = (now_ns - then_ns) / NS_PER_S
        # A child that was killed and not yet waited for takes its time out of the sum.
        return round(100 * max(0.0, cpu_s - then_s) / span_s, 1) if span_s > 0 else 0.0

    def _camera(self, name: str, health: CameraHealth) -> Mapping[str, object]:
        counters = self._facts.counters(name)
        return {
            "id": name,
            "state": health.state,
            "lag_ms": health.lag_ms,
            "packets": health.packets,
            "dropped": health.dropped,
            "frames": counters.frames,
            "inferences": counters.inferences,
            "ring_bytes": health.ring_bytes,
            "blind": list(counters.blind),
        }

    def _tell_changes(self) -> None:
        for name, look in self._facts.cameras.items():
            self._tell(name, look())
        for name, health in self._facts.workers().items():
            self._tell(f"worker.{topic_name(name)}", health)
        for name, health in self._facts.parts().items():
            self._tell(topic_name(name), health)

    def _tell(self, name: str, health: Health) -> None:
        if health.state in PASSING_STATES or self._told.get(name) == health.state:
            return
        body = {
            "state": health.state,
            "since_utc_ms": health.since_utc_ns // NS_PER_MS,
            "detail": health.detail[:MAX_DETAIL],
        }
        lane = Lane.ALARM if health.state in ALARM_STATES else Lane.STATE
        self._put(Message(lane, f"state/{name}", body, is_retained=True))
        self._told[name] = health.state


def topic_name(worker: str) -> str:
    """Give a worker's name as a topic may hold it: `recorder gate/1` becomes recorder-gate-1."""
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-"
        for letter in worker.lower()
    )
