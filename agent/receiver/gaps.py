"""Numbers that are missing in (device, boot, lane): noted, closed when they come, or explained.

Everything happens inside the transaction that stores the message, so that a crash leaves the
notes and the messages in step. A device's gaps are bounded; explained ones make room first.
"""

import base64
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from agent.core import log, spans, wire
from agent.core.errors import MalformedMessage
from agent.core.spans import Piece, Run

MOST_GAPS = 2000  # a device
EVICTED, DROPPED = "evicted", "dropped"
REASONS = (EVICTED, DROPPED)  # that a state/outbox gives
_NO_END = 1 << 62

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Series:
    """What is numbered without holes."""

    device: str
    boot: int
    lane: str

    @property
    def key(self) -> tuple[str, int, str]:
        """Its key in the tables."""
        return (self.device, self.boot, self.lane)


@dataclass(frozen=True, slots=True)
class Why:
    """Why numbers will not come."""

    reason: str
    record: wire.Json | None  # signed; None: a state/outbox said so
    utc_ms: int  # when that was told


def note(
    connection: sqlite3.Connection, envelope: wire.Json, now_ms: int, ask_after_ms: int
) -> None:
    """Count a new message: a jump opens a gap, a late number takes itself out of one.

    Args:
        connection: inside the transaction that stores the message.
        envelope: the message.
        now_ms: the centre's wall clock.
        ask_after_ms: how long to wait before the device is asked.
    """
    series = Series(envelope["device"], envelope["boot"], envelope["lane"])
    seq: int = envelope["seq"]
    ask_utc_ms = now_ms + ask_after_ms
    if not _reach(connection, series, seq, seq - 1, (now_ms, ask_utc_ms)):
        _cut(connection, series, [(seq, seq)], ask_utc_ms)  # more of it may be on its way


def note_earlier(
    connection: sqlite3.Connection, envelope: wire.Json, now_ms: int, ask_after_ms: int
) -> None:
    """Take from a birth how far earlier boots have counted: what was lost at their end shows."""
    for item in envelope["body"].get("numbers", ()):
        if item["boot"] < envelope["boot"]:
            series = Series(envelope["device"], item["boot"], item["lane"])
            times_ms = (now_ms, now_ms + ask_after_ms)
            _reach(connection, series, item["last"], item["last"], times_ms)


def tell(
    connection: sqlite3.Connection,
    series: Series,
    runs: Sequence[Run],
    why: Why,
) -> int:
    """Keep why numbers will not come; gives how many of them are missing.

    Numbers above the highest one that is here are kept for when they come to be missed.
    """
    if not runs:
        return 0
    now_ms = why.utc_ms
    told = _cut(connection, series, runs, None)
    known = spans.merged(run for _, found in told for run in found)
    above = spans.overlap(runs, [(_mark(connection, series) + 1, _NO_END)])
    if ahead := spans.without(above, known):
        told.append(({**_row(series, now_ms), "ask_utc_ms": now_ms}, ahead))
    text = None if why.record is None else json.dumps(why.record)
    for row, found in told:
        if _has_room(connection, series.device):
            kept = {**row, "state": "told", "reason": why.reason, "record": text}
            _insert(connection, kept, found)
        _log.warning("messages lost", **_words(series, found), reason=why.reason)
    return sum(spans.total(found) for _, found in told)


def check_spans(items: Sequence[wire.Json]) -> None:
    """Refuse spans that do not go upwards or whose marks do not fit, which a schema cannot do.

    Raises:
        MalformedMessage: naming the first one.
    """
    for item in items:
        try:
            runs_of(item)
        except ValueError as error:
            raise MalformedMessage(str(error)) from error


def runs_of(item: wire.Json) -> list[Run]:
    """Give the numbers that an item of `removed` or `missing` names; ValueError if none can."""
    for name in ("from", "to"):
        if not isinstance(item[name], int):
            raise ValueError(f"{name}: {item[name]}; allowed: whole numbers")  # noqa: TRY004 - to be refused like the rest
    marks = base64.b64decode(item["only"], validate=True) if "only" in item else None
    return spans.runs_of(Piece(item["from"], item["to"], marks))


def tell_removed(connection: sqlite3.Connection, envelope: wire.Json, now_ms: int) -> None:
    """Take the numbers that a device's state/outbox says it has removed."""
    body = envelope["body"]
    why = Why(body["state"] if body.get("state") in REASONS else EVICTED, None, now_ms)
    for item in body.get("removed", ()):
        series = Series(envelope["device"], item["boot"], item["lane"])
        tell(connection, series, runs_of(item), why)


def _mark(connection: sqlite3.Connection, series: Series) -> int:
    """Give the highest number that is here."""
    row = connection.execute(
        "SELECT seq FROM lane_mark WHERE device = ? AND boot = ? AND lane = ?", series.key
    ).fetchone()
    return 0 if row is None else int(row["seq"])


