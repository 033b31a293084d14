"""What lies on the disk of the state directory, read for the retention plan; nothing is changed.

Recordings on disks of their own are left to the recording loop: they take no room from clips.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.core.clock import NS_PER_S
from agent.delivery.config import RetentionConfig
from agent.delivery.retention import Item, Kind, Rule, Rules, Stock
from agent.vision import ballast, room
from agent.vision.aside import SPOOL, Found, lying
from agent.vision.config import RecordConfig
from agent.vision.disks import Folder
from agent.vision.recovery import QUARANTINE

BYTES_PER_GB = 1_000_000_000
HOUR_S, DAY_S = 3600.0, 86_400.0
NO_RECEIPT = "no receipt"
REFUSED = "not taken by the centre; `outpost inspect files` says why"
DATABASE = "outpost.db"
EXPORTS = "exports"
RATE_NS = 3600 * NS_PER_S  # the recordings' rate is of the last hour
LONGEST_NS = 900 * NS_PER_S  # no segment is longer
PRE_ROLL_NS = 60 * NS_PER_S
COUNTED = frozenset({"segments", "clips", QUARANTINE, SPOOL, EXPORTS})  # elsewhere in here
ASIDE = frozenset({ballast.NAME})  # like the reserve, it is no part of the share

_CLIPS = """
    SELECT c.id, c.state, coalesce(sum(t.size_bytes), 0) AS size_bytes,
        min(t.created_utc_ns) AS sealed_utc_ns,
        count(t.fid) AS files, sum(t.state = 'refused') AS refused, c.path,
        sum(CASE WHEN t.state = 'receipted' AND json_valid(t.receipt)
            THEN json_extract(t.receipt, '$.sha256') = t.sha256 ELSE 0 END) AS signed,
        (SELECT reason FROM pin p WHERE p.clip_id = c.id) AS pin,
        (SELECT h.id FROM hold h WHERE h.camera = c.camera AND h.start_utc_ns <= c.end_utc_ns
            AND h.end_utc_ns >= c.start_utc_ns LIMIT 1) AS hold
    FROM clip c LEFT JOIN transfer t ON t.clip_id = c.id
    WHERE c.state IN ('sealed', 'receipted') GROUP BY c.id
"""
_RECORDED = """
    SELECT coalesce(sum(size_bytes), 0) FROM segment
    WHERE folder = ? AND state IN ('closed', 'recovered')
"""
_KEPT = """
    SELECT coalesce(sum(size_bytes), 0) FROM segment WHERE folder = ? AND id IN (
        SELECT s.id FROM (
            SELECT camera, start_utc_ns, end_utc_ns FROM clip
            WHERE state = 'wanted' AND refused = ''
            UNION SELECT camera, start_utc_ns, end_utc_ns FROM hold
            UNION SELECT camera, start_utc_ns - ?, ? FROM event WHERE state = 'open'
        ) k CROSS JOIN segment s ON s.camera = k.camera
            AND s.start_utc_ns BETWEEN k.start_utc_ns - ? AND k.end_utc_ns
            AND s.end_utc_ns >= k.start_utc_ns AND s.state IN ('closed', 'recovered'))
"""
_RATE = """
    SELECT coalesce(sum(size_bytes), 0), coalesce(sum(end_utc_ns - start_utc_ns), 0) FROM segment
    WHERE camera = :camera AND state IN ('closed', 'recovered') AND start_utc_ns >=
        (SELECT max(start_utc_ns) FROM segment WHERE camera = :camera) - :span
