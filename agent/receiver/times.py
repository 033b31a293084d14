"""Adjusted times of messages: the device's `time` says what true UTC was beside its own stamps.

The original stamp stays; the adjusted time and its error stand beside it, for messages that are
here and for those that come later. Where two adjustments overlap, the later one counts.
"""

import sqlite3

from agent.core import log, wire

MOST_A_BOOT = 2000

_log = log.get(__name__)

_ADJUST = """
    UPDATE message SET (adjusted_utc_ms, adjusted_error_ms) = (
        SELECT message.mono_ms + a.offset_ms, a.error_ms FROM adjustment AS a
        WHERE a.device = message.device AND a.boot = message.boot
        AND a.from_mono_ms <= message.mono_ms AND message.mono_ms < a.to_mono_ms
        ORDER BY a.to_mono_ms DESC, a.offset_ms LIMIT 1)
"""
_SHIFT = """
    UPDATE event SET shift_ms = ? WHERE device = ? AND event_id = ?
"""


def adjust(connection: sqlite3.Connection, envelope: wire.Json) -> None:
    """Keep an adjustment and apply it to what is here."""
    body = envelope["body"]
    key = (envelope["device"], body["boot"])
    query = "SELECT count(*) FROM adjustment WHERE device = ? AND boot = ?"
    if connection.execute(query, key).fetchone()[0] >= MOST_A_BOOT:
        _log.error("too many adjustments of time", device=key[0], boot=key[1], most=MOST_A_BOOT)
        return
    connection.execute(
        "INSERT INTO adjustment (device, boot, from_mono_ms, to_mono_ms, offset_ms, error_ms,"
        " source) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            *(*key, body["from_mono_ms"], body["to_mono_ms"], body["offset_ms"]),
            *(body["error_ms"], body["source"]),
        ),
    )
    span = (*key, body["from_mono_ms"], body["to_mono_ms"])
    where = "WHERE device = ? AND boot = ? AND mono_ms >= ? AND mono_ms < ?"
    connection.execute(f"{_ADJUST} {where}", span)
    events = connection.execute(
        "SELECT device, id, adjusted_utc_ms - t_utc_ms AS shift_ms, payload FROM message"  # noqa: S608 - the words are ours
        f" {where} AND kind LIKE 'event/%' ORDER BY seq",
        span,
    ).fetchall()
    for row in events:
        event_id = wire.decode("envelope", row["payload"])["body"]["event_id"]
        connection.execute(_SHIFT, (row["shift_ms"], row["device"], event_id))


def take(connection: sqlite3.Connection, envelope: wire.Json) -> None:
    """Adjust a message that comes after its adjustment."""
    key = (envelope["device"], envelope["id"])
    query = "SELECT 1 FROM adjustment WHERE device = ? AND boot = ? LIMIT 1"
    if connection.execute(query, (envelope["device"], envelope["boot"])).fetchone() is None:
        return
    connection.execute(f"{_ADJUST} WHERE device = ? AND id = ?", key)
    if envelope["kind"].startswith("event/"):
        row = connection.execute(
            "SELECT adjusted_utc_ms - t_utc_ms AS shift_ms FROM message"
            " WHERE device = ? AND id = ?",
            key,
        ).fetchone()
        if row["shift_ms"] is not None:
            event_id = envelope["body"]["event_id"]
            connection.execute(_SHIFT, (row["shift_ms"], envelope["device"], event_id))
