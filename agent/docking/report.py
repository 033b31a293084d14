"""How a dock's footage and cameras stand: who has not docked, what waits, what was set aside.

A pure reading of rows. The same for a person (`outpost report dock`) and for the centre
(`report/dock`).
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.core.clock import NS_PER_MS
from agent.core.wire import Json
from agent.docking.codes import Code
from agent.docking.config import DockConfig
from agent.docking.names import camera_name
from agent.docking.view import plain

HOUR_MS = 3_600_000
RECENT_MS = 30 * 24 * HOUR_MS  # a stranger's camera is forgotten after so long
AWAY_MS = 24 * HOUR_MS
MOST_ROWS = 500  # of one list in a message
MOST_REASON, MOST_NAME = 200, 128  # letters
LISTS = ("not_docked", "officers_not_docked", "clocks_off", "waiting", "quarantined", "not_wiped")
_OWN_NAMES = (Code.NO_SERIAL, Code.DUPLICATE)  # such dockings stand under a name of their own

_LATEST = (
    "SELECT id, camera, officer, started_utc_ns, ended_utc_ns, clock_offset_ms, quarantine"
    " FROM dock_session AS d WHERE camera != '' AND id = (SELECT id FROM dock_session"
    " WHERE camera = d.camera ORDER BY started_utc_ns DESC, id DESC LIMIT 1) ORDER BY camera"
)
_OFFICERS = (
    "SELECT officer, max(coalesce(ended_utc_ns, ?)) AS last_ns FROM dock_session"
    " WHERE officer != '' GROUP BY officer"
)
_WAITING = (
    "SELECT f.camera, coalesce(d.officer, '') AS officer, min(d.started_utc_ns) AS oldest_ns,"
    " sum(here = 'no') AS on_camera_files, sum(iif(here = 'no', size_bytes, 0)) AS on_camera_bytes,"
    " sum(here = 'sealed') AS for_receipt_files,"
    " sum(iif(here = 'sealed', size_bytes, 0)) AS for_receipt_bytes,"
    " sum(here IN ('receipted', 'deleted')) AS for_wipe_files,"
    " sum(iif(here IN ('receipted', 'deleted'), size_bytes, 0)) AS for_wipe_bytes"
    " FROM footage AS f LEFT JOIN dock_session AS d ON d.id = f.session_id"
    " WHERE f.derived_from = '' AND (here = 'sealed' OR there IN ('yes', 'wiping'))"
    " GROUP BY f.camera, d.officer ORDER BY f.camera, d.officer"
)
_QUARANTINED = (
    "SELECT id, camera, officer, started_utc_ns, quarantine FROM dock_session"
    " WHERE quarantine != '' AND started_utc_ns >= ? ORDER BY started_utc_ns DESC"
)
_NOT_WIPED = (
    "SELECT camera, kept_because, count(*) AS files FROM footage"
    " WHERE kept_because != '' AND there = 'yes' GROUP BY camera, kept_because"
)


@dataclass(frozen=True, slots=True)
class Now:
    """What a report needs besides rows."""

    utc_ns: int
    free_bytes: int  # of the dock's disk
    total_bytes: int
    is_clock_good: bool | None = None  # the dock's own; None: not known here

    @property
    def utc_ms(self) -> int:
        """In milliseconds."""
        return self.utc_ns // NS_PER_MS


def report(
    connection: sqlite3.Connection, config: DockConfig, now: Now, hours: float | None = None
) -> Json:
    """Give a report, whole.

    Args:
        connection: to the dock's database.
        config: fleet, officers and limits.
        now: time and disk.
        hours: since when a camera should have been docked; None: `dock.not_docked_h`.
    """
    since_h = config.not_docked_h if hours is None else hours
    before_ms = now.utc_ms - round(since_h * HOUR_MS)
    latest = [dict(row) for row in connection.execute(_LATEST)]
    carried = _carriers(connection, config)
    waiting = [_waits(row) for row in connection.execute(_WAITING)]
    found: Json = {
        "hours": since_h,
        "not_docked": _not_docked(latest, carried, before_ms, now),
        "officers_not_docked": _officers_not_docked(connection, carried, before_ms, now),
        "clocks_off": _clocks_off(latest, carried, config, now),
        "waiting": waiting,
        "quarantined": _quarantined(connection, now),
        "not_wiped": [
            {
                "camera": row["camera"],
                "reason": plain(row["kept_because"])[:MOST_REASON],
                "files": row["files"],
            }
            for row in connection.execute(_NOT_WIPED)
        ],
        "disk": {"free_bytes": now.free_bytes, "total_bytes": now.total_bytes},
        "last_receipt_utc_ms": _last_receipt_ms(connection),
        "left_out": 0,
    }
    return {**found, "notes": _notes(found, config, now)}


def cut(found: Json, most: int = MOST_ROWS) -> Json:
    """Give a report with at most so many rows in each list, and how many that left out."""
    short = {name: found[name][:most] for name in LISTS}
    left_out = sum(len(found[name]) - len(short[name]) for name in LISTS)
    return {**found, **short, "left_out": left_out}


def hide(found: Json) -> Json:
    """Give a report without officers' names."""
    bare = {name: [_nameless(row) for row in found[name]] for name in LISTS}
    return {**found, **bare, "officers_not_docked": []}


