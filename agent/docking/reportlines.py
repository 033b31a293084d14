"""A dock's report for people: as text, and as a table for a spreadsheet."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.core.wire import Json
from agent.docking.codes import meaning
from agent.docking.lines import BYTES_PER_MB, clock

HEADINGS = {
    "not_docked": "Cameras not docked for {hours:g} h",
    "officers_not_docked": "Officers who have not docked for {hours:g} h",
    "clocks_off": "Clocks that were off",
    "waiting": "Footage that waits",
    "quarantined": "Dockings of which nothing is wiped",
    "not_wiped": "Files that are not wiped",
}
COLUMNS = ("about", "camera", "officer", "code", "files", "mb", "since_utc", "what")
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute
_WAITS = {"on_camera": "to be copied", "for_receipt": "for the centre", "for_wipe": "to be wiped"}


def sections(found: Json) -> Sequence[tuple[str, Sequence[Mapping[str, str]]]]:
    """Give headings, each with the rows of its table."""
    shown = [
        (heading.format(hours=found["hours"]), [_ROWS[name](row) for row in found[name]])
        for name, heading in HEADINGS.items()
    ]
    return [("The dock", [_dock(found)]), *shown]


def notes(found: Json) -> Sequence[str]:
    """Give what concerns the dock itself, a line each."""
    return [f"{code}: {meaning(code).sentence} {meaning(code).cure}" for code in found["notes"]]


def table(found: Json) -> str:
    """Give all rows as CSV, one table; no cell of a camera's or officer's is ever a formula."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in _flat(found):
        writer.writerow({name: _cell(row.get(name, "")) for name in COLUMNS})
    return stream.getvalue()


def _dock(found: Json) -> Mapping[str, str]:
    disk = found["disk"]
    percent = 100 * disk["free_bytes"] / max(1, disk["total_bytes"])
    return {
        "free_gb": f"{disk['free_bytes'] / 1e9:.1f} of {disk['total_bytes'] / 1e9:.1f}",
        "free": f"{percent:.0f} %",
        "last_receipt_utc": _moment(found["last_receipt_utc_ms"], "none yet"),
    }


def _absent(row: Json) -> Mapping[str, str]:
    last = _moment(row["last_utc_ms"], "never here")
    return {**_who(row), "last_docked_utc": last}


def _off(row: Json) -> Mapping[str, str]:
    docked = _moment(row["docked_utc_ms"])
    return {**_who(row), "clock": clock(row["offset_ms"]), "docked_utc": docked}


def _waiting(row: Json) -> Mapping[str, str]:
    counts = {
        words.replace(" ", "_"): f"{row[f'{key}_files']} ({_mb(row[f'{key}_bytes'])} MB)"
        for key, words in _WAITS.items()
    }
    return {**_who(row), **counts, "since_utc": _moment(row["oldest_utc_ms"])}


def _quarantined(row: Json) -> Mapping[str, str]:
    docked = _moment(row["docked_utc_ms"])
    why = f"{row['code']}: {meaning(row['code']).sentence}"
    return {**_who(row), "docked_utc": docked, "docking": row["session"][:12], "why": why}


def _not_wiped(row: Json) -> Mapping[str, str]:
    return {"camera": row["camera"], "files": str(row["files"]), "why": row["reason"]}


_ROWS = {
    "not_docked": _absent,
    "officers_not_docked": _absent,
    "clocks_off": _off,
    "waiting": _waiting,
    "quarantined": _quarantined,
    "not_wiped": _not_wiped,
}


def _who(row: Json) -> dict[str, str]:
    camera = {"camera": row["camera"]} if "camera" in row else {}
    return {**camera, "officer": row["officer"] or "-"}


def _flat(found: Json) -> Sequence[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for name in ("not_docked", "officers_not_docked"):
        rows += [{**row, "about": name, "since_utc": row["last_utc_ms"]} for row in found[name]]
    for row in found["clocks_off"]:
        told = {"what": clock(row["offset_ms"]), "since_utc": row["docked_utc_ms"]}
        rows.append({**row, "about": "clocks_off", **told})
    for row in found["waiting"]:
        for key, words in _WAITS.items():
            if files := row[f"{key}_files"]:
                told = {"files": files, "mb": _mb(row[f"{key}_bytes"]), "what": words}
                since = {"since_utc": row["oldest_utc_ms"]}
                rows.append({**row, "about": "waiting", **told, **since})
    for row in found["quarantined"]:
        told = {"what": meaning(row["code"]).sentence, "since_utc": row["docked_utc_ms"]}
        rows.append({**row, "about": "quarantined", **told})
    rows += [{**row, "about": "not_wiped", "what": row["reason"]} for row in found["not_wiped"]]
    return [
        {**row, "since_utc": _moment(row["since_utc"])} if "since_utc" in row else row
        for row in rows
    ]


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / BYTES_PER_MB:.1f}"


def _moment(utc_ms: int | None, otherwise: str = "") -> str:
    if utc_ms is None:
        return otherwise
    return datetime.fromtimestamp(utc_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
