"""What people ask of a dock: what its slots show, how footage stands, an officer's receipt."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent import app
from agent.core.errors import ConfigError, StorageError
from agent.core.wire import Json
from agent.roles.config import DockRole

if TYPE_CHECKING:
    from sqlite3 import Connection

    from agent.docking.bench import Pace, Tick
    from agent.docking.ingest import Card, Taken
    from agent.docking.slip import Checked, Slip
    from agent.docking.tongues import Language

T = TypeVar("T")

KEYS, KEY_NAME = "keys", "device.key"
LEAST_FREE = 0.5  # percent of the disk that is left free


def load(file: Path, overrides: Sequence[str]) -> DockRole:
    """Read a dock's configuration.

    Raises:
        ConfigError: with one line for every mistake; also if it is a box of another role.
    """
    settings = app.load_config(file, overrides, check_files=False)
    if not isinstance(settings, DockRole):
        raise ConfigError(f"{file}: role: {settings.role!r}; allowed for this command: 'dock'")
    return settings


def table(
    slots: Sequence[Mapping[str, Any]], file: Path, overrides: Sequence[str]
) -> Sequence[Mapping[str, str]]:
    """Give slots, as a running dock told them, as rows of a table."""
    from agent.docking import lines

    language = load(file, overrides).dock.language
    return [lines.row(slot, language) for slot in slots]


def told(settings: DockRole) -> tuple[dict[str, Any], "Language"]:
    """Give what a dock told of itself last, how old that is, and the language of its words."""
    from agent.core.clock import NS_PER_MS, RealClock
    from agent.device import status

    found = status.read(settings.state_dir)
    age_ms = RealClock().utc_ns() // NS_PER_MS - found.get("utc_ms", 0)
    return {**found, "age_s": max(0, age_ms // 1000)}, settings.dock.language


def sentences(settings: DockRole) -> dict[str, tuple[object, str]]:
    """Give by each slot's name what is worth a line of its own, and the line."""
    from agent.docking import lines

    status, language = told(settings)
    if not status["running"]:
        return {"": (None, "the dock's agent does not run: nothing here is known")}
    slots = status.get("slots", ())
    return {slot["slot"]: (lines.news(slot), lines.line(slot, language)) for slot in slots}


def slip(settings: DockRole, which: str) -> "Slip":
    """Give an officer's receipt.

    Raises:
        ConfigError: no such docking.
        StorageError: it is not sealed yet, or the dock has never run.
        HashMismatch: its list is not the one that was signed.
    """
    from agent.docking import slip as slips

    def look(connection: "Connection") -> "Slip":
        return slips.read(connection, settings.state_dir, slips.find(connection, which))

    found = _read(settings, look)
    return replace(found, officer="") if settings.dock.officers.names_hidden else found


def check_slip(settings: DockRole, scanned: str) -> "Checked":
    """Compare what was scanned off a receipt with what is known here.

    Raises:
        ConfigError: it is no slip.
        StorageError: the dock has never run.
    """
    from agent.docking import slip as slips

    return _read(settings, lambda it: slips.check(it, settings.state_dir, settings.device, scanned))


def report(settings: DockRole, hours: float | None) -> Json:
    """Give how footage and cameras stand; without officers' names if the site hides them.

    Raises:
        StorageError: the dock has never run.
    """
    import shutil

    from agent.core.clock import RealClock
    from agent.docking import report as reports

    def look(connection: "Connection") -> Json:
        space = shutil.disk_usage(settings.state_dir)
        now = reports.Now(RealClock().utc_ns(), space.free, space.total)
        return reports.report(connection, settings.dock, now, hours)

    found = _read(settings, look)
    return reports.hide(found) if settings.dock.officers.names_hidden else found


def draw(text: str, path: Path) -> None:
    """Write a QR code of a text as SVG or PNG.

    Raises:
        ConfigError: another ending, or it cannot be written there.
    """
    import segno

    if path.suffix not in (".svg", ".png"):
        raise ConfigError(f"--qr {path}; allowed: a file that ends in .svg or .png")
    try:
        segno.make(text, error="q", micro=False).save(str(path), scale=8, border=4)
    except OSError as error:
        raise ConfigError(f"--qr {path}: {error.strerror}") from error


def _read(settings: DockRole, look: "Callable[[Connection], T]") -> T:
    import sqlite3

    from agent.core.store import read_only

    database = settings.state_dir / app.DATABASE
    if not database.exists():
        raise StorageError(f"{settings.state_dir}: no agent has run here yet")
    try:
        with closing(read_only(database)) as connection:
            return look(connection)
    except sqlite3.Error as error:
        raise StorageError(f"{database}: {error}") from error


def ingest(card: "Card", out: Path, key_path: Path | None, pace: "Pace", tick: "Tick") -> "Taken":
    """Bring a card or folder in by hand; gives what came of it.

    Args:
        card: what is brought in.
        out: takes everything; made if it is not there.
        key_path: of the key that signs; None: one within `out`, made at the first time.
        pace: tells how far it is.
        tick: called as it goes on, with the bytes done since.

    Raises:
        ConfigError: what is asked makes no sense, or the key cannot be read.
        DeviceBusy: another run writes into the same folder.
        SourceLost: the card went away.
        StorageError: our own disk refuses.
    """
    from agent.core.clock import RealClock
    from agent.core.schema import DEVICE_MIGRATIONS
    from agent.core.store import Store
    from agent.delivery.clockstate import kernel_clock
    from agent.device import status
    from agent.docking import ingest as by_hand
    from agent.docking.config import CopyConfig
    from agent.docking.intake import Custodian
    from agent.evidence.keys import DeviceKey

    by_hand.check(card, out)
    clock = RealClock()
    with status.alone(out):
        key = DeviceKey.load_or_create(key_path or out / KEYS / KEY_NAME)
        store = Store(out / app.DATABASE, DEVICE_MIGRATIONS, clock)
        store.open()
        try:
            name = by_hand.BY_HAND
            who = Custodian(name, name, out, store, key, clock, kernel_clock)
            return by_hand.ingest(card, who, CopyConfig(keep_free_percent=LEAST_FREE), tick, pace)
        finally:
            store.close()
