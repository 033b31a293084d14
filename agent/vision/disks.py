"""The folders that recordings go to, each known by the paper that lies on it.

A disk may be pulled, fill up, refuse, or be exchanged for another one. New segments go in turn to
the folders that are there; what lies on a disk that is away keeps its row, and a disk of somebody
else is neither written nor tidied.
"""

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import StorageError
from agent.core.files import write_atomic
from agent.core.store import Store
from agent.vision import room

META = "outpost-folder.json"
STATE_DIR = ""  # id of the folder that needs no paper: the state directory
AGAIN_NS = 60 * NS_PER_S  # a folder that refused is tried last, and first again after this
READY, FULL, REFUSING, MISSING, FOREIGN = "ready", "full", "refusing", "missing", "foreign"
_HARMLESS = frozenset({"lost+found", META + ".tmp"})

_UPSERT = """
    INSERT INTO folder (id, path, is_own_disk, created_utc_ns) VALUES (?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET path = excluded.path, is_own_disk = excluded.is_own_disk
"""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is there and is ours."""

    folder_id: str
    path: Path


@dataclass(frozen=True, slots=True)
class FolderHealth:
    """State of one folder for beats and people."""

    state: str  # ready, full, refusing, missing, foreign
    since_utc_ns: int
    detail: str


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found at a path."""

    folder: Folder | None
    state: str
    detail: str


