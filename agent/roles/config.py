"""The shape of a device's configuration file, one dataclass a role."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from agent.core.config import NAME, Doc, Length
from agent.core.errors import ConfigError
from agent.delivery.config import BrokerConfig, DeliveryConfig, RetentionConfig
from agent.delivery.schedule import UplinkConfig
from agent.device.homeassistant import HomeAssistantConfig
from agent.device.scrape import MetricsConfig
from agent.device.telemetry import TelemetryConfig
from agent.device.timekeeper import TimeConfig
from agent.docking.config import DockConfig
from agent.vision.config import CameraConfig, DetectorConfig, RecordConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRole:
    """What a box of every role has."""

    device: Annotated[str, Doc("Name of this box: MQTT client id and common name"), NAME]
    site: Annotated[str, Doc("Name of the site"), NAME]
    role: Annotated[Literal["camera", "dock"], Doc("What this box is")]
    state_dir: Annotated[Path, Doc("Folder of everything that must survive a restart")]
    delivery: Annotated[DeliveryConfig, Doc("Receipts and limits of delivery")]
    broker: Annotated[BrokerConfig, Doc("The site's broker")] = field(default_factory=BrokerConfig)
    uplink: Annotated[UplinkConfig, Doc("The link as the site pays for it")] = field(
        default_factory=UplinkConfig
    )
    telemetry: Annotated[TelemetryConfig, Doc("Reports on the box itself")] = field(
        default_factory=TelemetryConfig
    )
    time: Annotated[TimeConfig, Doc("True time beside NTP: a GPS receiver")] = field(
        default_factory=TimeConfig
    )
    metrics: Annotated[MetricsConfig, Doc("Figures for Prometheus")] = field(
        default_factory=MetricsConfig
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraRole(DeviceRole):
    """A box beside one or more fixed cameras."""

    cameras: Annotated[tuple[CameraConfig, ...], Doc("Cameras"), Length(1, 64)]
    recording: Annotated[RecordConfig, Doc("Continuous recording")] = field(
        default_factory=RecordConfig
    )
    retention: Annotated[RetentionConfig, Doc("What stays on the disk, and what goes first")] = (
        field(default_factory=RetentionConfig)
    )
    detector: Annotated[DetectorConfig, Doc("Detector")] = field(default_factory=DetectorConfig)
    homeassistant: Annotated[HomeAssistantConfig, Doc("Entities for Home Assistant")] = field(
        default_factory=HomeAssistantConfig
    )

    def __post_init__(self) -> None:
        names = [camera.id for camera in self.cameras]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"cameras: two are called {twice[0]!r}; allowed: each id once")


@dataclass(frozen=True, slots=True, kw_only=True)
class DockRole(DeviceRole):
    """A dock for body cameras."""

    dock: Annotated[DockConfig, Doc("Slots, cameras, and what happens to footage")]
