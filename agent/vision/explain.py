"""The retention plan in words for the person at the pole: what goes next, what stays and why."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.core.clock import NS_PER_MS
from agent.delivery.config import RetentionConfig
from agent.delivery.retention import SEVERITIES, Action, Item, Stock, in_turn, plan
from agent.vision import hold, stock
from agent.vision.config import RecordConfig
from agent.vision.disks import STATE_DIR, Folder

MOST_NEXT = 10
HOUR_S = 3600
_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))

_OLDEST = """
    SELECT min(start_utc_ns) FROM segment
    WHERE state IN ('closed', 'recovered') AND start_utc_ns > ?
"""
SET_NS = 1_600_000_000 * 10**9  # what is older was told by a clock that nobody had set


@dataclass(frozen=True, slots=True)
class Place:
    """Whose box it is."""

    state_dir: Path
    retention: RetentionConfig
    recording: RecordConfig
    cameras: Sequence[str]


def explain(connection: sqlite3.Connection, place: Place, utc_ns: int) -> dict[str, Any]:
    """Give the whole of it as a document for `--json`.

    Raises:
        sqlite3.Error, OSError: the database or the disk cannot be read.
    """
    remembered = connection.execute("SELECT id, path FROM folder").fetchall()
    folders = [Folder(STATE_DIR, place.state_dir)]
    folders += [Folder(row["id"], Path(row["path"])) for row in remembered]
    site = stock.Site(place.state_dir, folders, place.cameras)
    rules = stock.rules_of(place.retention, place.recording)
    rules = stock.rules_here(rules, place.state_dir, place.recording)
    found = stock.take(connection, site, stock.Now(utc_ns))
    now = plan(found, rules)
    rates = {camera: round(stock.rate(connection, camera)) for camera in place.cameras}
    oldest = connection.execute(_OLDEST, (SET_NS,)).fetchone()[0]
    most_bytes = round(place.recording.keep_max_gb * stock.BYTES_PER_GB)
    if stock.shared(site):
        most_bytes = min(most_bytes, now.recordings_max_bytes)
    return {
        "share_bytes": now.share_bytes,
        "used_bytes": now.used_bytes,
        "free_bytes": found.free_bytes,
        "kinds": _kinds(found, [item.name for item in in_turn(found, rules)]),
        "now": [asdict(step) for step in now.steps],
        "next": [_told(item) for item in in_turn(found, rules)[:MOST_NEXT]],
        "stays": _guards(found),
        "recordings": {
            "size_bytes": found.recordings_bytes,
            "max_bytes": most_bytes,
            "kept_bytes": found.recordings_kept_bytes,
            "rate_bytes_per_s": rates,
            "oldest_utc_ms": None if oldest is None else oldest // NS_PER_MS,
            "hours_in_all": _hours(most_bytes, sum(rates.values())),
            "hours_until_oldest_goes": _hours(
                max(0, most_bytes - found.recordings_bytes), sum(rates.values())
            ),
        },
        "clips": {
            "headroom_bytes": max(0, now.headroom_bytes),
            "refused": list(SEVERITIES[: now.refused]),
        },
        "lacking_bytes": now.lacking_bytes,
        "lacking_reason": now.lacking_reason,
        **hold.listed(connection),
    }


def words(told: Mapping[str, Any]) -> Iterator[str]:
    """Say a document of `explain` in lines."""
    yield f"{size(told['used_bytes'])} of {size(told['share_bytes'])} are used."
    for kind in told["kinds"]:
        may_go = f", {size(kind['may_go_bytes'])} of it may go" if kind["may_go_bytes"] else ""
        yield f"  {kind['what']}: {kind['count']}, {size(kind['size_bytes'])}{may_go}"
    yield from _recordings(told["recordings"])
    yield from _to_go(told)
    yield from _staying(told)
    yield from _clips(told)


def size(size_bytes: int) -> str:
    """Give bytes as people say them."""
    for unit_bytes, unit in _UNITS:
        if abs(size_bytes) >= unit_bytes:
            return f"{size_bytes / unit_bytes:.1f} {unit}"
    return f"{size_bytes} bytes"


def _recordings(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"Recordings take {size(told['size_bytes'])}; they may take {size(told['max_bytes'])}."
    if told["kept_bytes"]:
        yield f"  {size(told['kept_bytes'])} of them stay for clips, open events and holds."
    if told["hours_in_all"] is None:
        yield "  Nothing was recorded in the last hour: nobody can say for how long that is enough."
        return
    yield f"  At the present rate that is {span(told['hours_in_all'])} of recording;"
    yield f"  the oldest goes in {span(told['hours_until_oldest_goes'])}."


def _to_go(told: Mapping[str, Any]) -> Iterator[str]:
    steps = [step for step in told["now"] if step["action"] != Action.REFUSE]
    if steps:
        yield "Now goes:"
        for step in steps[:MOST_NEXT]:
            what = f"{step['kind']} {step['name']}".strip()
            verb = "the oldest of the" if step["action"] == Action.SHRINK else "the"
            yield f"  {verb} {what}, {size(step['size_bytes'])}: {step['reason']}"
        if len(steps) > MOST_NEXT:
            yield f"  and {len(steps) - MOST_NEXT} more"
    elif told["next"]:
        yield "Nothing has to go now. If room runs out, this goes first:"
        for item in told["next"]:
            yield f"  {item['what']} {item['name']}, {size(item['size_bytes'])}, {item['age']} old"
        yield "  then the oldest recordings."
    else:
        yield "Nothing has to go now. If room runs out, the oldest recordings go."


def _staying(told: Mapping[str, Any]) -> Iterator[str]:
    if told["stays"]:
        yield "This stays whatever happens:"
        for item in told["stays"]:
            yield f"  {item['what']}: {item['count']}, {size(item['size_bytes'])} ({item['why']})"
    for held in told["holds"]:
        yield f"  hold {held['id']} on {held['camera']}: {held['reason']} ({held['placed_by']})"
    for pin in told["pins"]:
        yield f"  clip {pin['clip_id']} is pinned: {pin['reason']} ({pin['placed_by']})"


def _clips(told: Mapping[str, Any]) -> Iterator[str]:
    refused = told["clips"]["refused"]
    room = size(told["clips"]["headroom_bytes"])
    if refused:
        yield f"NO VIDEO is kept of events of severity {', '.join(refused)}: {room} are left."
    else:
        yield f"There is room for {room} of clips that the centre has not signed for."
    if told["lacking_bytes"]:
        yield f"{size(told['lacking_bytes'])} ARE LACKING and nothing more may go:"
        yield f"  {told['lacking_reason']}"


def span(hours: float) -> str:
    """Give hours as people say them."""
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"  # noqa: PLR2004


def _kinds(found: Stock, may_go: Sequence[str]) -> list[dict[str, Any]]:
    kinds: dict[str, dict[str, Any]] = {}
    names = set(may_go)
    for item in found.items:
        blank = {"what": item.kind.value, "count": 0, "size_bytes": 0, "may_go_bytes": 0}
        kind = kinds.setdefault(item.kind, blank)
        kind["count"] += 1
        kind["size_bytes"] += item.size_bytes
        kind["may_go_bytes"] += item.size_bytes if item.name in names else 0
    return list(kinds.values())


def _guards(found: Stock) -> list[dict[str, Any]]:
    guards: dict[tuple[str, str], dict[str, Any]] = {}
    for item in found.items:
        if item.guard:
            key = (item.kind, item.guard)
            blank = {"what": item.kind.value, "why": item.guard, "count": 0, "size_bytes": 0}
            one = guards.setdefault(key, blank)
            one["count"] += 1
            one["size_bytes"] += item.size_bytes
    return list(guards.values())


def _told(item: Item) -> dict[str, Any]:
    return {
        "what": item.kind.value,
        "name": item.name.removeprefix(":"),
        "size_bytes": item.size_bytes,
        "age": span(item.age_s / HOUR_S),
    }


def _hours(size_bytes: int, bytes_per_s: int) -> float | None:
    return round(size_bytes / bytes_per_s / HOUR_S, 1) if bytes_per_s else None
