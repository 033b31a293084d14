"""Makes sealed hand-overs as a device does, for the tests of evidence and of the receiver."""

import hashlib
from pathlib import Path

from agent.core.clock import SimClock
from agent.evidence import manifest
from agent.evidence.hashing import hash_file
from agent.evidence.keys import DeviceKey
from agent.evidence.manifest import FileEntry, ManifestFacts

SITE, DEVICE = "plaza", "cam-1"
ROLES = {".mp4": ("clip", "video/mp4"), ".jpg": ("snapshot", "image/jpeg")}


def facts(**changes):
    fields = {
        "clip_id": "c" * 32,
        "device": DEVICE,
        "site": SITE,
        "camera": "west",
        "event_ids": ("e" * 32,),
        "kind": "zone_enter",
        "rule": "crossing",
        "model": "ssd@0830e93f343b",
        "start_utc_ms": 1_700_000_000_000,
        "end_utc_ms": 1_700_000_009_000,
        "missing_ms": 0,
        "clock": {"source": "ntp", "error_ms": 12},
        "camera_offset_ms": None,
        "sources": (("a" * 64, 1_700_000_000_000),),
        "custody_seq": 0,
        "custody_hash": "0" * 64,
    }
    return ManifestFacts(**(fields | changes))


def entry(path: Path) -> FileEntry:
    role, media_type = ROLES.get(path.suffix, ("path", "application/json"))
    return FileEntry(path.name, role, media_type, hash_file(path))


def sealed(folder: Path, contents: dict[str, bytes], key: DeviceKey, **changes):
    """Write files and their manifest; gives the folder and the signed envelope."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    entries = [entry(folder / name) for name in contents]
    return folder, manifest.seal(folder, facts(**changes), entries, key, SimClock())


def clip_id(seed: object) -> str:
    return hashlib.sha256(repr(seed).encode()).hexdigest()[:32]
