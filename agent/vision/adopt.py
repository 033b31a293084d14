"""Sealed folders and their rows: what a damaged database lost or changed, the folder sets right.

A folder speaks for itself: its manifest is signed by this device and names the event, the span and
every file. Rows that say something else are made anew, files without a row get one, and what the
centre has signed for before is simply signed for again. Looked at are folders that are not
delivered yet, and after a salvage all of them.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agent.core import log, wire
from agent.core.clock import NS_PER_MS
from agent.core.errors import IntegrityError
from agent.delivery.ledger import Handover, OutgoingFile, enqueue
from agent.evidence import custody, manifest
from agent.vision.clip import FOLDER, Custodian

_log = log.get(__name__)

_CLIP = """
    INSERT OR IGNORE INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state, path,
        missing_ms, reason) VALUES (?, ?, ?, ?, ?, 'sealed', ?, ?, 'adopted')
"""
_RENAME = "UPDATE OR IGNORE clip SET id = ? WHERE path = ? AND id != ?"
_STRAY = (
    "SELECT id FROM clip WHERE state = 'wanted' AND (length(id) != 32 OR id GLOB '*[^0-9a-f]*')"
)
_ROWS = "SELECT fid, clip_id, path, name, size_bytes, sha256, leaf_root, state FROM transfer"
_PAPERS = """
    UPDATE transfer SET manifest = ?, event_ids = ?, state = 'waiting', is_final = 0
    WHERE clip_id = ? AND state != 'receipted' AND (manifest != ? OR event_ids != ?)
"""
_STATE = """
    UPDATE clip SET state = CASE WHEN EXISTS
        (SELECT 1 FROM transfer WHERE clip_id = clip.id AND state != 'receipted')
        THEN 'sealed' ELSE 'receipted' END
    WHERE id = ?
"""

_Rows = Sequence[sqlite3.Row]


def adopt(custodian: Custodian, *, is_thorough: bool = False) -> int:
    """Set the rows of sealed folders right; gives of how many.

    Args:
        custodian: whose folders.
        is_thorough: the database was damaged: look at every folder.

    Raises:
        StorageError: the database refuses.
    """
    _rename_strays(custodian)
    with custodian.store.reading() as connection:
        states = dict(connection.execute("SELECT id, state FROM clip").fetchall())
        rows = connection.execute(_ROWS).fetchall()
    by_folder: dict[str, list[sqlite3.Row]] = defaultdict(list)
    for row in rows:
        for name in {row["clip_id"], Path(row["path"]).parent.name}:
            by_folder[name].append(row)
    adopted = 0
    for folder in sorted((custodian.state_dir / FOLDER).glob("*")):
        state, known = states.get(folder.name), by_folder[folder.name]
        if state in ("wanted", "deleted"):  # a wanted one is made again
            continue
        is_settled = state is not None and known and all(map(_is_settled, known))
        if is_settled and not is_thorough:
            continue
        try:
            adopted += _set_right(custodian, folder, known)
        except (IntegrityError, OSError, ValueError) as error:
            _log.error("folder without a row stays where it is", path=folder, reason=error)
    return adopted


def _rename_strays(custodian: Custodian) -> None:
    """A wanted clip whose id is none any more gets another one: nobody has heard of it yet."""
    with custodian.store.reading() as connection:
        strays = [row["id"] for row in connection.execute(_STRAY)]
    renamed = [(custodian.clock.new_id(), stray) for stray in strays]
    query = "UPDATE clip SET id = ? WHERE id = ?"
    custodian.store.write(lambda connection: connection.executemany(query, renamed).rowcount)


def _is_settled(row: sqlite3.Row) -> bool:
    """Whether a row says that its file is delivered, and is not obviously changed."""
    place = str(Path(FOLDER) / row["clip_id"] / row["name"])
    return bool(row["state"] == "receipted" and row["path"] == place)


def _set_right(custodian: Custodian, folder: Path, known: _Rows) -> bool:
    signed = json.loads((folder / manifest.FILE_NAME).read_bytes())
    told = manifest.read(signed, custodian.key.public)
    if told["clip_id"] != folder.name or "derived_from" in told:
        return False
    handover = Handover(
        folder.name,
        folder.relative_to(custodian.state_dir),
        tuple(_outgoing(told)),
        signed,
        tuple(told["event_ids"]),
    )

    def change(connection: sqlite3.Connection) -> bool:
        return _note(connection, custodian, handover, told, known)

    is_changed = custodian.store.write(change)
    if is_changed:
        _log.warning("rows of a sealed clip set right", clip_id=folder.name)
    return is_changed


def _outgoing(told: wire.Json) -> Iterator[OutgoingFile]:
    for item in told["files"]:
        yield OutgoingFile(item["name"], item["size_bytes"], item["sha256"], item["leaf_root"])


def _note(
    connection: sqlite3.Connection,
    custodian: Custodian,
    handover: Handover,
    told: wire.Json,
    known: _Rows,
) -> bool:
    is_changed = _note_clip(connection, handover, told)
    if is_changed is None:
        _log.error("its event has another clip: folder stays where it is", path=handover.folder)
        return False
    right = {
        file.name: row for file in handover.files for row in known if _fits(row, file, handover)
    }
    wrong = [(row["fid"],) for row in known if row not in right.values()]
    connection.executemany("DELETE FROM transfer WHERE fid = ?", wrong)
    missing = tuple(file for file in handover.files if file.name not in right)
    enqueue(connection, replace(handover, files=missing), custodian.clock)
    papers = (wire.encode(handover.manifest).decode(), json.dumps(list(handover.event_ids)))
    mended = connection.execute(_PAPERS, (*papers, handover.clip_id, *papers)).rowcount
    if not (is_changed or wrong or missing or mended):
        return False
    connection.execute(_STATE, (handover.clip_id,))
    detail = _detail(handover, missing)
    custody.append(connection, custodian.clock, "clip.adopted", handover.clip_id, detail)
    return True


def _note_clip(connection: sqlite3.Connection, handover: Handover, told: wire.Json) -> bool | None:
    """See that there is the clip's row; gives whether it was changed, None if it cannot be."""
    place = str(handover.folder)
    renamed = connection.execute(_RENAME, (handover.clip_id, place, handover.clip_id)).rowcount
    span_ns = (told["start_utc_ms"] * NS_PER_MS, told["end_utc_ms"] * NS_PER_MS)
    values = (handover.clip_id, handover.event_ids[0], told["camera"], *span_ns, place)
    made = connection.execute(_CLIP, (*values, told["missing_ms"])).rowcount
    query = "SELECT 1 FROM clip WHERE id = ?"
    if connection.execute(query, (handover.clip_id,)).fetchone() is None:
        return None
    return bool(renamed or made)


def _fits(row: sqlite3.Row, file: OutgoingFile, handover: Handover) -> bool:
    place = str(handover.folder / file.name)
    said = (row["clip_id"], row["path"], row["name"], row["size_bytes"], row["sha256"])
    true = (handover.clip_id, place, file.name, file.size_bytes, file.sha256)
    return said == true and row["leaf_root"] == file.leaf_root and _is_id(row["fid"])


def _is_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")  # noqa: PLR2004 - of an id


def _detail(handover: Handover, missing: Sequence[OutgoingFile]) -> Mapping[str, object]:
    return {
        "event_ids": list(handover.event_ids),
        "files": {item.name: item.sha256 for item in handover.files},
        "again": [item.name for item in missing],
    }
