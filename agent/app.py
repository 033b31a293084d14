"""From a configuration to running workers: the one place that knows drivers.

What only some commands need is imported inside them: the main process does without OpenCV and the
detector, the analysis process without MQTT, cryptography and the database.
"""

import importlib
import inspect as inspect_module
import pkgutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import drivers
from agent.core import config, log, memory
from agent.core import config_page as pages
from agent.core.clock import Clock, RealClock
from agent.core.config import Kinded
from agent.core.errors import ConfigError, Unsupported
from agent.device import inspect as box
from agent.roles.config import CameraRole, DeviceRole, DockRole
from agent.vision import analytics

if TYPE_CHECKING:
    from agent.core.store import Store
    from agent.evidence.centrekeys import CentreKeys
    from agent.evidence.keys import PublicKey
    from agent.evidence.verify import Report
    from agent.receiver.config import BulkConfig
    from agent.supervisor import Supervisor

ROLES: Mapping[str, type[DeviceRole]] = {"camera": CameraRole, "dock": DockRole}
INSPECT_TOPICS = box.TOPICS
DATABASE = "outpost.db"
KEY = Path("keys") / "device.key"
GROUPS = ("driver", "rule", "dock", "link", "badge")
DOCKS = ("folder_dock", "usb_dock")  # drivers that give slots
LINKS = ("bodycam_serial",)  # drivers that speak to body cameras
BADGES = ("badge_reader",)
INSTRUMENTS = frozenset({"gps", *DOCKS, *LINKS, *BADGES})  # they give no picture
RECEIVER_KEY = "receiver.key"
MIB = 1 << 20
URL_SCHEMES = ("rtsp://", "rtsps://")


def load_config(
    file: Path, overrides: Sequence[str] = (), *, check_files: bool = True
) -> DeviceRole:
    """Read a device's configuration, of whichever role.

    Raises:
        ConfigError: with one line for every mistake.
    """
    role = config.peek(file, "role", overrides)
    shape = ROLES.get(role, CameraRole) if isinstance(role, str) else CameraRole
    return config.load(file, shape, kinds, overrides, check_files=check_files)


def load_camera(
    file: Path, overrides: Sequence[str] = (), *, check_files: bool = True
) -> CameraRole:
    """Read the configuration of a box beside cameras.

    Raises:
        ConfigError: with one line for every mistake; also if it is a box of another role.
    """
    settings = load_config(file, overrides, check_files=check_files)
    if not isinstance(settings, CameraRole):
        raise ConfigError(f"{file}: role: {settings.role!r}; allowed for this command: 'camera'")
    return settings


def kinds(group: str) -> Mapping[str, Callable[[], type]]:
    """Give the kinds of a group, such as `rule`, each with a loader of its configuration."""
    groups = {"driver": _driver_names(), "dock": DOCKS, "link": LINKS, "badge": BADGES}
    if group in groups:
        return {name: partial(_driver_config, name) for name in groups[group]}
    return analytics.kinds()


def config_page() -> str:
    """Give the text of docs/CONFIG.md."""
    groups = {group: {name: load() for name, load in kinds(group).items()} for group in GROUPS}
    return pages.page("Configuration", ROLES, groups)


