"""A playable copy of a broken recording, sealed as a hand-over of its own beside the original.

Its manifest names the original by its hashes and says by what way the copy was made, with which
camera's good recording, and what is missing. The original stays as it was sealed.
"""

import shutil
from pathlib import Path
from typing import Final

from agent import __version__
from agent.core.errors import HashMismatch, IntegrityError, StorageError
from agent.core.files import sync_directory, sync_file
from agent.core.wire import Json
from agent.delivery.ledger import Handover, OutgoingFile
from agent.docking.footage import SealedFile
from agent.docking.intake import FOLDER, WORK, Custodian
from agent.docking.mp4.tool import REASON, TOOL
from agent.docking.probe import RescueFacts
from agent.evidence import custody, manifest
from agent.evidence.hashing import hash_file
from agent.evidence.manifest import FileEntry, ManifestFacts
from agent.evidence.verify import envelope_of

NAME: Final = "recording.mp4"
FLAG: Final = "rescued"
_MEDIA_TYPE: Final = "video/mp4"


def seal_rescued(
    original: Path, video: Path, facts: RescueFacts, copy_id: str, who: Custodian
) -> SealedFile:
    """Sign a rescued copy and put it into its place; done again after a kill, it is made anew.

    Args:
        original: the folder of the broken recording's hand-over.
        video: the copy; it is moved, on the same disk.
        facts: what the rescue told.
        copy_id: of the new hand-over.
        who: who seals.

    Raises:
        IntegrityError: the original's manifest does not hold, or the copy was made of other bytes.
        StorageError: the disk refuses.
    """
    document, entry, digest = _parent(original, who)
    if facts.original_sha256 != entry["sha256"]:
        raise HashMismatch(
            f"{video}: made of {facts.original_sha256 or 'nothing'}; sealed: {entry['sha256']}"
        )
    target = who.state_dir / FOLDER / copy_id
    work = who.state_dir / WORK / copy_id
    try:
        _recall(video, (work, target))
        sync_file(video)
        copied = FileEntry(NAME, "recording", _MEDIA_TYPE, hash_file(video))
        origin = _origin(document["clip_id"], digest, entry, facts)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        video.replace(work / NAME)
        signed = manifest.seal(
            work, _facts(document, copy_id, origin, who), [copied], who.key, who.clock
        )
        sync_directory(work)
        target.parent.mkdir(exist_ok=True)
        work.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        raise StorageError(f"{target}: {error.strerror}") from error
    outgoing = OutgoingFile(
        copied.name, copied.hash.size_bytes, copied.hash.sha256, copied.hash.leaf_root
    )
    handover = Handover(copy_id, Path(FOLDER) / copy_id, [outgoing], signed, ())
    return SealedFile(
        copy_id, handover, copied.hash.sha256, _MEDIA_TYPE, (FLAG,), facts.duration_ms
    )


def _parent(original: Path, who: Custodian) -> tuple[Json, Json, str]:
    try:
        signed = envelope_of(original)
    except OSError as error:
        raise IntegrityError(f"{original}: {error.strerror}") from error
    document = manifest.read(signed, who.key.public)
    entries = [entry for entry in document["files"] if entry["role"] == "recording"]
    if len(entries) != 1 or "derived_from" in document:
        raise IntegrityError(f"{original}: no recording of a camera")
    return document, entries[0], manifest.payload_sha256(signed)


def _recall(video: Path, places: tuple[Path, ...]) -> None:
    """Take back a copy that was killed on its way into its place: no row speaks of it yet."""
    for place in places:
        if not video.exists() and (place / NAME).is_file():
            (place / NAME).replace(video)
        shutil.rmtree(place, ignore_errors=True)


def _origin(clip_id: str, digest: str, entry: Json, facts: RescueFacts) -> Json:
    return {
        "clip_id": clip_id,
        "manifest_sha256": digest,
        "files": [
            {"name": NAME, "parent_name": entry["name"], "parent_sha256": entry["sha256"]},
        ],
        "tool": TOOL,
        "version": __version__,
        "reason": REASON,
        "rescue": {
            "way": facts.way,
            "pictures": facts.pictures,
            "left_out": facts.left_out,
            "lost_bytes": facts.lost_bytes,
            "lost_ms": facts.lost_ms,
            "has_sound": facts.sound_packets > 0,
            "reference_sha256": facts.reference_sha256,
        },
    }


def _facts(document: Json, copy_id: str, origin: Json, who: Custodian) -> ManifestFacts:
    with who.store.reading() as connection:
        head = custody.head(connection)
    return ManifestFacts(
        clip_id=copy_id,
        device=who.device,
        site=who.site,
        camera=document["camera"],
        event_ids=tuple(document["event_ids"]),
        kind=document["kind"],
        rule=document["rule"],
        model=document["model"],
        start_utc_ms=document["start_utc_ms"],
        end_utc_ms=document["end_utc_ms"],
        missing_ms=origin["rescue"]["lost_ms"],
        clock=document["clock"],
        camera_offset_ms=document["camera_offset_ms"],
        sources=(),
        custody_seq=head.seq,
        custody_hash=head.hash,
        derived_from=origin,
    )
