"""The shape of a dock's configuration."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from agent.core.config import Doc, Kind, Kinded, Length, Pattern, Range
from agent.core.errors import ConfigError

PERSON = Pattern(r"[^\x00-\x1f\x7f]{1,64}", "1-64 letters, no control characters")


@dataclass(frozen=True, slots=True)
class FleetCamera:
    """A body camera of this site."""

    serial: Annotated[str, Doc("As the camera tells it"), PERSON]
    officer: Annotated[
        str, Doc("Who carries it; empty: nobody by name"), Pattern(".{0,64}", "")
    ] = ""


@dataclass(frozen=True, slots=True)
class Badge:
    """A badge and its holder."""

    badge: Annotated[str, Doc("What the reader says of it"), PERSON]
    officer: Annotated[str, Doc("Whose it is"), PERSON]


@dataclass(frozen=True, slots=True)
class OfficersConfig:
    """Who carries which camera."""

    mode: Annotated[
        Literal["fixed", "pool"],
        Doc(
            "fixed: by `dock.fleet`, else by the camera; pool: whoever holds a badge to the reader"
        ),
    ] = "fixed"
    reader: Annotated[
        Kinded | None, Doc("Badge reader of a pool; none: there is none"), Kind("badge", "driver")
    ] = None
    badges: Annotated[
        tuple[Badge, ...],
        Doc("Whose badge is whose; empty: a badge says its officer"),
        Length(0, 10_000),
    ] = ()
    take_s: Annotated[float, Doc("How long a slot says Take after a badge"), Range(5, 600)] = 60.0
    names_hidden: Annotated[bool, Doc("Whether views and pages leave officers out")] = False


@dataclass(frozen=True, slots=True)
class CopyConfig:
    """How footage comes off the cameras."""

    at_once_mb: Annotated[
        int, Doc("Memory for copying, all slots together, in MB"), Range(2, 256)
    ] = 16
    recordings: Annotated[
        tuple[Annotated[str, Pattern("[a-z0-9]{1,8}", "a-z 0-9")], ...],
        Doc("Endings of recordings; other files are kept too, but never wiped"),
        Length(1, 32),
    ] = ("mp4", "mov", "avi", "mkv", "ts", "h264", "h265", "wav", "jpg", "gpx", "nmea")
    max_files: Annotated[
        int, Doc("Files of a camera; more: a technician looks"), Range(10, 100_000)
    ] = 20_000
    max_depth: Annotated[int, Doc("Folders within folders"), Range(1, 32)] = 8
    keep_free_percent: Annotated[
        float, Doc("Of the dock's disk: below, footage stays on the cameras"), Range(0.5, 50)
    ] = 2.0
    storage_wait_s: Annotated[
        float, Doc("How long a camera may take to come back as storage"), Range(2, 300)
    ] = 30.0
    rescue: Annotated[bool, Doc("Whether broken recordings get a playable copy beside them")] = True


@dataclass(frozen=True, slots=True)
class WipeConfig:
    """When a file may go from a camera: only with the centre's receipt for it."""

    enabled: Annotated[bool, Doc("Whether files are wiped at all")] = True
    min_hold_h: Annotated[
        float, Doc("Hours that a file stays on its camera after it was sealed here"), Range(0, 8760)
    ] = 24.0
    min_copies: Annotated[int, Doc("Copies that the centre must have signed for"), Range(1, 16)] = 2
    compare: Annotated[
        Literal["full", "sampled"],
        Doc("What of the camera's file is read again before: all, or its first and last 4 MiB"),
    ] = "full"
    second_copy_dir: Annotated[
        Path | None,
        Doc("A folder on another disk: makes wiping without receipts possible in a long outage"),
    ] = None
    outage_days: Annotated[
        float, Doc("With `second_copy_dir`: days without any receipt before"), Range(1, 365)
    ] = 7.0
    fuller_than_percent: Annotated[
        float, Doc("With `second_copy_dir`: how full a camera must be"), Range(1, 100)
    ] = 85.0


@dataclass(frozen=True, slots=True)
class KeepConfig:
    """What stays on the dock's disk once the centre has signed for it."""

    days: Annotated[float, Doc("At least so long, in days"), Range(0, 3650)] = 7.0
    max_gb: Annotated[
        float, Doc("Share of the disk for footage, in GB"), Range(0.001, 1_000_000)
    ] = 500.0


@dataclass(frozen=True, slots=True)
class DockConfig:
    """The dock: its slots, its cameras, and what happens to their footage."""

    hardware: Annotated[Kinded, Doc("The slots"), Kind("dock", key="driver")]
    link: Annotated[
        Kinded | None,
        Doc("How cameras are spoken to; none: only their storage is looked at"),
        Kind("link", key="driver"),
    ] = None
    fleet: Annotated[tuple[FleetCamera, ...], Doc("Cameras of this site"), Length(0, 10_000)] = ()
    only_fleet: Annotated[
        bool, Doc("Whether a camera that is not in `fleet` is a technician's business")
    ] = False
    settings: Annotated[
        tuple[str, ...],
        Doc("`name=value` of settings pushed to every camera, by its own names"),
        Length(0, 64),
    ] = ()
    firmware: Annotated[
        tuple[str, ...], Doc("Firmware that is known to be right; empty: any"), Length(0, 64)
    ] = ()
    set_clock: Annotated[
        Literal["when_sure", "always", "never"],
        Doc("Whether cameras' clocks are set: only while our own is known to be right, or always"),
    ] = "when_sure"
    clock_off_h: Annotated[
        float, Doc("A clock that is off by more is reported"), Range(0.001, 10_000)
    ] = 0.05
    min_battery_percent: Annotated[
        int, Doc("Charge below which a camera is not to be taken"), Range(0, 100)
    ] = 80
    min_free_percent: Annotated[
        float, Doc("Free space below which a camera waits for its wipe"), Range(0, 100)
    ] = 20.0
    report_every_h: Annotated[float, Doc("Hours between two reports"), Range(0.1, 168)] = 24.0
    not_docked_h: Annotated[
        float, Doc("A camera not docked for so long is reported"), Range(1, 8760)
    ] = 24.0
    language: Annotated[Literal["en", "ru", "kk"], Doc("Of words for officers")] = "en"
    officers: Annotated[OfficersConfig, Doc("Who carries which")] = field(
        default_factory=OfficersConfig
    )
    copy: Annotated[CopyConfig, Doc("Copying")] = field(default_factory=CopyConfig)
    wipe: Annotated[WipeConfig, Doc("Wiping")] = field(default_factory=WipeConfig)
    keep: Annotated[KeepConfig, Doc("Keeping")] = field(default_factory=KeepConfig)

    def __post_init__(self) -> None:
        serials = [camera.serial for camera in self.fleet]
        if twice := sorted({serial for serial in serials if serials.count(serial) > 1}):
            raise ConfigError(f"fleet: {twice[0]!r} stands twice; allowed: each serial once")
        for setting in self.settings:
            if not setting.partition("=")[1]:
                raise ConfigError(f"settings: {setting!r}; allowed: name=value")
