"""One camera from picture to event, synchronously: the same object serves live and recorded video.

`watch` looks for motion and belongs to the thread that decodes; `judge` follows what is seen and
applies the rules and belongs to the thread that detects; `step` is both.
"""

from dataclasses import dataclass, replace
from typing import Final, Protocol

from agent.core.clock import Clock
from agent.core.config import Kinded
from agent.core.model import Detection, Event, Track, View
from agent.vision import analytics, masks
from agent.vision.analytics import Ground
from agent.vision.budget import Need, Pace
from agent.vision.config import CameraConfig
from agent.vision.costs import Costs
from agent.vision.decode import Frame
from agent.vision.event import Binding, EventHost
from agent.vision.follow import Eye, Follower
from agent.vision.motion import STILL, Motion, MotionResult
from agent.vision.picture import Figures
from agent.vision.rules import SOURCE_LOST, Fault, Rules

GAP_US: Final = 5_000_000  # longer between two pictures than the key frames of a camera are apart
DISARMED: Final = "schedule"
MOTION: Final = "motion"
FALLBACK: Final = "motion-without-detector"

_US_PER_S: Final = 1_000_000
_NS_PER_US: Final = 1_000


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
        self._min_score = min_score
        self._clock = clock
        self._witness = witness
        self._veil = masks.blind(camera)
        self._motion = Motion(camera.motion)
        self._watch_pace = Pace(max(camera.motion.rate_per_s, camera.max_rate_per_s))
        self.costs = Costs()
        self._follower: Follower | None = None
        if eye is not None:
            self._follower = Follower(camera, eye, min_score, clock, self.costs)
        else:
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

    @property
    def inferences(self) -> int:
        """How often the model was run."""
        return 0 if self._follower is None else self._follower.inferences

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
        return Need.NONE if self._follower is None else self._follower.need(t_us, motion)

    def judge(self, frame: Frame, motion: MotionResult, *, may_detect: bool = True) -> StepResult:
        """Detect where the gate is open and it is affordable, track, and apply the rules."""
        if self._last_us is not None and frame.t_us <= self._last_us:
            return StepResult(motion)
        gap_us = 0 if self._last_us is None else frame.t_us - self._last_us
        ended: tuple[Event, ...] = ()
        if gap_us > self._camera.events.lost_s * _US_PER_S:
            ended = self.break_off(SOURCE_LOST)
        self._last_us = frame.t_us
        seen: tuple[Detection, ...] | None = None
        tracks: tuple[Track, ...] = ()
        if self._follower is not None:
            seen, tracks = self._follower.look(frame, motion, may_detect=may_detect)
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
        if self._follower is not None:
            self._follower.forget()
        self.rules.forget()
        return self._host.close_all(reason, also_on_camera=reason != SOURCE_LOST)


def with_motion_rule(camera: CameraConfig) -> CameraConfig:
    """Give a camera without a detector something to tell: motion anywhere."""
    if any(item.kind == MOTION for item in camera.rules):
        return camera
    settings = analytics.rule(MOTION).Config(name=FALLBACK)
    return replace(camera, rules=(*camera.rules, Kinded(MOTION, settings)))
