"""What a person at the box wants done, by the running agent or, if none runs, here.

Only one process writes the database: the agent while it runs.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from agent import app
from agent.core.clock import RealClock
from agent.core.errors import ConfigError, StorageError
from agent.core.wire import Json
from agent.roles.config import CameraRole, DeviceRole, DockRole


def order(file: Path, overrides: Sequence[str], word: str, args: Json, by: str) -> Json:
    """Have a word done; gives what came of it.

    Raises:
        MalformedMessage: it is refused, in words.
        DeviceBusy: the agent does not answer.
        StorageError: it has never run, or the disk refuses.
    """
    from agent.device import requests, status

    settings = app.load_config(file, overrides, check_files=False)
    request = requests.Request(word, args, by)
    if status.read(settings.state_dir)["running"]:
        return requests.ask(settings.state_dir, request, RealClock())
    if not (settings.state_dir / app.DATABASE).exists():
        raise StorageError(f"{settings.state_dir}: no agent has run here yet")
    with status.alone(settings.state_dir):
        return _done_here(settings, request)


def retention(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Give what lies on the disk, what would go next and what stays.

    Raises:
        StorageError: it has never run, or the database cannot be read.
    """
    from agent.vision import explain

    settings = app.load_camera(file, overrides, check_files=False)
    names = [camera.id for camera in settings.cameras]
    place = explain.Place(settings.state_dir, settings.retention, settings.recording, names)
    return _read(settings, lambda connection: explain.explain(connection, place, _utc_ns()))


def keepsakes(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Give all holds and pins; StorageError if it has never run."""
    from agent.vision import hold

    return _read(app.load_config(file, overrides, check_files=False), hold.listed)


def command(options: Any, word: str, args: Json) -> Json | None:
    """Send a device a signed command of the centre; gives its answer, None if none came yet.

    Args:
        options: store, broker, site, device, wait as the command line has them.
        word: of the command.
        args: of the word.

    Raises:
        ConfigError: the store has no key.
        MalformedMessage: the args are not in order.
        UplinkDown: the broker is out of reach.
    """
    from agent.core.wire import Topics
    from agent.delivery.config import BrokerConfig
    from agent.delivery.session import MqttSession, SessionOptions
    from agent.evidence.keys import DeviceKey
    from agent.receiver import ordering

    key_path = options.store / app.RECEIVER_KEY
    if not key_path.exists():
        raise ConfigError(f"{key_path}: no key; allowed: the folder of a receiver that has run")
    host, port = app.host_and_port(options.broker)
    clock = RealClock()
    order = ordering.signed(word, args, options.device, DeviceKey.load_or_create(key_path), clock)
    name = SessionOptions(f"by-hand-{clock.new_id()[-8:]}", expiry_s=0)
    session = MqttSession(BrokerConfig(host=host, port=port), name, clock)
    return ordering.send(session, Topics(options.site, options.device), order, clock, options.wait)


def dictionary(options: Any) -> tuple[int, int]:
    """Make a dictionary for batches; gives of how many messages, and its size in bytes.

    Args:
        options: config, store, samples, out and size_kib as the command line has them.
    """
    from agent.core.files import write_atomic
    from agent.delivery import dictionary as trainer
    from agent.receiver.index import FILE_NAME

    if options.samples is not None:
        samples = trainer.of_file(options.samples)
    elif options.store is not None:
        samples = trainer.of_centre(options.store / FILE_NAME)
    else:
        state_dir = app.load_config(options.config, check_files=False).state_dir
        samples = trainer.of_device(state_dir / app.DATABASE)
    content = trainer.train(samples, options.size_kib << 10)
    try:
        write_atomic(options.out, content)
    except OSError as error:
        raise ConfigError(f"dictionary: --out {options.out}: {error.strerror}") from error
    return len(samples), len(content)


def utc_ms(text: str) -> int:
    """Read a moment: `now`, or ISO 8601, UTC where it names no zone.

    Raises:
        ConfigError: it is neither.
    """
    from datetime import UTC, datetime

    if text == "now":
        return _utc_ns() // 1_000_000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"time {text!r}; allowed: now, or as 2026-05-31T14:05:00, UTC unless it ends in a zone"
        ) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _read(settings: DeviceRole, look: Any) -> dict[str, Any]:
    import sqlite3

    from agent.core.store import read_only

    database = settings.state_dir / app.DATABASE
    try:
        with closing(read_only(database)) as connection:
            found: dict[str, Any] = look(connection)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{database}: {error}") from error
    return found


def _done_here(settings: DeviceRole, request: Any) -> Json:
    from agent.core.wire import Topics
    from agent.delivery.ledger import Ledger
    from agent.delivery.outbox import Outbox
    from agent.device import requests
    from agent.device.quarantine import Quarantine
    from agent.evidence import custody
    from agent.roles import dockwords, fileorders
    from agent.roles.keepsakes import box_words
    from agent.vision.hold import Keepsakes

    clock = RealClock()
    store = app.open_store(settings, clock)

    def note(connection: Any, kind: str, subject: str, detail: Any) -> object:
        return custody.append(connection, clock, kind, subject, detail)

    try:
        ledger = Ledger(store, settings.state_dir, clock, note, lambda *_: None)
        kept: dict[str, requests.Do] = {}
        if isinstance(settings, CameraRole):
            cameras = [camera.id for camera in settings.cameras]
            kept.update(box_words(Keepsakes(store, clock, note, cameras)))
        if isinstance(settings, DockRole):
            kept.update(dockwords.words_of(settings, store, clock, note))
        # The number of the agent's last start: one of our own would be a start without a birth.
        topics = Topics(settings.site, settings.device)
        outbox = Outbox(store, topics, clock, _last_boot(store))
        if isinstance(settings, DockRole):
            from agent.docking.tags import Tags

            kept.update(dockwords.tag_words(Tags(store, note, outbox.put_in)))
        aside = Quarantine(store, outbox, note, lambda _: None)
        return requests.do({**kept, **fileorders.words(ledger), **aside.words}, request)
    finally:
        store.close()


def _last_boot(store: Any) -> int:
    with store.reading() as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()
    return 1 if row is None else int(row["value"])


def _utc_ns() -> int:
    return RealClock().utc_ns()
