"""Sealed folders whose rows are gone: a damaged database lost them, the footage is still here.

A folder speaks for itself: its manifest is signed by this device and names the event, the span and
every file. What the centre has signed for before is simply signed for again.
"""

import json
import sqlite3
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
_HAS_TRANSFERS = "SELECT 1 FROM transfer WHERE clip_id = ?"
_SEALED = "UPDATE clip SET state = 'sealed' WHERE id = ? AND state = 'receipted'"
_DONE = """
    UPDATE clip SET state = 'receipted' WHERE id = ?
    AND NOT EXISTS (SELECT 1 FROM transfer WHERE clip_id = clip.id AND state != 'receipted')
"""


def adopt(custodian: Custodian) -> int:
    """Give every sealed folder that is nowhere noted its rows back; gives how many there were.

    Raises:
        StorageError: the database refuses.
    """
    with custodian.store.reading() as connection:
        states = dict(connection.execute("SELECT id, state FROM clip").fetchall())
        query = "SELECT clip_id, count(*) FROM transfer GROUP BY clip_id"
        files = dict(connection.execute(query).fetchall())
    adopted = 0
    for folder in sorted((custodian.state_dir / FOLDER).glob("*")):
        state = states.get(folder.name)
        is_noted = state in ("sealed", "receipted") and folder.name in files
        if is_noted or state in ("wanted", "deleted"):
            continue  # a wanted one is made again
        try:
            adopted += _take_up(custodian, folder)
        except (IntegrityError, OSError, ValueError) as error:
            _log.error("folder without a row stays where it is", path=folder, reason=error)
    return adopted


def _take_up(custodian: Custodian, folder: Path) -> bool:
    signed = json.loads((folder / manifest.FILE_NAME).read_bytes())
    told = manifest.read(signed, custodian.key.public)
    if told["clip_id"] != folder.name or "derived_from" in told:
        return False
    handover = Handover(
        folder.name,
        folder.relative_to(custodian.state_dir),
        [
            OutgoingFile(item["name"], item["size_bytes"], item["sha256"], item["leaf_root"])
            for item in told["files"]
        ],
        signed,
        tuple(told["event_ids"]),
    )

    def change(connection: sqlite3.Connection) -> bool:
        return _note(connection, custodian, handover, told)

    is_new = custodian.store.write(change)
    if is_new:
        _log.warning("sealed clip without a row taken up again", clip_id=folder.name)
    return is_new


def _note(
    connection: sqlite3.Connection, custodian: Custodian, handover: Handover, told: wire.Json
) -> bool:
    span_ns = (told["start_utc_ms"] * NS_PER_MS, told["end_utc_ms"] * NS_PER_MS)
    values = (handover.clip_id, handover.event_ids[0], told["camera"], *span_ns)
    place = (str(handover.folder), told["missing_ms"])
    is_new = connection.execute(_CLIP, (*values, *place)).rowcount
    query = "SELECT 1 FROM clip WHERE id = ?"
    if not is_new and connection.execute(query, (handover.clip_id,)).fetchone() is None:
        _log.error("its event has another clip: folder stays where it is", path=handover.folder)
        return False
    if connection.execute(_HAS_TRANSFERS, (handover.clip_id,)).fetchone() is None:
        connection.execute(_SEALED, (handover.clip_id,))
        enqueue(connection, handover, custodian.clock)
    connection.execute(_DONE, (handover.clip_id,))
    detail = {
        "event_ids": list(handover.event_ids),
        "files": {item.name: item.sha256 for item in handover.files},
    }
    custody.append(connection, custodian.clock, "clip.adopted", handover.clip_id, detail)
    return True
