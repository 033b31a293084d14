"""One camera from picture to event, synchronously: the same object serves live and recorded video.

`watch` looks for motion and belongs to the thread that decodes; `judge` detects, tracks and applies
the rules and belongs to the thread that detects; `step` is both.
"""

from dataclasses import dataclass, replace
from typing import Final, Protocol

from agent.core.clock import NS_PER_MS, Clock
from agent.core.config import Kinded
from agent.core.model import Box, Detection, Event, Track, View
from agent.vision import analytics, masks
from agent.vision.analytics import Ground
from agent.vision.boxes import corners, covered, grown
from agent.vision.budget import Gate, Need, Pace
from agent.vision.config import CameraConfig
from agent.vision.decode import Frame
from agent.vision.event import Binding, EventHost
from agent.vision.flow import Flow
from agent.vision.motion import STILL, Motion, MotionResult
from agent.vision.picture import Figures
from agent.vision.rules import SOURCE_LOST, Fault, Rules
from agent.vision.track import Tracker

GAP_US: Final = 5_000_000  # longer between two pictures than the key frames of a camera are apart
DISARMED: Final = "schedule"
MOTION: Final = "motion"
FALLBACK: Final = "motion-without-detector"

_MAX_FLOW_US: Final = 1_000_000  # over a longer gap a corner is found again by chance only
_GROWN: Final = 0.5  # a track's shadow and swing of arms are its own
_MIN_COVERED: Final = 0.5  # of something that moves: then it is one that is tracked
_US_PER_S: Final = 1_000_000
_NS_PER_US: Final = 1_000


class Eye(Protocol):
    """A detector, as the pipeline uses it."""

    @property
    def model_id(self) -> str:
        """Name and hash of the model."""
        ...

    def detect(self, frame: Frame) -> tuple[Detection, ...]:
        """Give what is seen, weak detections too, best first."""
        ...


class Witness(Protocol):
    """Whoever keeps what the rules are given."""

    def saw(self, view: View, utc_ns: int) -> None:
        """Take a view, in order."""
        ...

    def broke(self, reason: str) -> None:
        """Take that the tracks were forgotten."""
        ...


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one picture gave; `detections` is None where the detector did not look."""

    motion: MotionResult = STILL
    detections: tuple[Detection, ...] | None = None
    view: View | None = None  # what the rules saw; None where the picture was passed over
    events: tuple[Event, ...] = ()
    best_now: tuple[str, ...] = ()  # ids of events whose best picture so far is this one
    faults: tuple[Fault, ...] = ()

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Who is there."""
        return () if self.view is None else self.view.tracks


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
        """Give the figures of the statistics line."""
        return {
            "motion": round(self.motion_ns / NS_PER_MS, 1),
            "picture": round(self.picture_ns / NS_PER_MS, 1),
            "detect": round(self.detect_ns / NS_PER_MS, 1),
            "flow": round(self.flow_ns / NS_PER_MS, 1),
            "track": round(self.track_ns / NS_PER_MS, 1),
            "rules": round(self.rules_ns / NS_PER_MS, 1),
        }


