"""Records of a flight: what was told in the air, and what was made of it on the ground.

Times are nanoseconds UTC as the vehicle's satellites gave them, or as the logger's clock did where
the vehicle never had any; angles of `_deg` are degrees, of `_rad` radians.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """Where a session is."""

    IDLE = "idle"
    ARMED = "armed"
    AIRBORNE = "airborne"
    LANDED = "landed"
    DISARMED = "disarmed"
    ENDED = "ended"


class Kind(StrEnum):
    """What an arm cycle was."""

    FLIGHT = "flight"
    GROUND_RUN = "ground-run"


@dataclass(frozen=True, slots=True)
class LinkLoss:
    """A time in which nothing was heard of the vehicle."""

    start_utc_ns: int
    end_utc_ns: int


@dataclass(frozen=True, slots=True)
class Flight:
    """One arm cycle, from arming to disarming; all counted from what was heard of one vehicle."""

    id: str
    session: str  # id of the first flight of those that a quick re-arm joins
    vehicle: str  # name: autopilot's unique number where told, else link and system id
    kind: Kind
    start_utc_ns: int  # armed
    end_utc_ns: int  # disarmed, or last heard
    start_s: float  # since the first message heard of this link or file
    end_s: float
    takeoff_utc_ns: int | None
    landed_utc_ns: int | None
    max_height_m: float  # above where it was armed
    distance_m: float  # over ground
    reboots: int  # of the autopilot inside it
    losses: tuple[LinkLoss, ...] = ()
    is_whole: bool = True  # False: it was armed before we heard it, or we never heard it disarm


@dataclass(frozen=True, slots=True)
class Fix:
    """Where the vehicle was (GLOBAL_POSITION_INT, with the quality of GPS_RAW_INT)."""

    utc_ns: int
    lat_deg: float
    lon_deg: float
    alt_m: float  # above mean sea level
    height_m: float  # above home
    north_mps: float
    east_mps: float
    down_mps: float
    heading_deg: float | None
    satellites: int | None = None
    eph_m: float | None = None  # horizontal error as the receiver tells it


@dataclass(frozen=True, slots=True)
class Attitude:
    """How the vehicle was turned: roll, pitch and yaw from north, in the order yaw-pitch-roll."""

    utc_ns: int
    roll_rad: float
    pitch_rad: float
    yaw_rad: float
    yaw_rate_rad_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Gimbal:
    """How the camera was turned; pitch is negative below the horizon."""

    utc_ns: int
    roll_rad: float
    pitch_rad: float
    yaw_rad: float
    is_earth_yaw: bool  # yaw from north; else from the vehicle's nose


@dataclass(frozen=True, slots=True)
class Charge:
    """How full the battery was."""

    utc_ns: int
    voltage_v: float | None
    current_a: float | None
    remaining_frac: float | None


@dataclass(frozen=True, slots=True)
class Photo:
    """One picture that the camera told of (CAMERA_IMAGE_CAPTURED)."""

    utc_ns: int
    index: int
    lat_deg: float
    lon_deg: float
    alt_m: float
    file: str  # as the camera names it; empty: not told


@dataclass(frozen=True, slots=True)
class Notice:
    """A line the vehicle told its pilot (STATUSTEXT); severity 0 (emergency) to 7 (debug)."""

    utc_ns: int
    severity: int
    text: str


@dataclass(frozen=True, slots=True)
class Quality:
    """How the link did over one second."""

    utc_ns: int
    messages: int
    lost: int


@dataclass(frozen=True, slots=True)
class TimeQuality:
    """Where the times of a track come from."""

    source: str  # gps, logger
    offset_s: float  # vehicle's UTC minus logger's, in the middle
    spread_s: float  # from the least offset to the greatest
    pairs: int  # times that were told in both


@dataclass(frozen=True, slots=True)
class Track:
    """What was heard of one vehicle in one span; each tuple by time."""

    fixes: tuple[Fix, ...] = ()
    attitudes: tuple[Attitude, ...] = ()
    gimbals: tuple[Gimbal, ...] = ()
    charges: tuple[Charge, ...] = ()
    photos: tuple[Photo, ...] = ()
    notices: tuple[Notice, ...] = ()
    qualities: tuple[Quality, ...] = ()
    time: TimeQuality = field(default_factory=lambda: TimeQuality("logger", 0.0, 0.0, 0))


@dataclass(frozen=True, slots=True)
class Lens:
    """How much a camera sees, corner to corner of its picture."""

    horizontal_rad: float
    vertical_rad: float


@dataclass(frozen=True, slots=True)
class Alignment:
    """When a video's pictures were taken: utc = start + media time * (1 + drift) + offset."""

    method: str  # image_captured, timesync, embedded, creation_time, yaw_rate, mtime
    start_utc_ns: int  # of the first picture
    drift_ppm: float
    sigma_s: float
    points: int  # that it was fitted to
    doubt: str = ""  # why it must not be trusted; empty: no two methods speak against each other


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a picture shows of flat ground at the height of home."""

    utc_ns: int
    lat_deg: float  # of the picture's middle
    lon_deg: float
    corners: tuple[tuple[float, float], ...]  # (lat, lon), from top left, clockwise; may be empty
    ce95_m: float  # the middle lies within this with a probability of 95 %
    slant_m: float  # from the camera


@dataclass(frozen=True, slots=True)
class Footage:
    """One video of a flight, aligned."""

    name: str
    duration_s: float
    alignment: Alignment
    footprints: tuple[Footprint, ...] = ()  # one a second, where the ground is seen


@dataclass(frozen=True, slots=True)
class FlightFile:
    """One file of the flight's folder."""

    name: str
    role: str  # tlog, log, recording, photo, export
    sha256: str
    size_bytes: int
    receipt: str = ""  # when and by whom the centre signed for it; empty: not yet


@dataclass(frozen=True, slots=True)
class Folder:
    """All that is known of one flight: what exports and the report are made from."""

    flight: Flight
    track: Track
    lens: Lens | None = None
    footage: tuple[Footage, ...] = ()
    files: tuple[FlightFile, ...] = ()
