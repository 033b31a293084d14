"""A damaged database is set aside, and what can be read of it goes into a new one in its place.

The new one is made beside the damaged one and takes its place by a rename once it is complete: a
start that is cut off in between begins again, or finds the new one finished.
"""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.core import log
from agent.core.errors import StorageError
from agent.core.files import sync_directory, sync_file, write_atomic
from agent.core.salvage import Salvaged, salvage

KEPT_COPIES: Final = 2  # of damaged databases; older ones make room
PARTS: Final = ("", "-wal", "-shm")
_MARK, _NEW, _BAD = ".damaged", ".salvage", ".bad-"
_READ_BYTES: Final = 1 << 20

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Mended:
    """What a start did with a damaged database."""

    moved_to: Path
    reason: str  # what was wrong with it
    sha256: str  # of the damaged file
    salvaged: Salvaged | None  # None: there was no room, everything begins anew

    @property
    def text(self) -> str:
        """Say it in a line."""
        outcome = "begun anew, nothing was read" if self.salvaged is None else self.salvaged.text
        return f"{self.reason}; set aside as {self.moved_to.name}; {outcome}"


Note = Callable[[sqlite3.Connection, Mended], None]
"""Writes down in the new database, before it is used, what has happened to the old one."""


def mark(path: Path, reason: str) -> None:
    """Have the next start mend a database.

    Raises:
        OSError: the disk refuses.
    """
    write_atomic(_beside(path, _MARK), reason.encode(errors="replace"))


def marked(path: Path) -> str:
    """Give why a database is to be mended, empty if it is not."""
    try:
        return _beside(path, _MARK).read_text(errors="replace") or "marked as damaged"
    except FileNotFoundError:
        return ""


def tidy(path: Path) -> None:
    """Settle what a start that was cut off while it mended has left."""
    new = _beside(path, _NEW)
    if not new.exists():
        return
    if path.exists():
        _remove(new)
        return
    numbers = _copies(path)
    target = _beside(path, f"{_BAD}{numbers[-1] if numbers else 0}")
    _set_aside(path, target)  # the new one must not meet the log of the old one
    _into_place(new, path)


def mend(
    path: Path, reason: str, utc_ns: int, make: Callable[[Path], sqlite3.Connection], note: Note
) -> Mended:
    """Put a new database into the place of a damaged one.

    Args:
        path: the damaged one, which nobody has open.
        reason: what is wrong with it.
        utc_ns: now; part of the name that it gets.
        make: gives a new database under a path, in autocommit mode.
        note: see there.

    Raises:
        StorageError, OSError: not even an empty database can be made.
    """
    new = _beside(path, _NEW)
    target = _beside(path, f"{_BAD}{utc_ns}")
    sha256 = _sha256(path)
    try:
        salvaged: Salvaged | None = _fill(new, path, make)
    except (OSError, sqlite3.Error, StorageError) as error:
        _log.error("damaged database not read, it is kept", file=path.name, reason=error)
        salvaged = None
        _remove(new)
        with closing(make(new)):
            pass
    mended = Mended(target, reason, sha256, salvaged)
    with closing(make(new)) as connection:
        connection.execute("BEGIN")
        note(connection, mended)
        connection.execute("COMMIT")
    sync_file(new)
    _set_aside(path, target)
    _into_place(new, path)
    _forget_old(path, utc_ns)
    _log.error("database was damaged", outcome=mended.text)
    return mended


def _fill(new: Path, damaged: Path, make: Callable[[Path], sqlite3.Connection]) -> Salvaged:
    _remove(new)
    with closing(make(new)) as fresh:
        return salvage(damaged, fresh)


def _into_place(new: Path, path: Path) -> None:
    sync_directory(path.parent)
    new.rename(path)
    _beside(path, _MARK).unlink(missing_ok=True)
    sync_directory(path.parent)


def _set_aside(path: Path, target: Path) -> None:
    for suffix in PARTS:
        part = _beside(path, suffix)
        if part.exists():
            part.rename(_beside(target, suffix))


def _forget_old(path: Path, newest: int) -> None:
    """Keep the copy just made, whatever its clock said, and the newest of the others."""
    others = [number for number in _copies(path) if number != newest]
    for number in others[: len(others) + 1 - KEPT_COPIES]:
        _remove(_beside(path, f"{_BAD}{number}"))


def copies(path: Path) -> list[str]:
    """Give the names of the damaged databases that are kept, oldest first."""
    return [f"{path.name}{_BAD}{number}" for number in _copies(path)]


def _copies(path: Path) -> list[int]:
    """Give the numbers of the copies that there are, whole or in parts, smallest first."""
    found = (item.name for item in path.parent.glob(f"{path.name}{_BAD}*"))
    numbers = (name.rpartition(_BAD)[2].partition("-")[0] for name in found)
    return sorted({int(number) for number in numbers if number.isdigit()})


def _remove(path: Path) -> None:
    for suffix in PARTS:
        _beside(path, suffix).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_READ_BYTES):
                digest.update(piece)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return digest.hexdigest()
