"""The officer's receipt: what was docked, and that it is safe; as text and as a code to scan.

It names the docking and the first ten digits of its signed list's hash: whoever has the list, or
the dock's database, sees whether a slip is true. Counts and times are those of the list; where the
files are is looked up.
"""

import base64
import json
import re
import sqlite3
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from agent.core.clock import NS_PER_MS
from agent.core.errors import ConfigError, HashMismatch, StorageError
from agent.docking import lines, tongues
from agent.docking.intake import SESSIONS
from agent.docking.names import camera_name
from agent.docking.tongues import Language
from agent.docking.view import plain
from agent.evidence import docklist, manifest

WIDTH = 42  # columns of a receipt printer's paper
LABEL = 12
DIGITS = 10  # of the list's hash
LEAST = 6  # letters of a docking's id that name it
FORM = "OUTPOST-SLIP 1 <device> <docking> <list> <files> <dock|centre|part> <unix time>"
_FORM = re.compile(
    r"OUTPOST-SLIP 1 ([a-z0-9][a-z0-9._-]{0,62}) ([0-9a-f]{32}) ([0-9a-f]{10})"
    r" ([0-9]{1,9}) (dock|centre|part) ([0-9]{1,12})"
)


@dataclass(frozen=True, slots=True)
class Slip:
    """What a slip says; times in milliseconds since 1970."""

    device: str
    site: str
    slot: str
    session: str
    camera: str
    officer: str
    docked_utc_ms: int
    sealed_utc_ms: int
    files: int  # sealed
    left: int  # files that could not be copied
    size_bytes: int
    first_utc_ms: int | None  # of the files' times, put right by the camera's clock error
    last_utc_ms: int | None
    clock_offset_ms: int | None
    list_sha256: str
    centre_utc_ms: int | None  # since when all of it is at the centre; None: not yet

    @property
    def where(self) -> str:
        """Where the footage is: dock, centre, or part, if some of it could not be copied."""
        if self.left:
            return "part"
        return "dock" if self.centre_utc_ms is None else "centre"


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking a slip."""

    is_true: bool
    words: Sequence[str]


def find(connection: sqlite3.Connection, which: str) -> str:
    """Give the id of a docking.

    Args:
        connection: to the dock's database.
        which: an id, its beginning, or a camera's name for its last sealed docking.

    Raises:
        ConfigError: there is none, or more than one.
    """
    ids = []
    if re.fullmatch(f"[0-9a-f]{{{LEAST},32}}", which):
        found = connection.execute(
            "SELECT id FROM dock_session WHERE id >= ? AND id < ? LIMIT 2", (which, f"{which}g")
        )
        ids = [str(row["id"]) for row in found]
    if not ids:
        found = connection.execute(
            "SELECT id FROM dock_session WHERE camera = ? AND sealed_utc_ns IS NOT NULL"
            " ORDER BY started_utc_ns DESC LIMIT 1",
            (camera_name(which),),
        )
        ids = [str(row["id"]) for row in found]
    if len(ids) != 1:
        what = "more than one" if ids else "none known"
        raise ConfigError(
            f"docking {which!r}: {what}; allowed: its id, the first {LEAST} or more letters of it,"
            " or the name of a camera"
        )
    return ids[0]


def read(connection: sqlite3.Connection, state_dir: Path, session: str) -> Slip:
    """Give what a slip of a docking says now.

    Raises:
        StorageError: its list is not signed yet, or not here any more.
        HashMismatch: the list is not the one that was signed.
    """
    row = connection.execute(
        "SELECT manifest_sha256 FROM dock_session WHERE id = ? AND sealed_utc_ns IS NOT NULL",
        (session,),
    ).fetchone()
    if row is None:
        raise StorageError(f"docking {session}: not sealed yet; wait until its slot is not Busy")
    told = _list(state_dir, session, str(row["manifest_sha256"]))
    files: Sequence[Mapping[str, Any]] = told["files"]
    error_ms = told["camera_offset_ms"] or 0
    times = [item["mtime_utc_ms"] - error_ms for item in files]
    return Slip(
        device=told["device"],
        site=told["site"],
        slot=told["slot"],
        session=session,
        camera=told["camera"]["name"],
        officer=plain(told["officer"]["id"]),
        docked_utc_ms=told["docked_utc_ms"],
        sealed_utc_ms=told["sealed_utc_ms"],
        files=len(files),
        left=len(told["not_copied"]),
        size_bytes=sum(item["size_bytes"] for item in files),
        first_utc_ms=min(times, default=None),
        last_utc_ms=max(times, default=None),
        clock_offset_ms=told["camera_offset_ms"],
        list_sha256=str(row["manifest_sha256"]),
        centre_utc_ms=_centre_utc_ms(connection, sorted({item["id"] for item in files})),
    )


def text(slip: Slip, language: Language, zone: tzinfo | None = None) -> str:
    """Give a slip for paper of 42 columns.

    Args:
        slip: what it says.
        language: of its words.
        zone: of its times; None: the box's own.
    """
    rows = [
        ("camera", slip.camera),
        ("officer", slip.officer),
        ("docked", _moment(slip.docked_utc_ms, zone)),
        ("files", f"{slip.files}/{slip.files + slip.left}"),
        ("size", f"{slip.size_bytes / lines.BYTES_PER_MB:.1f} MB"),
        ("first", _moment(slip.first_utc_ms, zone)),
        ("last", _moment(slip.last_utc_ms, zone)),
        ("clock", lines.clock(slip.clock_offset_ms)),
    ]
    said = [
        "=" * WIDTH,
        tongues.text(language, "receipt"),
        *textwrap.wrap(f"{slip.site} / {slip.device} / {slip.slot}", WIDTH),
        "-" * WIDTH,
        *(line for key, value in rows if value for line in _row(language, key, value)),
        "-" * WIDTH,
        *_verdict(slip, language, zone),
        "-" * WIDTH,
        *_row(language, "session", slip.session),
        *_row(language, "list", slip.list_sha256[:DIGITS]),
        "=" * WIDTH,
    ]
    return "\n".join(said) + "\n"


def code(slip: Slip) -> str:
    """Give the short text that is scanned, as `check` reads it."""
    since_ms = slip.sealed_utc_ms if slip.centre_utc_ms is None else slip.centre_utc_ms
    return (
        f"OUTPOST-SLIP 1 {slip.device} {slip.session} {slip.list_sha256[:DIGITS]}"
        f" {slip.files} {slip.where} {since_ms // 1000}"
    )


def check(connection: sqlite3.Connection, state_dir: Path, device: str, scanned: str) -> Checked:
    """Compare what was scanned with the database and the signed list.

    Raises:
        ConfigError: it is no slip.
    """
    found = _FORM.fullmatch(scanned.strip())
    if found is None:
        raise ConfigError(f"slip {scanned[:80]!r}; allowed: {FORM}")
    of, session, digits, files, where, _ = found.groups()
    if of != device:
        return Checked(False, [f"a slip of {of}; this dock is {device}"])
    try:
        slip = read(connection, state_dir, session)
    except (StorageError, HashMismatch) as error:
        return Checked(False, [str(error)])
    wrong = []
    if slip.list_sha256[:DIGITS] != digits:
        wrong.append(f"its list begins with {digits}; ours: {slip.list_sha256[:DIGITS]}")
    if slip.files != int(files):
        wrong.append(f"it says {files} files; the list has {slip.files}")
    if where == "centre" and slip.where != "centre":
        wrong.append("it says that all is at the centre; here that is not known")
    if (where == "part") != (slip.where == "part"):
        wrong.append("it does not say the same of what was not copied")
    return Checked(not wrong, wrong or [f"true; now: {_plainly(slip)}"])


def _list(state_dir: Path, session: str, sha256: str) -> dict[str, Any]:
    path = state_dir / SESSIONS / session / docklist.FILE_NAME
    try:
        signed = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(f"docking {session}: its list cannot be read: {error}") from error
    try:
        digest = manifest.payload_sha256(signed)
        payload = base64.b64decode(signed["payload"])
    except (KeyError, TypeError, ValueError) as error:
        raise HashMismatch(f"{path}: no signed list") from error
    if digest != sha256:
        raise HashMismatch(f"{path}: {digest}; signed: {sha256}")
    found: dict[str, Any] = json.loads(payload)
    return found


def _centre_utc_ms(connection: sqlite3.Connection, ids: Sequence[str]) -> int | None:
    """Give since when the centre has had all of these; None: it has not."""
    row = connection.execute(
        "SELECT count(*) AS signed, max(receipted_utc_ns) AS latest_ns FROM footage"
        " WHERE here IN ('receipted', 'deleted') AND id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    ).fetchone()
    return (row["latest_ns"] or 0) // NS_PER_MS if ids and row["signed"] == len(ids) else None


def _verdict(slip: Slip, language: Language, zone: tzinfo | None) -> Sequence[str]:
    if slip.where == "part":
        left = f"{tongues.text(language, 'not_copied')}: {slip.left}"
        return [tongues.text(language, "not_all"), *textwrap.wrap(left, WIDTH)]
    if slip.centre_utc_ms is None:
        return [tongues.text(language, "safe_in_dock").upper()]
    return [
        tongues.text(language, "centre_since").upper(),
        _moment(slip.centre_utc_ms, zone),
    ]


def _plainly(slip: Slip) -> str:
    return {
        "dock": "safe in the dock, not yet at the centre",
        "centre": f"all at the centre since {_moment(slip.centre_utc_ms, UTC)}",
        "part": f"{slip.files} files safe, {slip.left} could not be copied",
    }[slip.where]


def _row(language: Language, key: str, value: str) -> Sequence[str]:
    label = tongues.text(language, key)
    if len(value) <= WIDTH - LABEL:
        return [f"{label:{LABEL}}{value}"]
    return [label, *textwrap.wrap(value, WIDTH)]


def _moment(utc_ms: int | None, zone: tzinfo | None) -> str:
    if utc_ms is None:
        return ""
    try:
        moment = datetime.fromtimestamp(utc_ms / 1000, UTC).astimezone(zone)
    except (OverflowError, OSError, ValueError):
        return "?"
    return moment.strftime("%Y-%m-%d %H:%M %z").removesuffix("00")
