"""Room in the outbox: what `thinning` chooses goes, and is told in gap records that are sent."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby

from agent.core import log
from agent.core.clock import NS_PER_MS
from agent.core.model import Lane, Message
from agent.core.wire import Topics
from agent.delivery import removals, thinning
from agent.delivery.removals import MOST_TOLD, Span
from agent.delivery.thinning import NO_END, Block, Candidate, Progress

BLOCK_ROWS = 500
LEAST_ROWS = 64  # to be thinned, while there are others: one in four of a few is most of them
MOST_BLOCKS = 5  # a transaction, so that no alarm waits long, unless it is still too full
RECORDS_SHARE = 0.05  # of the database, for records that wait; what older ones told is asked for
HIGH_WATER = 0.90  # of the database's bound: telemetry goes, so that events still find room
LOW_WATER = 0.85
GAP_KIND = "state/outbox"
MOST_DETAIL = 512  # letters, by the schema
_PROGRESS = "thinning"  # in the table meta

LANES = (Lane.TELEMETRY, Lane.BACKFILL)  # of which rows may go

_log = log.get(__name__)


def fill(connection: sqlite3.Connection) -> float:
    """Give how full the database is, as a share of its bound."""
    pages, free, most = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "max_page_count")
    )
    return (pages - free) / most


def make_room(connection: sqlite3.Connection, topics: Topics) -> list[Message]:
    """Remove rows until there is room, if that is lacking; gives the records of it, to be put."""
    if fill(connection) < HIGH_WATER:
        return []
    progress, gone, since_utc_ns, done = _progress(connection), [], NO_END, 0
    while (now := fill(connection)) > LOW_WATER and (done < MOST_BLOCKS or now >= HIGH_WATER):
        progress, block, rows = _next(connection, progress, topics.up("beat"))
        if block is None:
            break
        victims = _victims(block, rows)
        gone += _removed(connection, [row["id"] for row in victims])
        since_utc_ns = min((row["created_utc_ns"] for row in victims), default=since_utc_ns)
        done += 1
    _keep_progress(connection, progress)
    if gone:
        gone += _removed(connection, _old_records(connection, topics.up(GAP_KIND)))
    told = records("evicted", since_utc_ns, removals.together(gone))
    for record in told:
        _log.warning("messages evicted", detail=record.body["detail"])
    return told


def records(state: str, since_utc_ns: int, gone: Sequence[Span]) -> list[Message]:
    """Give the messages that tell of removed numbers.

    Args:
        state: why they went: evicted, dropped.
        since_utc_ns: when the oldest of them was made.
        gone: the numbers.
    """
    found = []
    for at in range(0, len(gone), MOST_TOLD):
        told = gone[at : at + MOST_TOLD]
        body = {
            "state": state,
            "since_utc_ms": max(0, since_utc_ns // NS_PER_MS),
            "detail": _words(told),
            "removed": removals.told(told),
        }
        found.append(Message(Lane.STATE, GAP_KIND, body, is_retained=True))
    return found


def _next(
    connection: sqlite3.Connection, progress: Progress, beat_topic: str
) -> tuple[Progress, Block | None, list[sqlite3.Row]]:
    """Find the next rows; gives how far everything is once they are dealt with."""
    (newest_id,) = connection.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()
    for known, least in ((progress, LEAST_ROWS), (progress, 1), (thinning.afresh(progress), 1)):
        found = known
        for block in thinning.blocks(known):
            rows = _rows(connection, block, beat_topic)
            if block.is_thinned and 0 < len(rows) < least:
                continue
            is_end = len(rows) < BLOCK_ROWS
            last_id = min(block.last_id, newest_id) if is_end else rows[-1]["id"]
            found = thinning.moved(found, block, last_id)
            if rows:
                return found, block, rows
    return progress, None, []


def _rows(connection: sqlite3.Connection, block: Block, beat_topic: str) -> list[sqlite3.Row]:
    sign = "=" if block.are_beats else "!="
    rows = [
        row
        for lane in LANES  # one by one: the index has each in order
        for row in connection.execute(
            "SELECT id, topic, boot, created_mono_ns, created_utc_ns FROM outbox"  # noqa: S608 - ours
            " INDEXED BY outbox_by_lane WHERE quarantine IS NULL AND lane = ? AND id > ?"
            f" AND id <= ? AND needs_receipt = 0 AND topic {sign} ? ORDER BY id LIMIT ?",
            (lane, block.after_id, block.last_id, beat_topic, BLOCK_ROWS),
        )
    ]
    return sorted(rows, key=lambda row: int(row["id"]))[:BLOCK_ROWS]


def _victims(block: Block, rows: list[sqlite3.Row]) -> list[sqlite3.Row]:
    if not block.is_thinned:
        return rows
    candidates = [
        Candidate(row["id"], row["topic"], row["boot"], row["created_mono_ns"]) for row in rows
    ]
    chosen = set(thinning.thinned(candidates))
    return [row for row in rows if row["id"] in chosen]


def _old_records(connection: sqlite3.Connection, topic: str) -> list[int]:
    """Give the records that are too much: what they told is known without them, to be asked for."""
    (most_pages,) = connection.execute("PRAGMA max_page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    room_bytes = most_pages * page_bytes * RECORDS_SHARE
    old = []
    for row in connection.execute(
        "SELECT id, length(payload) AS size_bytes FROM outbox INDEXED BY outbox_by_lane"
        " WHERE quarantine IS NULL AND lane = 'state' AND topic = ? ORDER BY id DESC",
        (topic,),
    ):
        room_bytes -= row["size_bytes"]
        if room_bytes < 0:
            old.append(row["id"])
    return old


def _removed(connection: sqlite3.Connection, row_ids: list[int]) -> list[Span]:
    query = "SELECT boot, lane, payload FROM outbox WHERE id = ?"
    rows = (connection.execute(query, (row_id,)).fetchone() for row_id in row_ids)
    gone = removals.note(connection, rows)
    connection.executemany("DELETE FROM outbox WHERE id = ?", [(row_id,) for row_id in row_ids])
    return gone


def _progress(connection: sqlite3.Connection) -> Progress:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_PROGRESS,)).fetchone()
    with suppress(TypeError, ValueError, KeyError):
        beats, rest = (tuple(map(int, marks)) for marks in json.loads(row["value"]))
        if len(beats) == len(rest) == thinning.TIMES + 1:
            return Progress(beats, rest)
    return Progress()


def _keep_progress(connection: sqlite3.Connection, progress: Progress) -> None:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_PROGRESS, json.dumps([progress.beats, progress.rest])),
    )


def _words(gone: Sequence[Span]) -> str:
    parts, total = [], 0
    for (boot, lane), found in groupby(gone, lambda span: span[:2]):
        ours = list(found)
        count = sum(span.total for span in ours)
        total += count
        parts.append(f"{count} of {lane}, boot {boot} seq {ours[0].first} to {ours[-1].last}")
    return f"{total} messages removed: {'; '.join(parts)}"[:MOST_DETAIL]
