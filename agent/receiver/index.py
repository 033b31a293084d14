"""What a receiver holds, read from its index without disturbing it."""

from contextlib import closing
from pathlib import Path
from typing import Any

from agent.core import spans
from agent.core.spans import Piece
from agent.core.store import read_only

FILE_NAME = "receiver.db"

_QUERIES = {
    "devices": "SELECT device, count(*) AS messages, max(received_utc_ms) AS last_utc_ms,"
    " max(boot) AS boot FROM message GROUP BY device ORDER BY device",
    "events": "SELECT event_id, device, camera, kind, rule, state, start_utc_ms, end_utc_ms,"
    " shift_ms, json_extract(clip, '$.clip_id') AS clip_id FROM event ORDER BY start_utc_ms",
    "files": "SELECT device, clip_id, name, size_bytes, sha256, path, stored_utc_ms FROM file"
    " ORDER BY stored_utc_ms",
    "incoming": "SELECT fid, device, updated_utc_ms FROM incoming ORDER BY updated_utc_ms",
    "lost_files": "SELECT device, clip_id, name, why, detail, told_utc_ms FROM lost_file"
    " ORDER BY told_utc_ms DESC LIMIT 1000",
    "lost": "SELECT device, boot, lane, max(seq) - count(DISTINCT seq) AS messages FROM message"
    " GROUP BY device, boot, lane HAVING max(seq) > count(DISTINCT seq)",
    "gaps": "SELECT device, boot, lane, first_seq, last_seq, marks, state, reason, asks,"
    " since_utc_ms FROM gap ORDER BY since_utc_ms DESC LIMIT 1000",
    "rejected": "SELECT utc_ms, device, topic, reason FROM rejected ORDER BY id DESC LIMIT 100",
}


def contents(store_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """Give devices, events, files, transfers under way, gaps and why, what was set aside.

    Raises:
        StorageError: there is no receiver's store.
    """
    with closing(read_only(store_dir / FILE_NAME)) as connection:
        return {
            name: [_shown(dict(row)) for row in connection.execute(query)]
            for name, query in _QUERIES.items()
        }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Give how many numbers of its span a gap has instead of a bit for each."""
    if "marks" not in row:
        return row
    piece = Piece(row["first_seq"], row["last_seq"], row["marks"])
    del row["marks"]
    return row | {"messages": spans.total(spans.stored(piece))}
