"""Holds and pins: what must stay until somebody lets it go. Who and why stand in the custody log.

A hold keeps a span of a camera, recordings and clips alike, those to come included. A pin keeps
one clip here although the centre has it.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import MalformedMessage
from agent.core.store import Store
from agent.vision.footage import Span
from agent.vision.recovery import Custody

MOST_WORDS = 256  # letters of a reason or a name
MOST_UTC_NS = 1 << 62  # in the year 2116
AHEAD_NS = 60 * NS_PER_S  # two clocks differ
PINNABLE = ("wanted", "sealed", "receipted")
BY_CENTRE = "command"  # how `via` begins of what the centre's signed command placed

_SEEN = """
    SELECT 1 FROM segment WHERE camera = ? UNION ALL SELECT 1 FROM clip WHERE camera = ? LIMIT 1
"""

_ENTRIES = """
    SELECT kind, subject, detail FROM custody WHERE kind IN ('hold.placed', 'hold.restored',
        'hold.released', 'clip.pinned', 'clip.pin_restored', 'clip.unpinned', 'clip.deleted')
    ORDER BY seq
"""
RESTORED = {
    "hold.placed": "hold.restored",
    "hold.restored": "hold.restored",
    "clip.pinned": "clip.pin_restored",
    "clip.pin_restored": "clip.pin_restored",
}

_log = log.get(__name__)


class Word(NamedTuple):
    """Who wants something, and why."""

    reason: str
    by: str
    via: str = ""  # on what way it came, where that is known: a command of the centre, a user

    @property
    def told(self) -> dict[str, object]:
        """What the custody log keeps of it."""
        return {name: text for name, text in self._asdict().items() if text}


class Keepsakes:
    """The holds and pins of a box.

    Args:
        store: with their rows.
        clock: times and ids.
        custody: appends to the log.
        cameras: that are configured; one that was recorded in the past is known as well.
    """

    def __init__(
        self, store: Store, clock: Clock, custody: Custody, cameras: Collection[str]
    ) -> None:
        self._store = store
        self._clock = clock
        self._custody = custody
        self._cameras = cameras

    def place(self, span: Span, word: Word, hold_id: str = "") -> str:
        """Keep what is recorded of a span, now and later; gives the hold's id.

        Args:
            span: of a camera.
            word: who and why.
            hold_id: to give it, a new one if empty; one that is there already stays as it is.

        Raises:
            MalformedMessage: no such camera, a span that ends before it begins or has not begun
                yet, or no reason or name.
            StorageError: the database refuses.
        """
        _check_word(word)
        self._check_span(span)
        hold_id = hold_id or self._clock.new_id()
        times = (span.start_utc_ns, span.end_utc_ns)
        values = (hold_id, span.camera, *times, word.reason, self._clock.utc_ns(), *word[1:])
        detail = {
            "camera": span.camera,
            "start_utc_ms": span.start_utc_ns // NS_PER_MS,
            "end_utc_ms": span.end_utc_ns // NS_PER_MS,
            **word.told,
        }

        def change(connection: sqlite3.Connection) -> None:
            added = connection.execute(
                "INSERT OR IGNORE INTO hold (id, camera, start_utc_ns, end_utc_ns, reason,"
                " created_utc_ns, placed_by, via) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            ).rowcount
            if added:
                self._custody(connection, "hold.placed", hold_id, detail)

        self._store.write(change)
        return hold_id

    def release(self, hold_id: str, word: Word) -> None:
        """Let what a hold keeps go; one of the centre only by the centre.

        Raises:
            MalformedMessage: no such hold, one of the centre, or no reason or name.
            StorageError: the database refuses.
        """
        _check_word(word)

        def change(connection: sqlite3.Connection) -> None:
            query = "SELECT via FROM hold WHERE id = ?"
            found = connection.execute(query, (hold_id,)).fetchone()
            if found is None:
                known = [row["id"] for row in connection.execute("SELECT id FROM hold LIMIT 5")]
                raise MalformedMessage(
                    f"hold {hold_id[:64]!r}: there is none; there are: {', '.join(known) or 'none'}"
                )
            if found["via"].startswith(BY_CENTRE) and not word.via.startswith(BY_CENTRE):
                raise MalformedMessage(f"hold {hold_id}: the centre's; allowed: the centre alone")
            connection.execute("DELETE FROM hold WHERE id = ?", (hold_id,))
            self._custody(connection, "hold.released", hold_id, word.told)

        self._store.write(change)

    def pin(self, clip_id: str, word: Word) -> None:
        """Keep a clip here, receipts or not.

        Raises:
            MalformedMessage: no such clip, one without files, one that is pinned already, or no
                reason or name.
            StorageError: the database refuses.
        """
        _check_word(word)
        values = (clip_id, word.reason, word.by, self._clock.utc_ns())

        def change(connection: sqlite3.Connection) -> None:
            query = "SELECT state FROM clip WHERE id = ?"
            row = connection.execute(query, (clip_id,)).fetchone()
            if row is None:
                raise MalformedMessage(f"clip {clip_id[:64]!r}: there is none")
            if row["state"] not in PINNABLE:
                raise MalformedMessage(
                    f"clip {clip_id}: {row['state']}; allowed: {', '.join(PINNABLE)}"
                )
            add = "INSERT OR IGNORE INTO pin VALUES (?, ?, ?, ?)"
            if not connection.execute(add, values).rowcount:
                raise MalformedMessage(f"clip {clip_id}: is pinned already")
            self._custody(connection, "clip.pinned", clip_id, word.told)

        self._store.write(change)

    def unpin(self, clip_id: str, word: Word) -> None:
        """Let a clip go where it may.

        Raises:
            MalformedMessage: it is not pinned, or no reason or name.
            StorageError: the database refuses.
        """
        _check_word(word)

        def change(connection: sqlite3.Connection) -> None:
            query = "DELETE FROM pin WHERE clip_id = ?"
            if not connection.execute(query, (clip_id,)).rowcount:
                raise MalformedMessage(f"clip {clip_id[:64]!r}: is not pinned")
            self._custody(connection, "clip.unpinned", clip_id, word.told)

        self._store.write(change)

    def restore(self) -> int:
        """Place again what the custody log knows and the tables have lost; gives how many.

        A database that was damaged is salvaged row by row: none of these may fall through.

        Raises:
            StorageError: the database refuses.
        """
        restored = self._store.write(self._restore)
        if restored:
            _log.warning("holds and pins placed again by the custody log", count=restored)
        return restored

    def _restore(self, connection: sqlite3.Connection) -> int:
        known = {row[0] for row in connection.execute("SELECT id FROM hold")}
        known |= {row[0] for row in connection.execute("SELECT clip_id FROM pin")}
        count = 0
        for row in _standing(connection):
            if row["subject"] in known:
                continue
            try:
                detail = json.loads(row["detail"])
                is_placed = _again(connection, row["kind"], row["subject"], detail)
            except (ValueError, TypeError, KeyError) as error:
                _log.error("hold or pin cannot be placed again", id=row["subject"], reason=error)
                continue
            if is_placed:
                self._custody(connection, RESTORED[row["kind"]], row["subject"], detail)
                count += 1
        return count

    def _check_span(self, span: Span) -> None:
        if span.camera not in self._cameras and not self._was_recorded(span.camera):
            allowed = ", ".join(sorted(self._cameras)) or "none is configured"
            raise MalformedMessage(f"camera {span.camera[:64]!r}: unknown; allowed: {allowed}")
        if not 0 <= span.start_utc_ns <= MOST_UTC_NS or span.end_utc_ns > MOST_UTC_NS:
            raise MalformedMessage(
                f"span {_ms(span.start_utc_ns)} to {_ms(span.end_utc_ns)};"
                f" allowed: 0 to {_ms(MOST_UTC_NS)} since 1970"
            )
        if span.end_utc_ns <= span.start_utc_ns:
            raise MalformedMessage(
                f"span {_ms(span.start_utc_ns)} to {_ms(span.end_utc_ns)} ends before it begins"
            )
        if span.start_utc_ns > self._clock.utc_ns() + AHEAD_NS:
            raise MalformedMessage(
                f"span from {_ms(span.start_utc_ns)}: not yet begun; allowed: up to now,"
                f" {_ms(self._clock.utc_ns())}"
            )

    def _was_recorded(self, camera: str) -> bool:
        with self._store.reading() as connection:
            return connection.execute(_SEEN, (camera, camera)).fetchone() is not None


def listed(connection: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]:
    """Give all holds and pins, the oldest first."""
    holds = connection.execute("SELECT * FROM hold ORDER BY created_utc_ns, id")
    pins = connection.execute("SELECT * FROM pin ORDER BY created_utc_ns, clip_id")
    return {"holds": [dict(row) for row in holds], "pins": [dict(row) for row in pins]}


def _standing(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    """Give the newest entry of every hold and pin that was not let go after it."""
    rows = connection.execute(_ENTRIES).fetchall()
    newest = {row["subject"]: row for row in rows}  # by their numbers: a later one counts
    return [row for row in newest.values() if row["kind"] in RESTORED]


def _again(
    connection: sqlite3.Connection, kind: str, subject: str, detail: Mapping[str, Any]
) -> bool:
    word = (str(detail["reason"]), str(detail["by"]))
    if kind.startswith("clip."):
        query = "INSERT OR IGNORE INTO pin SELECT id, ?, ?, 0 FROM clip WHERE id = ?"
        marks = ", ".join(repr(state) for state in PINNABLE)
        query += f" AND state IN ({marks})"
        return bool(connection.execute(query, (*word, subject)).rowcount)
    start_ms, end_ms = int(detail["start_utc_ms"]), int(detail["end_utc_ms"])
    times = (start_ms * NS_PER_MS, (end_ms + 1) * NS_PER_MS)
    add = (
        "INSERT OR IGNORE INTO hold (id, camera, start_utc_ns, end_utc_ns, reason,"
        " created_utc_ns, placed_by, via) VALUES (?, ?, ?, ?, ?, 0, ?, ?)"
    )
    values = (subject, str(detail["camera"]), *times, *word, str(detail.get("via", "")))
    return bool(connection.execute(add, values).rowcount)


def _check_word(word: Word) -> None:
    for name, text in (("reason", word.reason), ("by", word.by)):
        if not text.strip():
            raise MalformedMessage(f"{name} is missing; allowed: 1 to {MOST_WORDS} letters")
        if len(text) > MOST_WORDS or not text.isprintable():
            raise MalformedMessage(
                f"{name}: {len(text)} letters; allowed: 1 to {MOST_WORDS}, on one line"
            )


def _ms(utc_ns: int) -> str:
    return f"{utc_ns // NS_PER_MS} ms"
