"""Files whose rows are gone: a kill between the row and its file costs nothing but a second try."""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.core import log
from agent.core.files import sync_directory
from agent.core.store import Store
from agent.vision.disks import Folder

PRUNED = frozenset({"clips", "exports"})  # there a folder goes with the last file in it

_log = log.get(__name__)


def note(connection: sqlite3.Connection, files: Iterable[tuple[str, str]]) -> None:
    """Give files up inside the transaction that takes their rows.

    Args:
        connection: of the transaction.
        files: the id of the folder and the path in it.
    """
    connection.executemany("INSERT OR IGNORE INTO garbage VALUES (?, ?)", files)


def sweep(store: Store, folders: Sequence[Folder]) -> int:
    """Delete what was given up, as far as its disks are there; gives how many files went.

    Raises:
        StorageError: the database refuses.
    """
    with store.reading() as connection:
        rows = [tuple(row) for row in connection.execute("SELECT folder, path FROM garbage")]
    by_id = {folder.folder_id: folder.path for folder in folders}
    done = []
    for folder_id, path in rows:
        if folder_id in by_id and _is_unlinked(by_id[folder_id] / path):
            done.append((folder_id, path))
    for parent in {(by_id[folder_id] / path).parent for folder_id, path in done}:
        if parent.is_dir():
            sync_directory(parent)
    for folder_id, path in done:
        if Path(path).parts[0] in PRUNED:
            _prune(by_id[folder_id], Path(path).parent)
    if done:
        query = "DELETE FROM garbage WHERE folder = ? AND path = ?"
        store.write(lambda connection: connection.executemany(query, done).rowcount)
    return len(done)


def _prune(root: Path, folder: Path) -> None:
    """Remove empty folders, up to the one that holds them all."""
    while len(folder.parts) > 1:
        try:
            (root / folder).rmdir()
        except OSError:
            return
        folder = folder.parent


def _is_unlinked(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("file not deleted, will be tried again", path=path, reason=error)
        return False
    return True
