"""What is on the box, read from its database without disturbing the agent.

Every function gives plain dictionaries, newest first, for a table or for `--json`.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.core import wire
from agent.core.errors import ConfigError, MalformedMessage, StorageError
from agent.core.store import read_only

Rows = list[dict[str, Any]]

_QUERIES: Mapping[str, str] = {
    "outbox": "SELECT id, lane, message_id, topic, length(payload) AS bytes, created_utc_ns,"
    " needs_receipt, tries, quarantine FROM outbox ORDER BY id DESC LIMIT ?",
    "quarantine": "SELECT id, topic, lane, created_utc_ns,"
    " CAST(strftime('%s', 'now') AS INTEGER) - created_utc_ns / 1000000000 AS age_s,"
    " length(payload) AS bytes, tries, needs_receipt, quarantine AS reason, message_id"
    " FROM outbox WHERE quarantine IS NOT NULL ORDER BY id DESC LIMIT ?",
    "events": "SELECT id, camera, kind, rule, state, start_utc_ns, end_utc_ns FROM event"
    " ORDER BY start_utc_ns DESC LIMIT ?",
    "clips": "SELECT c.id, c.event_id, c.camera, c.state, c.start_utc_ns, c.end_utc_ns, c.path,"
    " c.missing_ms, c.reason, (SELECT count(*) FROM transfer t WHERE t.clip_id = c.id) AS files,"
    " (SELECT count(*) FROM transfer t WHERE t.clip_id = c.id AND t.state = 'receipted')"
    " AS receipted FROM clip c ORDER BY c.start_utc_ns DESC LIMIT ?",
    "files": "SELECT fid, clip_id, name, size_bytes, sha256, CASE WHEN is_final"
    " THEN 'refused_for_good' ELSE state END AS state, reason FROM transfer"
    " ORDER BY created_utc_ns DESC LIMIT ?",
    "segments": "SELECT id, camera, state, path, start_utc_ns, end_utc_ns, packets, size_bytes,"
    " sha256 FROM segment ORDER BY id DESC LIMIT ?",
    "gaps": "SELECT * FROM gap ORDER BY id DESC LIMIT ?",
    "commands": "SELECT command_id, word, utc_ns, state, detail FROM command ORDER BY id DESC"
    " LIMIT ?",
    "custody": "SELECT seq, utc_ms, kind, subject, detail, previous, hash FROM custody"
    " ORDER BY seq LIMIT ?",
}
TOPICS = tuple(_QUERIES)

_COUNTS: Mapping[str, str] = {
    "events_open": "SELECT count(*) FROM event WHERE state = 'open'",
    "events_closed": "SELECT count(*) FROM event WHERE state = 'closed'",
    "clips_wanted": "SELECT count(*) FROM clip WHERE state = 'wanted'",
    "clips_sealed": "SELECT count(*) FROM clip WHERE state = 'sealed'",
    "clips_receipted": "SELECT count(*) FROM clip WHERE state = 'receipted'",
    "clips_empty": "SELECT count(*) FROM clip WHERE state = 'empty'",
    "clips_refused": "SELECT count(*) FROM clip WHERE refused != ''",
    "clips_deleted": "SELECT count(*) FROM clip WHERE state = 'deleted'",
    "holds": "SELECT count(*) FROM hold",
    "pins": "SELECT count(*) FROM pin",
    "files_waiting": "SELECT count(*) FROM transfer WHERE state = 'waiting'",
    "files_refused": "SELECT count(*) FROM transfer WHERE state = 'refused'",
    "files_refused_for_good": "SELECT count(*) FROM transfer WHERE is_final",
    "files_receipted": "SELECT count(*) FROM transfer WHERE state = 'receipted'",
    "bytes_waiting": "SELECT coalesce(sum(size_bytes), 0) FROM transfer WHERE state = 'waiting'",
    "outbox_rows": "SELECT count(*) FROM outbox WHERE quarantine IS NULL",
    "receipts_waiting": "SELECT count(*) FROM outbox"
    " WHERE needs_receipt = 1 AND quarantine IS NULL",
    "outbox_bytes": "SELECT coalesce(sum(length(payload)), 0) FROM outbox",
    "outbox_quarantined": "SELECT count(*) FROM outbox WHERE quarantine IS NOT NULL",
    "segments": "SELECT count(*) FROM segment",
    "segment_bytes": "SELECT coalesce(sum(size_bytes), 0) FROM segment",
    "gaps": "SELECT count(*) FROM gap",
    "custody_entries": "SELECT count(*) FROM custody",
}


def rows(database: Path, topic: str, limit: int) -> Rows:
    """Give up to `limit` rows of a topic.

    Raises:
        ConfigError: there is no such topic.
        StorageError: there is no database yet.
    """
    if topic not in _QUERIES:
        raise ConfigError(f"inspect: {topic!r}; allowed: {', '.join(TOPICS)}")
    from sqlite_utils import Database  # noqa: PLC0415 - 15 MiB that only this command needs

    with closing(read_only(database)) as connection:
        found = list(Database(connection).query(_QUERIES[topic], (limit,)))
    shape = _SHAPES.get(topic)
    return found if shape is None else [shape(row) for row in found]


def counts(database: Path) -> dict[str, int]:
    """Give how much of everything the box holds.

    Raises:
        StorageError: there is no database yet, or it is damaged.
    """
    try:
        with closing(read_only(database)) as connection:
            return {
                name: int(connection.execute(query).fetchone()[0])
                for name, query in _COUNTS.items()
            }
    except sqlite3.Error as error:
        raise StorageError(f"store {database}: {error}") from error


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "detail": json.loads(row["detail"])}


def _with_kind(row: dict[str, Any]) -> dict[str, Any]:
    """Put the kind in front of the topic; what goes to others has none."""
    try:
        kind = "/".join(wire.address(row["topic"]).rest)
    except MalformedMessage:
        kind = ""
    return {"id": row["id"], "kind": kind, **row}


_SHAPES: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "custody": _parsed,
    "quarantine": _with_kind,
}
