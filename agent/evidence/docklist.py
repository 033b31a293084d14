"""The signed list of one docking, as anyone checks it: its form, its files, the list before it."""

import json
from collections.abc import Iterator
from pathlib import Path

from agent.core import wire
from agent.core.errors import IntegrityError, MalformedMessage
from agent.core.wire import Json
from agent.evidence import manifest
from agent.evidence.keys import PublicKey, open_envelope

PAYLOAD_TYPE = "application/vnd.outpost.dock-session+json"
FILE_NAME = "session.json"
MOST_BYTES = 64 << 20
_FOOTAGE = "footage"  # beside the lists on a dock; at a centre all stand in one folder

Finding = tuple[str, str]
"""What was looked at, and what is wrong with it; empty: nothing."""


def read(signed: Json, key: PublicKey) -> Json:
    """Check a list's signature and form and give its document.

    Raises:
        IntegrityError: naming the first thing wrong.
    """
    payload = open_envelope(signed, PAYLOAD_TYPE, key)
    try:
        document = json.loads(payload)
        is_canonical = wire.canonical(document) == payload
    except (ValueError, TypeError, RecursionError) as error:
        raise MalformedMessage(f"dock_session: {str(error)[:120]}") from error
    if not is_canonical:
        raise MalformedMessage("dock_session: not in canonical form")
    return wire.check("dock_session", document)


def findings(folder: Path, signed: Json, key: PublicKey) -> Iterator[Finding]:
    """Check a list and what it names, as far as that is here.

    Args:
        folder: of the list's hand-over.
        signed: its envelope.
        key: the dock's.
    """
    what = f"{folder.name}/{FILE_NAME}"
    try:
        document = read(signed, key)
    except IntegrityError as error:
        yield what, str(error)
        return
    camera, officer = document["camera"]["serial"], document["officer"]["id"]
    files = document["files"]
    yield f"{what}: camera {camera!r}, officer {officer!r}, {len(files)} files, signed", ""
    away = 0
    for entry in files:
        found = _place(folder, entry["id"])
        if found is None:
            away += 1
            continue
        yield f"{what}: {entry['id']}", _difference(found, entry, key)
    if away:
        yield f"{what}: {away} of its files are not here, so they were not looked at", ""
    yield _chain(folder, document, what)


def _place(folder: Path, footage_id: str) -> Path | None:
    """Find the hand-over of a file beside the list's, on a dock or at a centre."""
    for place in (
        folder.parent / footage_id,
        folder.parent.parent / _FOOTAGE / footage_id,
    ):
        if (place / manifest.FILE_NAME).is_file():
            return place
    return None


def _difference(place: Path, entry: Json, key: PublicKey) -> str:
    try:
        signed = json.loads((place / manifest.FILE_NAME).read_text())
        document = manifest.read(signed, key)
        found = document["files"][0]
        if manifest.payload_sha256(signed) != entry["manifest_sha256"]:
            return "its manifest is another one than the list names"
    except (IntegrityError, OSError, ValueError, KeyError, TypeError) as error:
        return str(error)
    for name in ("sha256", "leaf_root", "size_bytes"):
        if found[name] != entry[name]:
            return f"{name} {found[name]}; list: {entry[name]}"
    return ""


def _chain(folder: Path, document: Json, what: str) -> Finding:
    """Look for the list before this one among those beside it."""
    previous = document["previous_sha256"]
    if not previous:
        return f"{what}: the first list of this dock", ""
    for other in sorted(folder.parent.glob(f"*/{FILE_NAME}")):
        if other.parent != folder and _digest(other) == previous:
            return f"{what}: follows {other.parent.name}", ""
    return f"{what}: the list before it is not here", ""


def _digest(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            return ""
        signed = json.loads(path.read_text())
        return manifest.payload_sha256(signed)
    except (OSError, ValueError, KeyError, TypeError):
        return ""
