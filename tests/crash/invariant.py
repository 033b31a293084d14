"""What must hold after every round, read from the disks of both sides."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from agent.core.errors import IntegrityError, StorageError
from agent.core.store import read_only
from agent.evidence import custody
from agent.evidence.hashing import hash_file
from agent.evidence.keys import PublicKey
from agent.evidence.verify import verify
from agent.receiver import index
from firmware_sim.demo import DEVICE, SITE, Screen
from tests.crash.scene import Scene

NEAR = 2  # letters
CHECKED_S = 60.0
SHOWN = 3  # examples of each thing wrong
_REMEMBERED = {"custody": "seq", "transfer": "fid"}
_SEALED = ("clip_id", "path", "name", "size_bytes", "sha256")  # of a transfer: never changed by us

_hashed: dict[tuple[str, int, int, int], str] = {}


def broken(scene: Scene, screen: Screen) -> list[str]:
    """Give every promise that does not hold, in words; empty when all is well."""
    try:
        if scene.has_damage and not _is_mended(scene):  # found and mended within a minute
            scene.until(lambda: _is_mended(scene), CHECKED_S)
            scene.drain(CHECKED_S, screen)
        return [*_events(scene), *_files(scene), *_sound(scene)]
    except (StorageError, OSError, sqlite3.Error) as error:
        return [f"a store cannot be read: {error}"]


def broken_at_the_end(scene: Scene) -> list[str]:
    """Give what a full check of all that the receiver stored finds."""
    keys = (scene.device_key, scene.folder / "receiver.pub")
    if not (scene.store / SITE / DEVICE).exists():
        return []  # nothing was delivered in this scene
    public = [PublicKey.load(key) for key in keys]
    report = verify(scene.store / SITE / DEVICE, *public)
    if report.ok:
        return []
    if scene.has_damage:
        # A clip that was made again after the database went back in time stands beside the first
        # making, which may never have come whole: one of the two is.
        verdicts: dict[str, bool] = {}
        for folder in (scene.store / SITE / DEVICE).iterdir():
            clip_id = folder.name.partition(".")[0]
            verdicts[clip_id] = verdicts.get(clip_id, False) or verify(folder, *public).ok
        if all(verdicts.values()):
            return []
    return [f"outpost verify: {report.first_wrong}"]


def lost_now(scene: Scene) -> set[str]:
    """Give the events that only the agent has: a fault that destroys its database takes them."""
    return (scene.closed_by_log() | _closed(scene.database)) - at_centre(scene)


def note_known(scene: Scene) -> None:
    """Remember the events in the agent's database, before a fault may take it away."""
    scene.known |= _closed(scene.database)


def note_rows(scene: Scene) -> None:
    """Remember rows that a fault is about to change: only they may be wrong afterwards."""
    with closing(read_only(scene.database)) as connection:
        for table, key in _REMEMBERED.items():
            for row in connection.execute(f"SELECT * FROM {table}"):
                scene.rows_before.setdefault((table, row[key]), dict(row))


def _events(scene: Scene) -> list[str]:
    note_known(scene)
    said, centre = scene.closed_by_log(), at_centre(scene)
    # After damage an id in the database may be none that the agent ever gave.
    mine = (said if scene.has_damage else said | scene.known) - scene.forgiven
    strange = centre - scene.known - said
    if scene.has_damage:
        strange = {event_id for event_id in strange if not _is_near(event_id, scene.known | said)}
    return [
        *_if_any("events that the agent said were kept are in no store", said - scene.known),
        *_if_any("events never reached the receiver", mine - centre),
        *_if_any("events at the receiver that the agent never had", strange),
    ]


def _is_mended(scene: Scene) -> bool:
    scene.keep_up()
    try:
        with closing(read_only(scene.database)) as connection:
            return connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    except (StorageError, sqlite3.DatabaseError):
        return False


def _is_near(event_id: str, known: set[str]) -> bool:
    """Whether a fault may have made it out of one that is known, by changing a letter or two."""
    return any(
        sum(here != there for here, there in zip(event_id, other, strict=True)) <= NEAR
        for other in known
        if len(other) == len(event_id)
    )


