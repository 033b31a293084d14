"""What the device signs for one hand-over: the files, their hashes, and where they come from."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import HashMismatch, MalformedMessage
from agent.core.files import TEMP_SUFFIX, write_atomic
from agent.evidence import receipt
from agent.evidence.hashing import LEAF_BYTES, FileHash
from agent.evidence.keys import DeviceKey, PublicKey, envelope, open_envelope

PAYLOAD_TYPE = "application/vnd.outpost.manifest+json"
FILE_NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a hand-over."""

    name: str
    role: str  # clip, snapshot, path
    media_type: str
    hash: FileHash


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """What is said of a clip besides its files; times in milliseconds since 1970."""

    clip_id: str
    device: str
    site: str
    camera: str
    event_ids: tuple[str, ...]
    kind: str
    rule: str
    model: str
    start_utc_ms: int
    end_utc_ms: int
    missing_ms: int
    clock: Mapping[str, object]
    camera_offset_ms: int | None
    sources: tuple[tuple[str, int], ...]  # sha256 and start of the segments it was cut from
    custody_seq: int
    custody_hash: str
    derived_from: Mapping[str, object] | None = None  # of a copy that was changed


def seal(
    folder: Path, facts: ManifestFacts, files: Sequence[FileEntry], key: DeviceKey, clock: Clock
) -> wire.Json:
    """Write `manifest.json` into the folder and give the signed envelope it holds.

    Raises:
        MalformedMessage: the facts do not fit the schema, or a file's name is not allowed.
        OSError: the disk refuses.
    """
    told = _document(facts, files, clock)
    if facts.derived_from is not None:
        told["derived_from"] = dict(facts.derived_from)
    document = wire.check("manifest", told)
    _check_names(document)
    signed = envelope(key, PAYLOAD_TYPE, wire.canonical(document))
    write_atomic(folder / FILE_NAME, wire.encode(signed))
    return signed


def read(signed: wire.Json, key: PublicKey) -> wire.Json:
    """Check a manifest's signature and form and give its document.

    Raises:
        IntegrityError: naming the first thing wrong.
    """
    payload = open_envelope(signed, PAYLOAD_TYPE, key)
    document = wire.decode("manifest", payload)
    try:
        is_canonical = wire.canonical(document) == payload
    except (TypeError, ValueError) as error:
        raise MalformedMessage(f"manifest: {error}") from error
    if not is_canonical:
        raise MalformedMessage("manifest: not in canonical form; allowed: sorted keys, no spaces")
    _check_names(document)
    return document


def payload_sha256(signed: wire.Json) -> str:
    """Give the hash by which another manifest names this one: of the bytes that are signed."""
    return hashlib.sha256(base64.b64decode(signed["payload"])).hexdigest()


def check_file(found: FileHash, entry: wire.Json) -> None:
    """Compare what was read with a file's entry in a manifest.

    Raises:
        HashMismatch: naming the first difference; a leaf by its number and its bytes.
    """
    if found.size_bytes != entry["size_bytes"]:
        raise HashMismatch(f"{found.size_bytes} bytes; manifest: {entry['size_bytes']}")
    if len(found.leaves) != len(entry["leaves"]):
        raise HashMismatch(f"{len(found.leaves)} leaves; manifest: {len(entry['leaves'])}")
    for number, (here, there) in enumerate(zip(found.leaves, entry["leaves"], strict=True)):
        if here != there:
            first = number * LEAF_BYTES
            last = min(first + LEAF_BYTES, found.size_bytes) - 1
            raise HashMismatch(f"leaf {number}, bytes {first} to {last}: {here}; manifest: {there}")
    for name, whole in (("leaf_root", found.leaf_root), ("sha256", found.sha256)):
        if whole != entry[name]:
            raise HashMismatch(f"{name} {whole}; manifest: {entry[name]}")


def _check_names(document: wire.Json) -> None:
    """Refuse names that a hand-over needs for itself, and names that stand twice."""
    names = [entry["name"] for entry in document["files"]]
    for name in names:
        if (
            name == FILE_NAME
            or name.startswith(receipt.FILE_PREFIX)
            or name.endswith(TEMP_SUFFIX)
            or names.count(name) > 1
        ):
            raise MalformedMessage(
                f"manifest: file {name!r}; allowed: each name once, not {FILE_NAME},"
                f" {receipt.FILE_PREFIX}…, …{TEMP_SUFFIX}"
            )


def _document(facts: ManifestFacts, files: Sequence[FileEntry], clock: Clock) -> dict[str, Any]:
    return {
        "sv": wire.SCHEMA_VERSION,
        "clip_id": facts.clip_id,
        "device": facts.device,
        "site": facts.site,
        "camera": facts.camera,
        "event_ids": list(facts.event_ids),
        "kind": facts.kind,
        "rule": facts.rule,
        "model": facts.model,
        "start_utc_ms": facts.start_utc_ms,
        "end_utc_ms": facts.end_utc_ms,
        "sealed_utc_ms": clock.utc_ns() // NS_PER_MS,
        "missing_ms": facts.missing_ms,
        "clock": dict(facts.clock),
        "camera_offset_ms": facts.camera_offset_ms,
        "leaf_bytes": LEAF_BYTES,
        "files": [_file(entry) for entry in files],
        "sources": [{"sha256": sha256, "start_utc_ms": start} for sha256, start in facts.sources],
        "custody_head": {"seq": facts.custody_seq, "hash": facts.custody_hash},
    }


def _file(entry: FileEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "role": entry.role,
        "media_type": entry.media_type,
        "size_bytes": entry.hash.size_bytes,
        "sha256": entry.hash.sha256,
        "leaf_root": entry.hash.leaf_root,
        "leaves": list(entry.hash.leaves),
    }