def _reach(
    connection: sqlite3.Connection, series: Series, seq: int, until: int, times_ms: tuple[int, int]
) -> bool:
    """Move the mark up to `seq` and open a gap from the old one to `until`; false if not upwards.

    `times_ms` is now, and when to ask, by the centre's wall clock.
    """
    mark = _mark(connection, series)
    if seq <= mark:
        return False
    connection.execute(
        "INSERT INTO lane_mark (device, boot, lane, seq) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (device, boot, lane) DO UPDATE SET seq = excluded.seq",
        (*series.key, seq),
    )
    ahead = connection.execute(
        "SELECT first_seq, last_seq, marks FROM gap WHERE device = ? AND boot = ? AND lane = ?"
        " AND last_seq > ?",
        (*series.key, mark),
    ).fetchall()
    if ahead and until < seq:
        _cut(connection, series, [(seq, seq)], None)
    told = spans.merged(run for row in ahead for run in _runs(row))
    missing = spans.without([(mark + 1, until)], told) if until > mark else []
    if missing and _has_room(connection, series.device):
        _insert(connection, {**_row(series, times_ms[0]), "ask_utc_ms": times_ms[1]}, missing)
        _log.info("messages not here yet", **_words(series, missing))
    return True


def _row(series: Series, now_ms: int) -> wire.Json:
    fields = dict(zip(("device", "boot", "lane"), series.key, strict=True))
    return fields | {
        "since_utc_ms": now_ms,
        "state": "open",
        "reason": "",
        "record": None,
        "asks": 0,
    }


def _cut(
    connection: sqlite3.Connection, series: Series, runs: Sequence[Run], ask_utc_ms: int | None
) -> list[tuple[wire.Json, list[Run]]]:
    """Take numbers out of the gaps they lie in; gives each gap as it was and what was taken.

    What is left of an open gap is not asked for before `ask_utc_ms`, if that is given.
    """
    rows = connection.execute(
        "SELECT * FROM gap WHERE device = ? AND boot = ? AND lane = ? AND first_seq <= ?"
        " AND last_seq >= ?",
        (*series.key, runs[-1][1], runs[0][0]),
    ).fetchall()
    taken = []
    for found in rows:
        row, ours = dict(found), _runs(found)
        hit = spans.overlap(ours, runs)
        if not hit:
            continue
        connection.execute(
            "DELETE FROM gap WHERE device = ? AND boot = ? AND lane = ? AND first_seq = ?",
            (*series.key, row["first_seq"]),
        )
        if ask_utc_ms is not None and row["state"] == "open":
            row["ask_utc_ms"] = max(row["ask_utc_ms"], ask_utc_ms)
        _insert(connection, row, spans.without(ours, hit))
        taken.append((row, hit))
    return taken


def _insert(connection: sqlite3.Connection, row: wire.Json, runs: Sequence[Run]) -> None:
    """Add a gap in as few rows as hold its numbers; rows for which there is no room are left out.

    The first needs none: it takes the place of a row, or its room was looked for.
    """
    for number, piece in enumerate(spans.pieces(runs)):
        if number and not _has_room(connection, row["device"]):
            return
        connection.execute(
            "INSERT OR REPLACE INTO gap (device, boot, lane, first_seq, last_seq, marks,"
            " since_utc_ms, state, reason, record, asks, ask_utc_ms) VALUES (:device, :boot, :lane,"
            " :first_seq, :last_seq, :marks, :since_utc_ms, :state, :reason, :record, :asks,"
            " :ask_utc_ms)",
            {**row, "first_seq": piece.first, "last_seq": piece.last, "marks": piece.marks},
        )


def _runs(row: sqlite3.Row) -> list[Run]:
    return spans.stored(Piece(row["first_seq"], row["last_seq"], row["marks"]))


def _has_room(connection: sqlite3.Connection, device: str) -> bool:
    query = "SELECT count(*) FROM gap WHERE device = ?"
    if connection.execute(query, (device,)).fetchone()[0] < MOST_GAPS:
        return True
    removed = connection.execute(
        "DELETE FROM gap WHERE (device, boot, lane, first_seq) IN (SELECT device, boot, lane,"
        " first_seq FROM gap WHERE device = ? AND state = 'told' ORDER BY since_utc_ms LIMIT 1)",
        (device,),
    ).rowcount
    if not removed:
        _log.error("too many gaps, one is not noted", device=device, most=MOST_GAPS)
    return bool(removed)


def _words(series: Series, runs: Sequence[Run]) -> dict[str, object]:
    return {
        "device": series.device,
        "boot": series.boot,
        "lane": series.lane,
        "from_seq": runs[0][0],
        "to_seq": runs[-1][1],
        "messages": spans.total(runs),
    }
