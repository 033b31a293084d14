"""Configuration of the camera stages: recording, cameras, zones, lines, motion, detector.

Imports nothing heavy: the process that records reads it too.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from agent.core.config import NAME, Doc, Kind, Kinded, Length, Range, ReadableFile
from agent.core.errors import ConfigError
from agent.core.model import Line, Point, Zone
from agent.vision import analytics
from agent.vision.analytics._contract import GROUND, Places
from agent.vision.analytics._geometry import area, is_simple

MIN_ZONE_AREA = 0.0005  # of the frame: below it a foot point cannot be told inside from outside
MIN_LINE_LENGTH = 0.02  # of the frame

_Fraction = Annotated[float, Range(0, 1)]


@dataclass(frozen=True, slots=True)
class RecordConfig:
    """Continuous recording of the main streams."""

    segment_s: Annotated[
        float, Doc("Length of a recorded file, cut at the next key frame"), Range(2, 300)
    ] = 10.0
    ring_s: Annotated[
        float,
        Doc("Seconds of packets in memory at most; what a closed file holds leaves sooner"),
        Range(2, 120),
    ] = 20.0
    ring_max_mb: Annotated[
        int, Doc("Memory the packets of one camera may take, in MB"), Range(1, 256)
    ] = 16
    keep_max_gb: Annotated[
        float, Doc("Disk that recordings may take, in GB; the oldest go first"), Range(0.05, 1e6)
    ] = 20.0
    keep_days: Annotated[int, Doc("Days after which recordings are deleted"), Range(1, 3650)] = 30
    folders: Annotated[
        tuple[Path, ...],
        Doc("Folders that recordings go to in turn, one a disk; none: the state directory"),
        Length(0, 8),
    ] = ()
    quarantine_days: Annotated[
        int, Doc("Days that files set aside after a crash are kept at least"), Range(7, 3650)
    ] = 90
    queue_packets: Annotated[
        int,
        Doc("Packets that may wait for a slow disk before whole GOPs are left out"),
        Range(30, 3000),
    ] = 300

    def __post_init__(self) -> None:
        if len(set(self.folders)) < len(self.folders):
            raise ConfigError("folders: one stands there twice; allowed: each folder once")


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """The detector that all cameras share."""

    model: Annotated[
        str,
        Doc("Detector: auto (the fitting one), int8, fp16, or the path of a model's manifest"),
    ] = "auto"
    min_score: Annotated[
        float,
        Doc("Score from which a detection is reported and may confirm a track"),
        Range(0.05, 0.99),
    ] = 0.4
    low_score: Annotated[
        float,
        Doc("Score from which a detection may carry on a track that is already there"),
        Range(0.05, 0.99),
    ] = 0.2
    view: Annotated[
        Literal["whole", "crops", "tiles"],
        Doc(
            "whole looks once at the frame; crops looks closely at up to two squares where"
            " something is, for wide views; tiles looks four times, everywhere"
        ),
    ] = "whole"
    budget_ms_per_s: Annotated[
        float,
        Doc(
            "Milliseconds of detection a second over all cameras, shared out by what moves;"
            " 1000 keeps one core busy"
        ),
        Range(1, 1000),
    ] = 250.0
    slow_ms: Annotated[
        float,
        Doc("With auto: a detector slower than this at start makes the other one be tried"),
        Range(0, 10_000),
    ] = 150.0

    tracklog_days: Annotated[
        int,
        Doc("Days for which boxes and times of all tracks are kept, for outpost tune; 0: never"),
        Range(0, 90),
    ] = 7
    tracklog_max_mb: Annotated[
        int, Doc("Disk that they may take, all cameras together, in MB"), Range(1, 100_000)
    ] = 512

    def __post_init__(self) -> None:
        if self.low_score > self.min_score:
            raise ConfigError(
                f"low_score {self.low_score:g}; allowed: up to min_score, {self.min_score:g}"
            )


@dataclass(frozen=True, slots=True)
class MotionConfig:
    """When a camera is worth a detection."""

    rate_per_s: Annotated[
        float, Doc("Pictures a second that are compared for motion"), Range(0.5, 30)
    ] = 5.0
    noise_factor: Annotated[
        float, Doc("How many times its usual noise a pixel must change"), Range(1, 20)
    ] = 4.0
    min_area_frac: Annotated[
        float,
        Doc("Smallest moving patch, as a share of the picture; a twelfth if it is clear"),
        Range(0.0001, 0.5),
    ] = 0.0004
    heartbeat_s: Annotated[
        float, Doc("Longest time without a detection when nothing moves"), Range(0.1, 60)
    ] = 2.0
    is_moving_camera: Annotated[
        bool, Doc("The camera itself moves: detect at the full rate, without asking for motion")
    ] = False


@dataclass(frozen=True, slots=True)
class TrackConfig:
    """How detections are joined to tracks."""

    birth_score: Annotated[
        float, Doc("Score a detection needs to begin a track"), Range(0.05, 0.99)
    ] = 0.42
    max_missing_s: Annotated[
        float, Doc("Seconds without a detection after which a track ends"), Range(0.2, 30)
    ] = 2.0


@dataclass(frozen=True, slots=True)
class EventConfig:
    """How the signals of rules become events."""

    max_s: Annotated[
        float, Doc("Longest event; what goes on longer is continued as a new one"), Range(5, 3600)
    ] = 120.0
    merge_s: Annotated[
        float,
        Doc("An event whose object was lost is carried on by one that appears so soon and near"),
        Range(0, 30),
    ] = 2.0
    lost_s: Annotated[
        float, Doc("Seconds without pictures after which open events are closed"), Range(1, 120)
    ] = 10.0


@dataclass(frozen=True, slots=True)
class ZoneConfig:
    """A named area of the picture."""

    name: Annotated[str, Doc("Name that rules refer to"), NAME]
    points: Annotated[
        tuple[tuple[_Fraction, _Fraction], ...],
        Doc("Corners [x, y] in fractions of the picture, origin top left"),
        Length(3, 64),
    ]

    def __post_init__(self) -> None:
        _check_polygon("zone", self.name, self.points)


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """A named area that is black in snapshots and in masked copies of clips."""

    name: Annotated[str, Doc("Name, told in the manifest of a masked copy"), NAME]
    points: Annotated[
        tuple[tuple[_Fraction, _Fraction], ...],
        Doc("Corners [x, y] in fractions of the picture, origin top left"),
        Length(3, 64),
    ]
    is_blind: Annotated[
        bool, Doc("Nothing in it is detected either; without it what stands there still counts")
    ] = False

    def __post_init__(self) -> None:
        _check_polygon("mask", self.name, self.points)


@dataclass(frozen=True, slots=True)
class LineConfig:
    """A named directed line in the picture."""

    name: Annotated[str, Doc("Name that rules refer to"), NAME]
    start: Annotated[tuple[_Fraction, _Fraction], Doc("[x, y] where the line begins, in fractions")]
    end: Annotated[tuple[_Fraction, _Fraction], Doc("[x, y] where the line ends, in fractions")]

    def __post_init__(self) -> None:
        if (length := math.dist(self.start, self.end)) < MIN_LINE_LENGTH:
            raise ConfigError(
                f"line {self.name!r} is {length:g} long; allowed: at least {MIN_LINE_LENGTH:g}"
            )


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """One camera: its streams, what is drawn over its picture, and its rules."""

    id: Annotated[str, Doc("Name of the camera in topics, files and events"), NAME]
    main: Annotated[
        Kinded, Doc("Stream that is recorded, never decoded"), Kind("driver", key="driver")
    ]
    sub: Annotated[
        Kinded | None,
        Doc("Small stream that is analysed; without it, the key frames that main is recorded from"),
        Kind("driver", key="driver"),
    ] = None
    zones: Annotated[tuple[ZoneConfig, ...], Doc("Areas"), Length(0, 64)] = ()
    lines: Annotated[tuple[LineConfig, ...], Doc("Lines"), Length(0, 64)] = ()
    masks: Annotated[
        tuple[MaskConfig, ...], Doc("Privacy masks; recordings stay as they are"), Length(0, 64)
    ] = ()
    rules: Annotated[
        tuple[Kinded, ...], Doc("What makes an event"), Kind("rule"), Length(0, 64)
    ] = ()
    calibration_path: Annotated[
        Path | None,
        Doc("Calibration of the ground; speed and congestion need it"),
        ReadableFile(),
    ] = None
    max_rate_per_s: Annotated[
        float, Doc("Detections a second on this camera at most, on average"), Range(0.1, 30)
    ] = 2.5
    motion: Annotated[MotionConfig, Doc("Motion gate")] = field(default_factory=MotionConfig)
    tracking: Annotated[TrackConfig, Doc("Tracker")] = field(default_factory=TrackConfig)
    events: Annotated[EventConfig, Doc("Events")] = field(default_factory=EventConfig)

    def __post_init__(self) -> None:
        problems = [
            *_repeated("zone", (zone.name for zone in self.zones)),
            *_repeated("line", (line.name for line in self.lines)),
            *_repeated("mask", (mask.name for mask in self.masks)),
            *_repeated("rule", (rule.settings.name for rule in self.rules)),
            *self._dangling("zone", "zone", [zone.name for zone in self.zones]),
            *self._dangling("zone", "exclude", [zone.name for zone in self.zones]),
            *self._dangling("line", "line", [line.name for line in self.lines]),
            *self._unmet(),
        ]
        if problems:
            raise ConfigError(*problems)

    @property
    def places(self) -> Places:
        """Give the zones and lines as the rules see them."""
        return Places(
            zones={
                zone.name: Zone(zone.name, tuple(Point(x, y) for x, y in zone.points))
                for zone in self.zones
            },
            lines={
                line.name: Line(line.name, Point(*line.start), Point(*line.end))
                for line in self.lines
            },
        )

    def _dangling(self, what: str, key: str, known: list[str]) -> list[str]:
        found = []
        for index, rule in enumerate(self.rules):
            named = getattr(rule.settings, key, None) or ()
            for name in (named,) if isinstance(named, str) else named:
                if name not in known:
                    allowed = ", ".join(known) or f"none, this camera has no {what}"
                    found.append(f"rules[{index}].{key}: no {what} {name!r}; allowed: {allowed}")
        return found

    def _unmet(self) -> list[str]:
        """Name the rules that need what this camera cannot give."""
        if self.calibration_path is not None:
            return []
        return [
            f"rules[{index}]: {rule.kind} needs calibrated ground; allowed: with calibration_path"
            for index, rule in enumerate(self.rules)
            if GROUND in analytics.rule(rule.kind).SPEC.needs
        ]


def _check_polygon(what: str, name: str, points: tuple[tuple[float, float], ...]) -> None:
    if not is_simple(points):
        raise ConfigError(
            f"points of {what} {name!r} cross or repeat;"
            " allowed: a simple polygon, corners in order"
        )
    if (found := area(points)) <= MIN_ZONE_AREA:
        raise ConfigError(
            f"points of {what} {name!r} cover {found:g} of the picture;"
            f" allowed: more than {MIN_ZONE_AREA:g}"
        )


def _repeated(what: str, names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    found = []
    for name in names:
        if name in seen:
            found.append(f"two {what}s are called {name!r}; allowed: each name once")
        seen.add(name)
    return found