def _files(scene: Scene) -> list[str]:
    with closing(read_only(scene.database)) as connection:
        files = [dict(row) for row in connection.execute("SELECT * FROM transfer")]
        clips = connection.execute("SELECT id, state FROM clip").fetchall()
    stored: dict[tuple[str, str], dict[str, dict]] = {}  # each version of a clip by its hash
    for row in index.contents(scene.store)["files"]:
        if row["device"] == DEVICE:
            key = (row["clip_id"].partition(".")[0], row["name"])
            stored.setdefault(key, {})[row["sha256"]] = row
    wrong: dict[str, list[str]] = {}
    for row in files:
        versions = stored.get((row["clip_id"], row["name"]), {})
        there = versions.get(row["sha256"], next(iter(versions.values()), None))
        for promise in _file(scene, row, there):
            wrong.setdefault(promise, []).append(f"{row['clip_id'][:8]}/{row['name']}")
    refused = {row["clip_id"] for row in files if row["state"] == "refused"}
    told = refused if scene.has_damage else set()  # see Scene.drain
    open_clips = [
        row["id"] for row in clips if row["state"] in ("wanted", "sealed") and row["id"] not in told
    ]
    return [
        *(line for promise, names in wrong.items() for line in _if_any(promise, names)),
        *_if_any("clips are not signed for", open_clips),
    ]


def _file(scene: Scene, row: dict, there: dict | None) -> list[str]:
    """A file is at the receiver with its hash or still here with it; a receipt means the former."""
    if _was_changed(scene, row):
        return []
    if there is not None and _hash(scene.store / there["path"]) == row["sha256"]:
        same = there["sha256"] == row["sha256"]
        return [] if same else ["the receiver's index has another hash"]
    if row["state"] == "receipted":
        return ["receipts without the bytes at the receiver"]
    if _hash(scene.state / row["path"]) != row["sha256"]:
        return ["files are neither at the receiver nor whole on the device"]
    return []


def _was_changed(scene: Scene, row: dict) -> bool:
    """Whether a fault has changed what a transfer row says of its file, or made it."""
    if not scene.has_damage:
        return False
    before = scene.rows_before.get(("transfer", row["fid"]))
    is_ours = re.fullmatch("[0-9a-f]{32}", row["fid"])  # made since then
    return not is_ours if before is None else any(row[name] != before[name] for name in _SEALED)


def _sound(scene: Scene) -> list[str]:
    wrong = []
    for name, database in (("agent", scene.database), ("receiver", scene.store / index.FILE_NAME)):
        with closing(read_only(database)) as connection:
            verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if verdict != "ok":
                wrong.append(f"the {name}'s database: {verdict}")
            if name == "agent":
                entries = connection.execute("SELECT * FROM custody ORDER BY seq").fetchall()
                wrong += _custody(scene, [dict(entry) for entry in entries])
    return wrong


def _custody(scene: Scene, entries: list[dict]) -> list[str]:
    """The chain is whole; after damage it breaks nowhere but at what the fault has changed."""
    try:
        custody.check_chain(entries)
    except IntegrityError as error:
        if not scene.has_damage:
            return [f"the custody chain: {error}"]
        return _unexplained_breaks(scene, entries)
    return []


def _unexplained_breaks(scene: Scene, entries: list[dict]) -> list[str]:
    stored = {entry["seq"]: entry for entry in entries}
    wrong = []
    for entry in entries:
        last = stored.get(entry["seq"] - 1, {"hash": custody.NO_HASH})
        content = {name: value for name, value in entry.items() if name != "hash"}
        try:
            content["detail"] = json.loads(entry["detail"])
            is_whole = custody.entry_hash(content) == entry["hash"]
        except ValueError:
            is_whole = False
        if not (is_whole and entry["previous"] == last["hash"]):
            near = (entry["seq"] - 1, entry["seq"])
            if not any(_is_changed(scene, stored, number) for number in near):
                wrong.append(f"the custody chain: entry {entry['seq']}")
    return wrong


def _is_changed(scene: Scene, stored: dict[int, dict], number: int) -> bool:
    before = scene.rows_before.get(("custody", number))
    return before is not None and stored.get(number) != before


def _closed(database: Path) -> set[str]:
    try:
        with closing(read_only(database)) as connection:
            rows = connection.execute("SELECT id FROM event WHERE state = 'closed'").fetchall()
    except sqlite3.Error as error:
        raise StorageError(f"{database}: {error}") from error
    return {row[0] for row in rows}


def at_centre(scene: Scene) -> set[str]:
    """Give the closed events that the receiver has of our device."""
    return {
        row["event_id"]
        for row in index.contents(scene.store)["events"]
        if row["state"] == "closed" and row["device"] == DEVICE
    }


def _hash(path: Path) -> str:
    """Hash a file, or give nothing when it is not there; what nobody touched is not read again."""
    try:
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)
        if key not in _hashed:
            _hashed[key] = hash_file(path).sha256
        return _hashed[key]
    except OSError:
        return ""


def _if_any(promise: str, names: set[str] | list[str]) -> list[str]:
    if not names:
        return []
    return [f"{len(names)} {promise}: {', '.join(sorted(names)[:SHOWN])}"]
