"""Files that a device says will not come, or not as they were sealed; until they come after all."""

import json
import sqlite3

from agent.core import wire


def note(connection: sqlite3.Connection, envelope: wire.Json) -> None:
    """Take what a device has told of a file."""
    body = envelope["body"]
    connection.execute(
        "INSERT OR REPLACE INTO lost_file (device, fid, clip_id, name, sha256, size_bytes, why,"
        " detail, event_ids, told_utc_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(envelope["device"], body["fid"], body["clip_id"], body["name"], body["sha256"]),
            *(body["size_bytes"], body["why"], body["detail"]),
            *(json.dumps(body["event_ids"]), envelope["t_utc_ms"]),
        ),
    )


def came(connection: sqlite3.Connection, device: str, fid: str) -> None:
    """Forget what was told of a file: it is here."""
    connection.execute("DELETE FROM lost_file WHERE device = ? AND fid = ?", (device, fid))