def effective(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Give every value of a configuration, defaults included, by its key.

    Raises:
        ConfigError: with one line for every mistake, keys that cannot be read included.
    """
    from agent.evidence.keys import PublicKey

    settings = load_config(file, overrides)
    PublicKey.load(settings.delivery.receiver_key_path)
    return {**dict(_flat("", settings)), **_calibrations(settings)}


def run(file: Path, overrides: Sequence[str]) -> int:
    """Run the agent until it is told to stop; gives the exit code.

    Raises:
        ConfigError: a person must mend the configuration first.
        DeviceBusy: another agent runs on the same state directory.
    """
    from agent.device import boots
    from agent.device import status as status_file
    from agent.evidence.keys import DeviceKey, PublicKey

    memory.stay_small()
    settings = load_config(file, overrides)
    for told in _calibrations(settings).values():
        log.get(__name__).info("calibration", what=told)
    clock = RealClock()
    centre_key = PublicKey.load(settings.delivery.receiver_key_path)
    with status_file.alone(settings.state_dir):
        key = DeviceKey.load_or_create(settings.state_dir / KEY)
        store = open_store(settings, clock)
        try:
            parts = {
                "store": store,
                "key": key,
                "centre_keys": _centre_keys(settings, centre_key, store, clock),
                "clock": clock,
                "boot": boots.next_boot(store, settings.state_dir, clock),
                **_satellites(settings, clock),
            }
            return _supervisor(settings, parts, _child_argv(file, overrides)).run()
        finally:
            store.close()


def _supervisor(settings: DeviceRole, parts: Any, analysis_argv: Sequence[str]) -> "Supervisor":
    """Wire a role; `parts` are those of a kit that every role has."""
    if isinstance(settings, DockRole):
        from agent.roles import dock as dock_role
        from agent.roles.kit import DockKit

        hardware = _dock(settings, parts["clock"])
        badges = _badges(settings, parts["clock"])
        return dock_role.build(DockKit(config=settings, dock=hardware, badges=badges, **parts))
    if not isinstance(settings, CameraRole):
        raise ConfigError(f"role: {settings.role!r}; allowed: {', '.join(ROLES)}")
    from agent.roles import camera as camera_role
    from agent.roles.camerakit import CameraKit

    sources = {item.id: source(item.main, parts["clock"]) for item in settings.cameras}
    kit = CameraKit(config=settings, sources=sources, analysis_argv=analysis_argv, **parts)
    return camera_role.build(kit)


def _badges(settings: DockRole, clock: Clock) -> Any:
    """Give the reader of badges, None if the dock has none."""
    reader = settings.dock.officers.reader
    if reader is None:
        return None
    return importlib.import_module(f"drivers.{reader.kind}").build(reader.settings, clock)


def _dock(settings: DockRole, clock: Clock) -> Any:
    """Give the slots of a dock; nothing is opened yet."""
    link = settings.dock.link

    def open_link(port: str) -> Any:
        if link is None:
            raise Unsupported(f"{port}: dock.link is not configured: cameras are not spoken to")
        module = importlib.import_module(f"drivers.{link.kind}")
        return module.open_link(port, link.settings, clock)

    hardware = settings.dock.hardware
    return importlib.import_module(f"drivers.{hardware.kind}").build(
        hardware.settings, clock, open_link
    )


def analysis(file: Path, overrides: Sequence[str]) -> int:
    """Run the analysis process, the child of `run`; ends when its standard input does."""
    from agent.vision import analysis as process
    from agent.vision.relay import Relayed

    memory.stay_small()
    settings = load_camera(file, overrides)
    clock, stop = RealClock(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    relayed = Relayed(sys.stdin.buffer, stop)
    relayed.start()
    process.run(
        settings.cameras,
        lambda camera: (
            relayed.source(camera.id) if camera.sub is None else source(camera.sub, clock)
        ),
        settings.detector,
        settings.state_dir,
        clock,
        sys.stdout,
        stop,
    )
    return 0


def status(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Give what the agent does and holds.

    Raises:
        StorageError: it has never run.
    """
    from agent.core import mending
    from agent.device import status as status_file

    state_dir = load_config(file, overrides, check_files=False).state_dir
    found = {**status_file.read(state_dir), **box.counts(state_dir / DATABASE)}
    if copies := mending.copies(state_dir / DATABASE):
        found["database"] = f"was damaged and mended; set aside: {', '.join(copies)}"
    return found


def inspect(file: Path, overrides: Sequence[str], topic: str, limit: int) -> box.Rows:
    """Give rows of the box's database; StorageError if there is none.

    The whole custody log ends with its head, signed: by it a cut at the end is seen.
    """
    settings = load_config(file, overrides, check_files=False)
    found = box.rows(settings.state_dir / DATABASE, topic, limit)
    if topic == "custody" and found and len(found) < limit:
        found.append(_signed_head(settings))
    return found


def device_key(file: Path, overrides: Sequence[str]) -> Path:
    """Make the device's key unless it is there, and give the public half's file."""
    from agent.evidence.keys import DeviceKey

    state_dir = load_config(file, overrides, check_files=False).state_dir
    DeviceKey.load_or_create(state_dir / KEY)
    return (state_dir / KEY).with_suffix(".pub")


def receiver_key(store_dir: Path) -> Path:
    """Make the receiver's key unless it is there, and give the public half's file."""
    from agent.evidence.keys import DeviceKey

    DeviceKey.load_or_create(store_dir / RECEIVER_KEY)
    return (store_dir / RECEIVER_KEY).with_suffix(".pub")


def rotate_receiver(store_dir: Path, site: str, to: Path | None, out: Path | None) -> Path:
    """Have the receiver's key name the next one; gives the new public key's file, or the chain's.

    Raises:
        ConfigError: there is no key, the chain does not fit, or `to` is no public key.
        DeviceBusy: the receiver runs.
    """
    from agent.device import status as status_file
    from agent.evidence.keys import PublicKey
    from agent.receiver import rotate

    with status_file.alone(store_dir):
        if to is None:
            return rotate.in_place(store_dir, site, RealClock())
        target = out or store_dir / rotate.HANDED
        return rotate.hand_over(store_dir, site, PublicKey.load(to), target, RealClock())


def detect(video: str, every: int, min_score: float, model: str) -> Iterator[Mapping[str, Any]]:
    """Give a line for each picture of a video file or stream."""
    from agent.vision import detect as detector
    from agent.vision import offline
    from agent.vision.config import DetectorConfig

    clock = RealClock()
    low = min(DetectorConfig().low_score, min_score)
    wanted = DetectorConfig(model=model or "auto", min_score=min_score, low_score=low)
    eye = detector.load(wanted, clock)
    return offline.detect_lines(video_source(video, clock), eye, every, min_score)


def video_source(video: str, clock: Clock) -> Any:
    """Give the source of a video file or an RTSP address."""
    if video.startswith(URL_SCHEMES):
        return source(Kinded("rtsp", _driver_config("rtsp")(url=video)), clock)
    return source(Kinded("file", _driver_config("file")(path=Path(video))), clock)


def verify(path: Path, key: Path, receivers: Sequence[Path]) -> "Report":
    """Check a hand-over or a custody log with public keys alone."""
    from agent.evidence import verify as verifier
    from agent.evidence.keys import PublicKey

    centre = [PublicKey.load(receiver) for receiver in receivers]
    return verifier.verify(path, PublicKey.load(key), *centre)


def receive(options: Any) -> int:
    """Run the receiver of one site until it is told to stop.

    Args:
        options: broker, site, store, devices, name, retention_days, copies, dictionaries and those
            of S3 as the command line has them.
    """
    from agent.core.checkup import Checkup
    from agent.core.store import Store
    from agent.delivery.config import BrokerConfig
    from agent.device import status as status_file
    from agent.evidence.keys import DeviceKey
    from agent.receiver import identity, rotate, service
    from agent.receiver.config import ReceiverConfig
    from agent.receiver.index import FILE_NAME
    from agent.receiver.schema import RECEIVER_MIGRATIONS
    from agent.supervisor import Supervisor, Worker

    host, port = host_and_port(options.broker)
    settings = ReceiverConfig(
        BrokerConfig(host=host, port=port),
        options.site,
        options.store.absolute(),
        options.devices.absolute(),
        options.name,
        options.retention_days,
        options.copies,
        bulk=_bulk(options),
        dictionaries_dir=options.dictionaries,
    )
    clock = RealClock()
    with status_file.alone(settings.store_dir):
        rotate.finish(settings.store_dir)
        key = DeviceKey.load_or_create(settings.store_dir / RECEIVER_KEY)
        chain = identity.read_rotations(settings.store_dir, key, settings.site)
        settings = replace(settings, rotations=chain)
        store = Store(settings.store_dir / FILE_NAME, RECEIVER_MIGRATIONS, clock, 1 << 40)
        store.open()
        try:
            sessions = service.sessions(settings, clock)
            workers: list[Worker] = [
                service.Receiver(settings, sessions, store, key, clock),
                Checkup(store, clock),
            ]
            return Supervisor(workers, clock, check=lambda: store.write(lambda _: None)).run()
        finally:
            store.close()


def _bulk(options: Any) -> "BulkConfig | None":
    from agent.receiver.config import BulkConfig

    if not options.s3_endpoint:
        return None
    return BulkConfig(
        options.s3_endpoint,
        options.s3_bucket,
        options.s3_region,
        options.s3_key,
        options.bulk_over << 20,
    )


def receiver_status(store_dir: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Give what a receiver holds; StorageError if there is no store."""
    from agent.receiver import index

    return index.contents(store_dir)


def open_store(settings: DeviceRole, clock: Clock) -> "Store":
    """Open the box's database for writing; StorageError if it cannot be."""
    from agent.core.schema import DEVICE_MIGRATIONS
    from agent.core.store import Store
    from agent.device import mended

    store = Store(
        settings.state_dir / DATABASE, DEVICE_MIGRATIONS, clock, settings.delivery.max_db_mb * MIB
    )
    store.open(partial(mended.note, clock))
    return store


def host_and_port(text: str) -> tuple[str, int]:
    """Read HOST:PORT; ConfigError if it is not."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"--broker {text!r}; allowed: HOST:PORT")
    return host, int(port)


def _calibrations(settings: DeviceRole) -> dict[str, str]:
    """Read every calibration and say in a line each what it is; ConfigError for a bad one."""
    if not isinstance(settings, CameraRole):
        return {}
    from agent.vision import calibration

    return {
        f"cameras.{index}.calibration": calibration.read(camera.calibration_path).summary
        for index, camera in enumerate(settings.cameras)
        if camera.calibration_path is not None
    }


def _signed_head(settings: DeviceRole) -> dict[str, Any]:
    from contextlib import closing

    from agent.core.store import read_only
    from agent.evidence import custody
    from agent.evidence.keys import DeviceKey

    key = DeviceKey.load_or_create(settings.state_dir / KEY)
    with closing(read_only(settings.state_dir / DATABASE)) as connection:
        return custody.signed_head(connection, key, RealClock(), settings.device)


def _centre_keys(
    settings: DeviceRole, first: "PublicKey", store: "Store", clock: Clock
) -> "CentreKeys":
    from agent.evidence import custody
    from agent.evidence.centrekeys import CentreKeys

    def note(kind: str, subject: str, detail: Mapping[str, object]) -> object:
        return store.write(
            lambda connection: custody.append(connection, clock, kind, subject, detail)
        )

    keys = CentreKeys(first, settings.site, (settings.state_dir / KEY).parent, note)
    keys.open()
    return keys


def _satellites(settings: DeviceRole, clock: Clock) -> dict[str, Any]:
    """Give what a kit has of a satellite receiver: nothing unless one is configured."""
    if not settings.time.gps_port:
        return {}
    module = importlib.import_module("drivers.gps")
    gps = module.build(module.Config(settings.time.gps_port, settings.time.gps_baud), clock)
    return {"fix": gps.latest, "instruments": (gps,)}


def source(choice: Kinded, clock: Clock) -> Any:
    """Give the source of a chosen driver; nothing is opened yet."""
    module = importlib.import_module(f"drivers.{choice.kind}")
    if "connect" in inspect_module.signature(module.build).parameters:
        return module.build(choice.settings, clock, partial(_found_stream, choice.settings, clock))
    return module.build(choice.settings, clock)


def _found_stream(settings: Any, clock: Clock, url: str) -> Any:
    """Give the RTSP source of an address that another driver has found."""
    rtsp = importlib.import_module("drivers.rtsp")
    names = {item.name for item in fields(rtsp.Config)} & {item.name for item in fields(settings)}
    return rtsp.build(rtsp.Config(url, **{name: getattr(settings, name) for name in names}), clock)


def _driver_names() -> list[str]:
    found = [item.name for item in pkgutil.iter_modules(drivers.__path__)]
    return [name for name in found if not name.startswith("_") and name not in INSTRUMENTS]


def _driver_config(name: str) -> type:
    shape: type = importlib.import_module(f"drivers.{name}").Config
    return shape


def _child_argv(file: Path, overrides: Sequence[str]) -> list[str]:
    options = [word for override in overrides for word in ("--set", override)]
    return [sys.executable, "-m", "agent", "analysis", "--config", str(file), *options]


def _flat(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Kinded):
        yield f"{where}.kind", value.kind
        value = value.settings
    if is_dataclass(value):
        for item in fields(value):
            spot = f"{where}.{item.name}" if where else item.name
            yield from _flat(spot, getattr(value, item.name))
    elif isinstance(value, tuple) and any(is_dataclass(item) for item in value):
        for index, item in enumerate(value):
            yield from _flat(f"{where}.{index}", item)
    else:
        yield where, str(value) if isinstance(value, Path) else value