def _nameless(row: Json) -> Json:
    return {**row, "officer": ""} if "officer" in row else row


def _carriers(connection: sqlite3.Connection, config: DockConfig) -> Mapping[str, str]:
    """Give who carries which camera, as far as the site has said: fixed, or by badge."""
    fleet = {camera_name(item.serial): item.officer for item in config.fleet}
    if config.officers.mode == "fixed":
        return fleet
    issued = connection.execute("SELECT camera, officer FROM dock_assignment")
    return {**dict.fromkeys(fleet, ""), **{row["camera"]: row["officer"] for row in issued}}


def _not_docked(
    latest: Sequence[Json], carried: Mapping[str, str], before_ms: int, now: Now
) -> list[Json]:
    known = {row["camera"]: row for row in latest if row["quarantine"] not in _OWN_NAMES}
    found = []
    for camera in sorted({*known, *carried}):
        row = known.get(camera)
        last_ms = None if row is None else _last_ms(row, now)
        is_recent = last_ms is not None and last_ms >= now.utc_ms - RECENT_MS
        if (last_ms is not None and last_ms >= before_ms) or not (camera in carried or is_recent):
            continue
        officer = carried.get(camera) or ("" if row is None else row["officer"])
        found.append({"camera": camera, "officer": _name(officer), "last_utc_ms": last_ms})
    return sorted(found, key=lambda item: item["last_utc_ms"] or 0)


def _officers_not_docked(
    connection: sqlite3.Connection, carried: Mapping[str, str], before_ms: int, now: Now
) -> list[Json]:
    rows = connection.execute(_OFFICERS, (now.utc_ns,))
    last = {row["officer"]: row["last_ns"] // NS_PER_MS for row in rows}
    named = {officer for officer in carried.values() if officer}
    named |= {name for name, ms in last.items() if ms >= now.utc_ms - RECENT_MS}
    found = [
        {"officer": _name(name), "last_utc_ms": last.get(name)}
        for name in sorted(named)
        if last.get(name) is None or last[name] < before_ms
    ]
    return sorted(found, key=lambda item: item["last_utc_ms"] or 0)


def _clocks_off(
    latest: Sequence[Json], carried: Mapping[str, str], config: DockConfig, now: Now
) -> list[Json]:
    most_ms = config.clock_off_h * HOUR_MS
    return [
        {
            "camera": row["camera"],
            "officer": _name(row["officer"] or carried.get(row["camera"], "")),
            "offset_ms": row["clock_offset_ms"],
            "docked_utc_ms": row["started_utc_ns"] // NS_PER_MS,
        }
        for row in latest
        if abs(row["clock_offset_ms"] or 0) > most_ms and _is_recent(row, now)
    ]


def _waits(row: sqlite3.Row) -> Json:
    told: Json = {name: row[name] for name in row.keys() if name.endswith(("files", "bytes"))}  # noqa: SIM118 - a row is no mapping
    oldest_ns = row["oldest_ns"]
    return {
        "camera": row["camera"],
        "officer": _name(row["officer"]),
        **told,
        "oldest_utc_ms": None if oldest_ns is None else oldest_ns // NS_PER_MS,
    }


def _quarantined(connection: sqlite3.Connection, now: Now) -> list[Json]:
    since_ns = (now.utc_ms - RECENT_MS) * NS_PER_MS
    return [
        {
            "session": row["id"],
            "camera": row["camera"],
            "officer": _name(row["officer"]),
            "docked_utc_ms": row["started_utc_ns"] // NS_PER_MS,
            "code": row["quarantine"],
        }
        for row in connection.execute(_QUARANTINED, (since_ns,))
    ]


def _last_receipt_ms(connection: sqlite3.Connection) -> int | None:
    row = connection.execute("SELECT max(receipted_utc_ns) AS last_ns FROM footage").fetchone()
    return None if row["last_ns"] is None else int(row["last_ns"]) // NS_PER_MS


def _notes(found: Json, config: DockConfig, now: Now) -> list[str]:
    """Give codes of what concerns the dock itself."""
    since_ms = now.utc_ms - AWAY_MS
    waits = [row for row in found["waiting"] if row["for_receipt_files"]]
    is_old = any((row["oldest_utc_ms"] or now.utc_ms) < since_ms for row in waits)
    notes = []
    if is_old and (found["last_receipt_utc_ms"] or 0) < since_ms:
        notes.append(Code.CENTRE_AWAY)
    if now.free_bytes * 100 < config.copy.keep_free_percent * now.total_bytes:
        notes.append(Code.DOCK_FULL)
    if now.is_clock_good is False:
        notes.append(Code.NO_CLOCK)
    return [str(code) for code in notes]


def _name(officer: str) -> str:
    return plain(officer)[:MOST_NAME]


def _last_ms(row: Json, now: Now) -> int:
    ended_ns = row["ended_utc_ns"]
    return now.utc_ms if ended_ns is None else int(ended_ns) // NS_PER_MS


def _is_recent(row: Json, now: Now) -> bool:
    return _last_ms(row, now) >= now.utc_ms - RECENT_MS