"""
_WANTED = """
    SELECT camera, sum(end_utc_ns - start_utc_ns) FROM clip WHERE state = 'wanted'
    AND refused = '' GROUP BY camera
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Where to look."""

    state_dir: Path
    folders: Sequence[Folder]  # that hold recordings and are there
    cameras: Sequence[str]


@dataclass(frozen=True, slots=True)
class Now:
    """By what time ages count."""

    utc_ns: int
    is_steady: bool = True  # False: the clock may be wrong, and nothing is old


@dataclass(frozen=True, slots=True)
class Allowance:
    """What recordings may take on the disk of the state directory."""

    folder_ids: Sequence[str]
    max_bytes: int


def rules_of(config: RetentionConfig, record: RecordConfig) -> Rules:
    """Give the rules that a configuration means."""
    least_gb = min(config.recordings_min_gb, record.keep_max_gb)
    return Rules(
        max_bytes=_bytes(config.max_gb),
        kinds={
            Kind.RECEIPTED: Rule(
                config.receipted_hours * HOUR_S,
                config.receipted_days * DAY_S,
                _bytes(config.receipted_max_gb),
            ),
            Kind.EXPORT: Rule(most_s=config.export_days * DAY_S),
            Kind.QUARANTINE: Rule(
                record.quarantine_days * DAY_S, most_bytes=_bytes(config.quarantine_max_gb)
            ),
        },
        recordings_least_bytes=round(least_gb * BYTES_PER_GB),
        clips_share=config.clips_share,
    )


def rules_here(rules: Rules, state_dir: Path, record: RecordConfig) -> Rules:
    """Keep no room for recordings where none go: they have disks of their own.

    Raises:
        OSError: the state directory cannot be looked at.
    """
    device = state_dir.stat().st_dev
    folders = record.folders or (state_dir,)
    if any(folder.is_dir() and folder.stat().st_dev == device for folder in folders):
        return rules
    return replace(rules, recordings_least_bytes=0)


def take(connection: sqlite3.Connection, site: Site, now: Now) -> Stock:
    """Count everything.

    Raises:
        sqlite3.Error: the database cannot be read.
        OSError: the disk cannot be looked at.
    """
    near = shared(site)
    disk = room.of(site.state_dir)
    rates = {camera: rate(connection, camera) for camera in site.cameras}
    wanted = connection.execute(_WANTED).fetchall()
    return Stock(
        items=tuple(_items(connection, site, now)),
        recordings_bytes=sum(_sum(connection, _RECORDED, (folder,)) for folder in near),
        recordings_kept_bytes=sum(
            _sum(connection, _KEPT, (folder, PRE_ROLL_NS, now.utc_ns, LONGEST_NS))
            for folder in near
        ),
        coming_bytes=round(
            sum(rates.get(camera, 0.0) * span_ns / NS_PER_S for camera, span_ns in wanted)
        ),
        free_bytes=disk.free_bytes,
        # The loop begins at the reserve: what must go before recordings has gone by then.
        reserve_bytes=disk.reserve_bytes + disk.reserve_bytes // 4,
    )


def shared(site: Site) -> tuple[str, ...]:
    """Give the folders of recordings that lie on the disk of the state directory."""
    device = site.state_dir.stat().st_dev
    return tuple(
        folder.folder_id
        for folder in site.folders
        if folder.path.is_dir() and folder.path.stat().st_dev == device
    )


def rate(connection: sqlite3.Connection, camera: str) -> float:
    """Give how many bytes a second a camera recorded lately."""
    size_bytes, span_ns = connection.execute(_RATE, {"camera": camera, "span": RATE_NS}).fetchone()
    return size_bytes * NS_PER_S / span_ns if span_ns > 0 else 0.0


def quarantined(site: Site) -> Iterator[tuple[Folder, Found]]:
    """Give what lies in quarantine on the disk of the state directory."""
    near = shared(site)
    for folder in site.folders:
        if folder.folder_id in near:
            for found in lying(folder, QUARANTINE):
                yield folder, found


def size_of(path: Path) -> int:
    """Give what a file or all files below a folder take; links count as themselves."""
    try:
        stat = path.lstat()
        if not path.is_dir() or path.is_symlink():
            return stat.st_size
        with os.scandir(path) as entries:
            return sum(size_of(Path(entry.path)) for entry in entries)
    except OSError:
        return 0  # it went while we looked


def _items(connection: sqlite3.Connection, site: Site, now: Now) -> Iterator[Item]:
    for row in connection.execute(_CLIPS):
        yield _clip(row, site.state_dir, now)
    held = [row[0] for row in connection.execute("SELECT DISTINCT camera FROM hold")]
    for folder, found in quarantined(site):
        guard = _quarantine_guard(found.path.name, held)
        name = f"{folder.folder_id}:{found.path.relative_to(folder.path)}"
        age_ns = found.age_ns(now.utc_ns) if now.is_steady else 0
        yield Item(Kind.QUARANTINE, name, found.size_bytes, age_ns / NS_PER_S, guard)
    yield from _exports(site.state_dir, now)
    yield from _rest(site)


def _clip(row: sqlite3.Row, state_dir: Path, now: Now) -> Item:
    sealed_ns = row["sealed_utc_ns"]
    age_ns = now.utc_ns - sealed_ns if sealed_ns is not None and now.is_steady else 0
    age_s = max(0, age_ns) / NS_PER_S
    if row["state"] != "receipted" or not row["files"] or row["signed"] != row["files"]:
        if row["refused"]:  # by the centre, or because it is no longer whole: who knows its size
            return Item(Kind.CLIP, row["id"], size_of(state_dir / row["path"]), age_s, REFUSED)
        return Item(Kind.CLIP, row["id"], row["size_bytes"], age_s, NO_RECEIPT)
    guard = ""
    if row["hold"] is not None:
        guard = f"hold {row['hold']}"
    elif row["pin"] is not None:
        guard = f"pinned: {row['pin']}"
    return Item(Kind.RECEIPTED, row["id"], row["size_bytes"], age_s, guard)


def _quarantine_guard(name: str, held: Iterable[str]) -> str:
    """Keep a camera's files while anything of it is held: nobody knows of what time they are."""
    camera = next((camera for camera in held if name.startswith(f"{camera}-")), None)
    return "" if camera is None else f"recordings of {camera} are held"


def _exports(state_dir: Path, now: Now) -> Iterator[Item]:
    try:
        entries = sorted((state_dir / EXPORTS).iterdir())
    except OSError:
        return
    for path in entries:
        try:
            stat = path.lstat()
        except OSError:
            continue
        age_ns = Found(path, 0, stat.st_ctime_ns).age_ns(now.utc_ns) if now.is_steady else 0
        name = str(path.relative_to(state_dir))
        yield Item(Kind.EXPORT, name, size_of(path), age_ns / NS_PER_S)


def _rest(site: Site) -> Iterator[Item]:
    sizes: dict[tuple[Kind, str], int] = {}
    recorded = {folder.path for folder in site.folders}
    try:
        entries = list(site.state_dir.iterdir())
    except OSError:
        return
    for path in entries:
        if path in recorded or path.is_mount():
            continue
        if path.name == SPOOL:
            sizes[Kind.SPOOL, SPOOL] = size_of(path)
        elif path.name not in COUNTED | ASIDE:
            kind = Kind.DATABASE if path.name.startswith(DATABASE) else Kind.OTHER
            name = DATABASE if kind is Kind.DATABASE else path.name
            sizes[kind, name] = sizes.get((kind, name), 0) + size_of(path)
    for (kind, name), size_bytes in sorted(sizes.items()):
        yield Item(kind, name, size_bytes, 0.0, "it bounds itself")


def _sum(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> int:
    return int(connection.execute(query, values).fetchone()[0])


def _bytes(gigabytes: float) -> int:
    return round(gigabytes * BYTES_PER_GB) if gigabytes else Rule().most_bytes
