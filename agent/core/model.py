"""Records that the stages hand to each other: frozen, small, without behaviour.

Boxes and points are fractions of the frame (0..1, origin top left), so that they hold for
every stream of a camera. Stream time is integer microseconds of a source's own pts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple


class Point(NamedTuple):
    """A place in the frame, in fractions of its width and height."""

    x: float
    y: float


class Box(NamedTuple):
    """A rectangle in fractions of the frame: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float

    @property
    def foot(self) -> Point:
        """Where the object stands: the middle of the lower edge."""
        return Point(self.x + self.w / 2, self.y + self.h)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a source says of its video stream once it is open."""

    codec: str  # FFmpeg's name: h264, hevc
    width_px: int
    height_px: int
    time_base: Fraction  # seconds a tick of pts and dts
    extradata: bytes  # parameter sets as the container or the SDP gave them
    fps_nominal: float | None = None  # declared, never used for durations
    sound: str = ""  # codec of the first sound beside it, which we leave; empty without
    transport: str = ""  # how packets come, where there is a choice: tcp, udp


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture as received; a `run` is one unbroken session of its source."""

    run: str
    pts: int
    dts: int
    time_base: Fraction
    is_key: bool
    is_corrupt: bool
    arrival_mono_ns: int
    utc_ns: int  # evidence time: arrival, smoothed by the recorder's timeline
    camera_utc_ns: int | None  # the camera's own clock from its sender reports
    payload: bytes  # Annex B: start codes, parameter sets in band before key frames

    @property
    def pts_us(self) -> int:
        """Presentation time in microseconds of stream time."""
        return int(self.pts * self.time_base * 1_000_000)


@dataclass(frozen=True, slots=True)
class Detection:
    """One object that the detector saw in one frame."""

    label: str
    score: float
    box: Box


class Sight(StrEnum):
    """How a track's place at an instant is known; only a detection is evidence."""

    DETECTED = "detected"  # the detector saw it
    PROPAGATED = "propagated"  # its box was moved along with the picture's own motion
    PREDICTED = "predicted"  # extrapolated


@dataclass(frozen=True, slots=True)
class TrackPoint:
    """Where a track was at one instant, and how that is known."""

    t_us: int
    box: Box
    sight: Sight

    @property
    def is_detected(self) -> bool:
        """Whether the detector saw it there."""
        return self.sight is Sight.DETECTED


@dataclass(frozen=True, slots=True)
class Track:
    """One object over frames; `history` is oldest first and bounded."""

    track_id: int
    label: str
    score: float
    box: Box
    age_s: float
    missing_s: float  # since the last detection; 0 when just seen
    history: tuple[TrackPoint, ...]
    predecessor: int | None = None  # the lost track of the same object, as far as one can tell


@dataclass(frozen=True, slots=True)
class Zone:
    """A named polygon in frame fractions, at least three points."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A named directed segment in frame fractions, from `start` to `end`."""

    name: str
    start: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Patch:
    """Something that differs from the learned background and does not move."""

    box: Box
    since_us: int


@dataclass(frozen=True, slots=True)
class Picture:
    """Figures of the small brightness plane, worked out once for all rules that ask."""

    luma_mean: float  # grey levels, 0..255
    luma_sd: float
    sharpness: float  # mean squared Laplacian of the plane
    change: float  # mean absolute difference from the look before, grey levels
    shift_frac: float | None = None  # of the view; 1: another one; None: not measurable
    moving: tuple[Box, ...] = ()
    patches: tuple[Patch, ...] = ()
    similarity: Mapping[str, float] = field(default_factory=dict)  # zone to its reference, -1..1
    clock_offset_s: float | None = None  # the camera's clock minus ours
    corrupt_share: float = 0.0  # of the pictures of the last minute
    change_max: float = 0.0  # of the pixel that has changed most since the look before


@dataclass(frozen=True, slots=True)
class View:
    """What a rule sees of one instant of stream time."""

    t_us: int
    gap_us: int  # length of a break just before this instant, else 0
    tracks: tuple[Track, ...]
    armed_since_us: int | None = 0  # None: its schedule says no
    picture: Picture | None = None  # for rules that need it
    is_lost: bool = False  # no pictures come; only rules on the camera itself are told


class Phase(StrEnum):
    """What a signal says about its key."""

    BEGIN = "begin"
    UPDATE = "update"
    END = "end"
    MEASURE = "measure"  # a report that is no alarm: an event without length and without a clip


@dataclass(frozen=True, slots=True)
class Signal:
    """What a rule says at one instant; the host turns signals into events, one open a key."""

    phase: Phase
    key: str
    t_us: int  # when it happened; not later than the view's instant
    label: str = ""
    score: float = 0.0
    track_ids: tuple[int, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


class EventState(StrEnum):
    """Life of an event: it is reported at each of these."""

    OPEN = "open"
    CLOSED = "closed"
    SEALED = "sealed"  # its clip is made, signed and waits for its receipt


@dataclass(frozen=True, slots=True)
class Event:
    """Something reported; `event_id` is given once and never again."""

    event_id: str
    camera: str
    kind: str
    rule: str
    state: EventState
    start_utc_ns: int
    end_utc_ns: int | None
    label: str
    score: float
    track_ids: tuple[int, ...]
    measured: Mapping[str, float]
    model: str  # id and hash of the detector that saw it
    reason: str = ""  # why it closed
    pre_s: float = 5.0  # clip before the start
    post_s: float = 5.0  # clip after the end
    snapshot: Path | None = None  # JPEG of the best instant, in the spool
    path: tuple[tuple[int, float, float], ...] = ()  # utc_ms, x, y of the track's foot
    severity: str = "warning"
    has_clip: bool = True  # false for a report
    clip_until_utc_ns: int | None = None  # of an open event that lasts: its clip is due now


class SegmentState(StrEnum):
    """Life of a segment row."""

    OPEN = "open"
    CLOSED = "closed"
    RECOVERED = "recovered"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Segment:
    """A fixed piece of continuous recording: one file, one row."""

    segment_id: int
    camera: str
    run: str
    path: Path
    state: SegmentState
    start_utc_ns: int
    end_utc_ns: int
    first_dts: int  # of the stream; the file itself starts at 0
    last_dts: int
    info: StreamInfo
    camera_offset_ns: int | None  # camera clock minus arrival clock
    size_bytes: int
    sha256: str


class Lane(StrEnum):
    """Priority class of a message towards the centre, most urgent first."""

    ALARM = "alarm"
    STATE = "state"
    TELEMETRY = "telemetry"
    BACKFILL = "backfill"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Message:
    """One message for the outbox, before it has its envelope."""

    lane: Lane
    kind: str  # last part of the topic: event/<kind>, state/<name>, beat
    body: Mapping[str, object]
    needs_receipt: bool = False  # kept until the centre has signed for it
    is_retained: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One stored message as the uplink takes it."""

    row_id: int
    lane: Lane
    message_id: str
    topic: str
    payload: bytes
    needs_receipt: bool
    is_retained: bool
    tries: int
