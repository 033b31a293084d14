"""Looks where something is, and follows what was seen: need, areas, detector, flow and tracker.

Belongs to the thread that detects. Between two detections boxes go with the picture's own motion.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from agent.core.clock import Clock
from agent.core.model import Box, Detection, Track
from agent.vision.boxes import corners, covered, grown
from agent.vision.budget import Gate, Need
from agent.vision.config import CameraConfig
from agent.vision.costs import Costs
from agent.vision.crops import Planner
from agent.vision.decode import Frame
from agent.vision.flow import Flow
from agent.vision.motion import MotionResult
from agent.vision.track import Tracker

_MAX_FLOW_US: Final = 1_000_000  # over a longer gap a corner is found again by chance only
_GROWN: Final = 0.5  # a track's shadow and swing of arms are its own
_MIN_COVERED: Final = 0.5  # of something that moves: then it is one that is known


class Eye(Protocol):
    """A detector, as it is used here."""

    @property
    def model_id(self) -> str:
        """Name and hash of the model."""
        ...

    @property
    def is_cropping(self) -> bool:
        """Whether it wants to be told where to look."""
        ...

    def detect(self, frame: Frame, areas: Sequence[Box] = ()) -> tuple[Detection, ...]:
        """Give what is seen in the areas, weak detections too, best first; none: as it sees fit."""
        ...


class Seen(NamedTuple):
    """What one look gave; `detections` is None where the detector did not look."""

    detections: tuple[Detection, ...] | None
    tracks: tuple[Track, ...]


class Follower:
    """Follows what one camera shows; for one thread.

    Args:
        camera: its configuration.
        eye: the detector, shared by the cameras.
        min_score: score from which a detection counts as seen.
        clock: measures the stages.
        costs: takes what they cost.
    """

    def __init__(
        self, camera: CameraConfig, eye: Eye, min_score: float, clock: Clock, costs: Costs
    ) -> None:
        self._eye = eye
        self._clock = clock
        self._costs = costs
        self._gate = Gate(camera.motion, camera.max_rate_per_s)
        self._planner = Planner(camera.motion.heartbeat_s)
        self._flow = Flow()
        self._tracker = Tracker(camera.tracking, min_score)
        self._looked_at: tuple[Box, ...] = ()  # what moved at the last detection
        self._last_us: int | None = None
        self.inferences = 0

    def need(self, t_us: int, motion: MotionResult) -> Need:
        """Say how much this instant deserves a detection."""
        return self._gate.need(
            t_us,
            is_moving=motion.is_moving or not self._tracker.is_resting,
            has_tracks=self._tracker.has_tracks,
            has_new=self._tracker.has_new or self._moves_unseen(motion),
        )

    def look(self, frame: Frame, motion: MotionResult, *, may_detect: bool) -> Seen:
        """Detect where it is needed and affordable, and move the tracks to this instant."""
        begun_ns = self._clock.mono_ns()
        moved = self._carried(frame, motion)
        carried_ns = self._clock.mono_ns()
        self._costs.flow_ns += carried_ns - begun_ns
        detections: tuple[Detection, ...] | None = None
        areas: tuple[Box, ...] = ()
        if may_detect and self.need(frame.t_us, motion) is not Need.NONE:
            areas = self._areas(frame, motion, moved)
            detections = self._detect(frame, motion, areas)
        detected_ns = self._clock.mono_ns()
        self._costs.detect_ns += detected_ns - carried_ns
        tracks = self._tracker.step(detections, frame.t_us, moved, areas)
        self._costs.track_ns += self._clock.mono_ns() - detected_ns
        return Seen(detections, tracks)

    def forget(self) -> None:
        """Drop every track: the stream was interrupted."""
        self._tracker.forget()
        self._flow.forget()

    def _carried(self, frame: Frame, motion: MotionResult) -> tuple[Box | None, ...]:
        """Give where the picture's own motion took everything that is tracked."""
        is_gap = self._last_us is not None and frame.t_us - self._last_us > _MAX_FLOW_US
        self._last_us = frame.t_us
        if is_gap:
            self._flow.forget()
        known = self._tracker.boxes
        is_still = self._tracker.is_resting and not motion.is_moving and not is_gap
        if is_still:  # what stands need not be followed to stay there
            self._flow.step(frame.luma(), ())
            return known
        return self._flow.step(frame.luma(), known)

    def _areas(
        self, frame: Frame, motion: MotionResult, moved: Sequence[Box | None]
    ) -> tuple[Box, ...]:
        """Give where to look: around tracks, those first that wait longest, and what moves."""
        if not self._eye.is_cropping:
            return ()
        known = zip(moved, self._tracker.boxes, strict=True)
        tracked = [box if box is not None else last for box, last in known]
        weights = [1.0 + waited_s for waited_s in self._tracker.waited_s(frame.t_us)]
        unknown = _unknown(motion.boxes, tracked)
        return self._planner.plan(
            [*tracked, *unknown],
            [*weights, *[1.0] * len(unknown)],
            frame.t_us,
            frame.width_px / frame.height_px,
        )

    def _detect(
        self, frame: Frame, motion: MotionResult, areas: Sequence[Box]
    ) -> tuple[Detection, ...]:
        self._gate.took(frame.t_us)
        self._looked_at = motion.boxes
        self.inferences += max(1, len(areas))
        return self._eye.detect(frame, areas) if areas else self._eye.detect(frame)

    def _moves_unseen(self, motion: MotionResult) -> bool:
        """Whether anything moves that is not tracked and that the detector has not looked at."""
        return bool(_unknown(motion.boxes, (*self._tracker.boxes, *self._looked_at)))


def _unknown(moving: Sequence[Box], known: Sequence[Box]) -> list[Box]:
    """Give what moves elsewhere than something known."""
    if not moving:
        return []
    share = covered(corners(moving), grown(corners(known), _GROWN))
    return [box for box, part in zip(moving, share.tolist(), strict=True) if part < _MIN_COVERED]