class Disks:
    """Where recordings lie and where the next ones go; safe from any thread.

    Args:
        state_dir: what is recorded goes there if `folders` is empty.
        store: remembers the folders.
        clock: time of a change.
        device: name on the papers.
        folders: to record to, in the order of their numbers.
    """

    def __init__(
        self,
        state_dir: Path,
        store: Store,
        clock: Clock,
        device: str = "",
        folders: Sequence[Path] = (),
    ) -> None:
        self._state_dir = state_dir
        self._store = store
        self._clock = clock
        self._device = device
        self._paths = tuple(folders) or (state_dir,)
        self._lock = threading.RLock()
        self._refused_ns: dict[Path, tuple[int, str]] = {}
        self._health: dict[Path, FolderHealth] = {}
        self._turns: dict[str, int] = {}
        self._known: dict[str, tuple[Path, bool]] | None = None  # by id: path, on a disk of its own

    def present(self) -> tuple[Folder, ...]:
        """Give every folder that is there now and may hold recordings, retired ones too.

        Raises:
            StorageError: the database refuses.
        """
        paths = dict.fromkeys((self._state_dir, *self._paths))
        paths |= dict.fromkeys(path for path, _ in self._remembered().values())
        looks = [self._look(path) for path in paths]
        found = {look.folder.folder_id: look.folder for look in looks if look.folder}
        return tuple(found.values())

    def in_turn(self, camera: str) -> tuple[Folder, ...]:
        """Give the folders that a camera's next segment may go to, the best one first.

        Raises:
            StorageError: there is none, in words for a person; or the database refuses.
        """
        looks = [(path, self._look(path)) for path in self._paths]
        usable = [(path, look.folder) for path, look in looks if look.folder is not None]
        roomy = [(path, folder) for path, folder in usable if _lacks(path) is None]
        if not roomy:
            reasons = (_lacks(path) if look.folder else look.detail for path, look in looks)
            raise StorageError("; ".join(filter(None, reasons)))
        with self._lock:
            turn = self._turns.setdefault(camera, len(self._turns) - 1) + 1
            self._turns[camera] = turn
        first = turn % len(roomy)
        ordered = roomy[first:] + roomy[:first]
        ordered.sort(key=lambda item: self._is_refusing(item[0]))
        return tuple(folder for _, folder in ordered)

    def refused(self, folder: Folder, reason: str) -> None:
        """Note that a folder did not take what it was given."""
        with self._lock:
            self._refused_ns[folder.path] = (self._clock.mono_ns(), reason)

    def accepted(self, folder: Folder) -> None:
        """Note that a folder took what it was given."""
        with self._lock:
            self._refused_ns.pop(folder.path, None)

    def check(self) -> None:
        """Look at every configured folder; a disk that hangs holds up only who calls this."""
        for path in self._paths:
            self._note(path, self._state_of(path))

    def health(self) -> Mapping[str, FolderHealth]:
        """Give the state of every configured folder, by `disk-1`, `disk-2` and so on."""
        with self._lock:
            return {
                f"disk-{number}": self._health[path]
                for number, path in enumerate(self._paths, start=1)
                if path in self._health
            }

    def _state_of(self, path: Path) -> _Look:
        look = self._look(path)
        if look.folder is None:
            return look
        if (refused := self._refused_ns.get(path)) is not None:
            return _Look(None, REFUSING, refused[1])
        lack = _lacks(path)
        return look if lack is None else _Look(None, FULL, lack)

    def _note(self, path: Path, look: _Look) -> None:
        before = self._health.get(path)
        if before is not None and before.state == look.state:
            return
        detail = look.detail or str(path)
        with self._lock:
            self._health[path] = FolderHealth(look.state, self._clock.utc_ns(), detail)
        if before is not None or look.state != READY:
            tell = _log.info if look.state == READY else _log.error
            tell(f"recording folder {look.state}", path=path, detail=look.detail)

    def _is_refusing(self, path: Path) -> bool:
        refused = self._refused_ns.get(path)
        return refused is not None and self._clock.mono_ns() - refused[0] < AGAIN_NS

    def _look(self, path: Path) -> _Look:
        if path == self._state_dir:
            return _Look(Folder(STATE_DIR, path), READY, "")
        meta = path / META
        try:
            document = json.loads(meta.read_text())
            folder_id, device = str(document["folder"]), str(document["device"])
        except FileNotFoundError:
            return self._look_without_paper(path)
        except OSError as error:
            return _Look(None, MISSING, f"{meta}: {error.strerror}")
        except (ValueError, KeyError, TypeError) as error:
            return _Look(None, FOREIGN, f"{meta}: cannot be understood: {error!r}")
        if device != self._device:
            return _Look(None, FOREIGN, f"{path}: holds recordings of device {device!r}")
        self._remember(folder_id, path)
        return _Look(Folder(folder_id, path), READY, "")

    def _look_without_paper(self, path: Path) -> _Look:
        try:
            names = {entry.name for entry in path.iterdir()}
            is_own_disk = self._is_own_disk(path)
        except OSError as error:
            return _Look(None, MISSING, f"{path}: {error.strerror}")
        was_own_disk = any(known == (path, True) for known in self._remembered().values())
        if was_own_disk and not is_own_disk:
            return _Look(None, MISSING, f"{path}: its disk is not mounted")
        if names - _HARMLESS:
            return _Look(None, FOREIGN, f"{path}: holds other files; allowed: an empty folder")
        if path not in self._paths:
            return _Look(None, MISSING, f"{path}: empty")
        with self._lock:
            return self._look(path) if (path / META).exists() else self._begin(path)

    def _begin(self, path: Path) -> _Look:
        folder_id = self._clock.new_id()
        document = {
            "device": self._device,
            "folder": folder_id,
            "created_utc_ms": self._clock.utc_ns() // NS_PER_MS,
        }
        try:
            write_atomic(path / META, json.dumps(document).encode())
        except OSError as error:
            return _Look(None, REFUSING, f"{path}: {error.strerror}")
        self._remember(folder_id, path)
        _log.info("recording folder begun", path=path, folder=folder_id)
        return _Look(Folder(folder_id, path), READY, "")

    def _is_own_disk(self, path: Path) -> bool:
        return path.stat().st_dev != self._state_dir.stat().st_dev

    def _remembered(self) -> dict[str, tuple[Path, bool]]:
        if self._known is None:
            with self._store.reading() as connection:
                rows = connection.execute("SELECT id, path, is_own_disk FROM folder").fetchall()
            self._known = {row["id"]: (Path(row["path"]), bool(row["is_own_disk"])) for row in rows}
        return self._known

    def _remember(self, folder_id: str, path: Path) -> None:
        known = self._remembered()
        told = (path, self._is_own_disk(path))
        if known.get(folder_id) == told:
            return
        values = (folder_id, str(path), int(told[1]), self._clock.utc_ns())

        def change(connection: sqlite3.Connection) -> int:
            return connection.execute(_UPSERT, values).rowcount

        self._store.write(change)
        known[folder_id] = told


def _lacks(path: Path) -> str | None:
    """Say what a file system has too little of to begin a segment, None if it has enough."""
    try:
        disk = room.of(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if disk.free_bytes < disk.least_bytes:
        return f"{path}: {disk.free_bytes} bytes free; needed: {disk.least_bytes}"
    if disk.free_files < disk.least_files:
        return f"{path}: room for {disk.free_files} more files; needed: {disk.least_files}"
    return None