class Pipeline:
    """Motion, gate, detector, tracker, rules and events of one camera.

    Args:
        camera: its configuration.
        eye: the detector, shared by the cameras; None leaves motion only.
        min_score: score from which a detection counts as seen.
        clock: ids of events and the cost of the stages; nothing is decided by it.
        ground: the camera's calibration, if it has one.
        witness: keeps what the rules are given.
    """

    def __init__(
        self,
        camera: CameraConfig,
        eye: Eye | None,
        min_score: float,
        clock: Clock,
        ground: Ground | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._camera = camera
        self._eye = eye
        self._min_score = min_score
        self._clock = clock
        self._witness = witness
        self._veil = masks.blind(camera)
        self._motion = Motion(camera.motion)
        self._watch_pace = Pace(max(camera.motion.rate_per_s, camera.max_rate_per_s))
        self._gate = Gate(camera.motion, camera.max_rate_per_s)
        self._flow = Flow()
        self._tracker = Tracker(camera.tracking, min_score)
        if eye is None:
            camera = with_motion_rule(camera)
        places = replace(camera.places, ground=ground)
        self.rules = Rules(camera, places, clock, has_detector=eye is not None)
        self._figures = Figures.for_rules(camera.rules, places.zones)
        self._host = EventHost(
            camera.id,
            {
                item.settings.name: Binding(
                    item.kind,
                    item.settings,
                    is_lasting=spec.is_lasting,
                    is_on_camera=spec.is_on_camera,
                )
                for item in camera.rules
                for spec in (analytics.rule(item.kind).SPEC,)
            },
            camera.events,
            "" if eye is None else eye.model_id,
            clock,
        )
        self._last_us: int | None = None
        self._looked_at: tuple[Box, ...] = ()  # what moved at the last detection
        self.costs = Costs()
        self.inferences = 0

    @property
    def open_events(self) -> int:
        """How many events are open."""
        return self._host.open_count

    def step(self, frame: Frame) -> StepResult:
        """Take one picture through all stages, or pass over it where the rate says so."""
        motion = self.watch(frame)
        return StepResult() if motion is None else self.judge(frame, motion)

    def watch(self, frame: Frame) -> MotionResult | None:
        """Look for motion; None when this picture is not looked at."""
        if self._figures is not None:
            self._figures.count(frame)
        if not self._watch_pace.is_due(frame.t_us):
            return None
        self._watch_pace.took(frame.t_us)
        begun_ns = self._clock.mono_ns()
        if self._veil is not None:
            frame.hide(self._veil)
        plane = frame.luma()
        result = self._motion.step(plane, frame.t_us)
        looked_ns = self._clock.mono_ns()
        self.costs.motion_ns += looked_ns - begun_ns
        if self._figures is not None:
            result = replace(result, picture=self._figures.step(plane, frame, result.boxes))
            self.costs.picture_ns += self._clock.mono_ns() - looked_ns
        return result

    def need(self, t_us: int, motion: MotionResult) -> Need:
        """Say how much this instant deserves a detection."""
        if self._eye is None:
            return Need.NONE
        return self._gate.need(
            t_us,
            is_moving=motion.is_moving or not self._tracker.is_resting,
            has_tracks=self._tracker.has_tracks,
            has_new=self._tracker.has_new or self._moves_unseen(motion),
        )

    def judge(self, frame: Frame, motion: MotionResult, *, may_detect: bool = True) -> StepResult:
        """Detect where the gate is open and it is affordable, track, and apply the rules."""
        if self._last_us is not None and frame.t_us <= self._last_us:
            return StepResult(motion)
        gap_us = 0 if self._last_us is None else frame.t_us - self._last_us
        ended: tuple[Event, ...] = ()
        if gap_us > self._camera.events.lost_s * _US_PER_S:
            ended = self.break_off(SOURCE_LOST)
        self._last_us = frame.t_us
        moved = self._carried(frame, gap_us)
        seen = self._detect(frame, motion) if may_detect else None
        begun_ns = self._clock.mono_ns()
        tracks = self._tracker.step(seen, frame.t_us, moved)
        self.costs.track_ns += self._clock.mono_ns() - begun_ns
        gap_us = gap_us if gap_us > GAP_US else 0
        view = View(frame.t_us, gap_us, tracks, picture=motion.picture)
        judged = self.apply(view, frame.utc_ns)
        strong = seen and tuple(item for item in seen if item.score >= self._min_score)
        return replace(
            judged,
            motion=motion,
            detections=strong,
            view=view,
            events=(*ended, *judged.events),
        )

    def apply(self, view: View, utc_ns: int) -> StepResult:
        """Ask the rules about an instant, be it new or out of a track log."""
        if self._witness is not None:
            self._witness.saw(view, utc_ns)
        begun_ns = self._clock.mono_ns()
        said = self.rules.step(view, utc_ns)
        over = [event for name in said.disarmed for event in self._host.close_rule(name, DISARMED)]
        t_us = view.t_us
        moves = self._host.step(
            view, said.signals, lambda at_us: utc_ns + (at_us - t_us) * _NS_PER_US
        )
        self.costs.rules_ns += self._clock.mono_ns() - begun_ns
        return StepResult(
            events=(*over, *moves.events), best_now=moves.best_now, faults=said.faults
        )

    def lost(self, silent_us: int, utc_ns: int) -> StepResult:
        """Tell the rules that no pictures come, for those that watch the camera itself.

        Args:
            silent_us: since the last picture, or since the start if none ever came.
            utc_ns: now.
        """
        t_us = silent_us + (self._last_us or 0)
        return self.apply(View(t_us, 0, (), is_lost=True), utc_ns)

    def break_off(self, reason: str) -> tuple[Event, ...]:
        """Close the open events and forget the tracks: the stream has ended or was interrupted.

        While the source is lost, the events on the camera itself go on.
        """
        if self._witness is not None:
            self._witness.broke(reason)
        self._tracker.forget()
        self._flow.forget()
        self.rules.forget()
        return self._host.close_all(reason, also_on_camera=reason != SOURCE_LOST)

    def _moves_unseen(self, motion: MotionResult) -> bool:
        """Whether anything moves that is not tracked and that the detector has not looked at."""
        if not motion.boxes:
            return False
        known = grown(corners((*self._tracker.boxes, *self._looked_at)), _GROWN)
        return bool((covered(corners(motion.boxes), known) < _MIN_COVERED).any())

    def _carried(self, frame: Frame, gap_us: int) -> tuple[Box | None, ...]:
        """Give where the picture's own motion took everything that is tracked."""
        if self._eye is None:
            return ()
        begun_ns = self._clock.mono_ns()
        if gap_us > _MAX_FLOW_US:
            self._flow.forget()
        moved = self._flow.step(frame.luma(), self._tracker.boxes)
        self.costs.flow_ns += self._clock.mono_ns() - begun_ns
        return moved

    def _detect(self, frame: Frame, motion: MotionResult) -> tuple[Detection, ...] | None:
        if self._eye is None or self.need(frame.t_us, motion) is Need.NONE:
            return None
        self._gate.took(frame.t_us)
        self._looked_at = motion.boxes
        self.inferences += 1
        begun_ns = self._clock.mono_ns()
        seen = self._eye.detect(frame)
        self.costs.detect_ns += self._clock.mono_ns() - begun_ns
        return seen


def with_motion_rule(camera: CameraConfig) -> CameraConfig:
    """Give a camera without a detector something to tell: motion anywhere."""
    if any(item.kind == MOTION for item in camera.rules):
        return camera
    settings = analytics.rule(MOTION).Config(name=FALLBACK)
    return replace(camera, rules=(*camera.rules, Kinded(MOTION, settings)))
