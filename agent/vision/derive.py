"""A masked copy of a sealed clip, for giving away: the original is read, never touched.

Every picture is decoded, blacked out and encoded anew as H.264 that browsers play. The copy has a
manifest of its own, which names the original by its hashes and says what was done, by what and why.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from agent.core.clock import Clock
from agent.core.errors import ConfigError, IntegrityError, StorageError
from agent.core.files import sync_directory, sync_file, write_atomic
from agent.core.wire import Json
from agent.evidence import custody, manifest, verify
from agent.evidence.hashing import hash_file
from agent.evidence.keys import DeviceKey, PublicKey
from agent.evidence.manifest import FileEntry, ManifestFacts
from agent.vision import masks
from agent.vision.config import CameraConfig
from agent.vision.cut import MOVFLAGS
from agent.vision.decode import JPEG_QUALITY, Veil

TOOL: Final = "outpost derive"
REASON: Final = "masked copy"
PART: Final = ".part"  # of a folder that is not yet whole

_ENCODER: Final = "libx264"
_OPTIONS: Final = {"preset": "veryfast", "crf": "20", "bf": "0"}
_KEY_EVERY: Final = 50  # pictures: a player can seek to within a few seconds
_RATE: Final = Fraction(25)  # where the file does not say its own; times are kept in any case
_PPM: Final = 1_000_000

NoteCopy = Callable[[str, str, str], custody.Head]
"""Tells the custody log of a copy: its parent's id, its own, why; gives the log's head."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted and who signs for it."""

    camera: CameraConfig
    key: DeviceKey
    version: str
    reason: str
    clock: Clock
    note: NoteCopy


def derive(parent: Path, out: Path, order: Order) -> Path:
    """Make a masked copy of a sealed clip.

    Args:
        parent: the folder of the original.
        out: where the copy's folder is made, named by the copy's id.
        order: masks, key and reason.

    Returns:
        The folder of the copy.

    Raises:
        IntegrityError: the original is not what was sealed.
        ConfigError: it is of another camera, there are no masks, or `out` lies within it.
        StorageError, OSError: a picture cannot be read, or the disk refuses.
    """
    document, parent_sha256 = _checked(parent, order)
    _refuse_inside(parent, out)
    clip_id = order.clock.new_id()
    work = out / f"{clip_id}{PART}"
    work.mkdir(parents=True)
    try:
        entries = document["files"]
        copies = [_copied(parent, work, entry, order.camera) for entry in entries]
        head = order.note(document["clip_id"], clip_id, order.reason)
        origin = {
            "clip_id": document["clip_id"],
            "manifest_sha256": parent_sha256,
            "files": [
                {"name": copy.name, "parent_name": one["name"], "parent_sha256": one["sha256"]}
                for copy, one in zip(copies, entries, strict=True)
            ],
            "tool": TOOL,
            "version": order.version,
            "reason": order.reason,
            "masks": [_mask(mask) for mask in order.camera.masks],
        }
        facts = _facts(document, clip_id, head, origin)
        manifest.seal(work, facts, copies, order.key, order.clock)
        sync_directory(work)
        work.rename(out / clip_id)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    sync_directory(out)
    return out / clip_id


def mask_video(source: Path, target: Path, veil: Veil, metadata: dict[str, str]) -> int:
    """Write a video again with everything masked black; gives how many pictures.

    Times stay; sound and other streams are left out.

    Raises:
        StorageError: a picture cannot be decoded, or the disk refuses.
    """
    count = 0
    try:
        with (
            av.open(str(source)) as found,
            av.open(str(target), "w", format="mp4", options={"movflags": MOVFLAGS}) as made,
        ):
            stream = found.streams.video[0]
            made.metadata.update(metadata)
            encoder = _encoder(made, stream)
            for picture in found.decode(stream):
                veiled = veil(picture)
                veiled.pts, veiled.time_base = picture.pts, picture.time_base
                made.mux(encoder.encode(_sized(veiled, encoder)))
                count += 1
            made.mux(encoder.encode(None))
    except (FFmpegError, IndexError) as error:
        raise StorageError(f"{source}: after {count} pictures: {error}") from error
    if count == 0:
        raise StorageError(f"{source}: holds no picture")
    sync_file(target)
    return count


def manifest_of(parent: Path, key: PublicKey) -> tuple[Json, str]:
    """Check an original whole and give its manifest, and the hash by which it is named.

    Raises:
        IntegrityError: it is not what was sealed with this key.
        ConfigError: there is no manifest.
    """
    report = verify.verify(parent, key)
    if not report.ok or report.checked != 1:
        raise IntegrityError(
            f"{parent}: {report.first_wrong or f'{report.checked} clips; allowed: one'}"
        )
    signed = verify.envelope_of(parent)
    return manifest.read(signed, key), manifest.payload_sha256(signed)


def _checked(parent: Path, order: Order) -> tuple[Json, str]:
    document, parent_sha256 = manifest_of(parent, order.key.public)
    if document["camera"] != order.camera.id:
        raise ConfigError(
            f"{parent}: of camera {document['camera']!r}; allowed: {order.camera.id!r}"
        )
    if "derived_from" in document:
        raise ConfigError(f"{parent}: is a copy itself; allowed: the original")
    if not order.camera.masks:
        raise ConfigError(f"camera {order.camera.id!r} has no masks; allowed: [[cameras.masks]]")
    return document, parent_sha256


def _refuse_inside(parent: Path, out: Path) -> None:
    original, target = parent.resolve(), out.resolve()
    if target == original or original in target.parents:
        raise ConfigError(f"--out {out}: lies in the original; allowed: a folder beside it")


def _copied(parent: Path, work: Path, entry: Json, camera: CameraConfig) -> FileEntry:
    source, name = parent / entry["name"], entry["name"]
    veil = masks.of(camera)
    if veil is None:  # `_checked` has refused that
        raise ConfigError(f"camera {camera.id!r} has no masks")
    if entry["role"] == "clip":
        name = f"masked-{name}"
        told = {"outpost_camera": camera.id, "outpost_masked": "yes"}
        mask_video(source, work / name, veil, told)
    elif entry["role"] == "snapshot":
        write_atomic(work / name, _masked_jpeg(source, veil))
    elif entry["role"] == "path":
        shutil.copyfile(source, work / name)
        sync_file(work / name)
    else:
        raise ConfigError(
            f"{source}: a {entry['role']} cannot be masked; allowed: clip, snapshot, path"
        )
    return FileEntry(name, entry["role"], entry["media_type"], hash_file(work / name))


def _masked_jpeg(source: Path, veil: Veil) -> bytes:
    content = np.frombuffer(source.read_bytes(), np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if picture is None:
        raise StorageError(f"{source}: no picture")
    veiled = veil(VideoFrame.from_ndarray(picture.astype(np.uint8, copy=False), format="bgr24"))
    plain = VideoReformatter().reformat(veiled, format="bgr24").to_ndarray(format="bgr24")
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    is_done, coded = cv2.imencode(".jpg", plain.astype(np.uint8, copy=False), quality)
    if not is_done:
        raise StorageError(f"{source}: cannot be JPEG again")
    return coded.tobytes()


def _encoder(made: Any, source: VideoStream) -> VideoStream:
    rate = source.average_rate or _RATE
    stream = cast("VideoStream", made.add_stream(_ENCODER, rate=rate, options=_OPTIONS))
    stream.width = source.codec_context.width // 2 * 2
    stream.height = source.codec_context.height // 2 * 2
    stream.pix_fmt = "yuv420p"
    if source.time_base is not None:
        stream.codec_context.time_base = source.time_base
    stream.codec_context.gop_size = _KEY_EVERY
    stream.codec_context.color_range = 1  # limited, as the veil gives it
    stream.codec_context.colorspace = source.codec_context.colorspace
    return stream


def _sized(picture: VideoFrame, encoder: VideoStream) -> VideoFrame:
    """Bring a picture whose size changed on the way to the file's."""
    if (picture.width, picture.height) == (encoder.width, encoder.height):
        return picture
    return VideoReformatter().reformat(picture, encoder.width, encoder.height)


def _mask(mask: Any) -> Json:
    return {
        "name": mask.name,
        "points_ppm": [[round(x * _PPM), round(y * _PPM)] for x, y in mask.points],
    }


def _facts(document: Json, clip_id: str, head: custody.Head, origin: Json) -> ManifestFacts:
    return ManifestFacts(
        clip_id=clip_id,
        device=document["device"],
        site=document["site"],
        camera=document["camera"],
        event_ids=tuple(document["event_ids"]),
        kind=document["kind"],
        rule=document["rule"],
        model=document["model"],
        start_utc_ms=document["start_utc_ms"],
        end_utc_ms=document["end_utc_ms"],
        missing_ms=document["missing_ms"],
        clock=document["clock"],
        camera_offset_ms=document["camera_offset_ms"],
        sources=(),
        custody_seq=head.seq,
        custody_hash=head.hash,
        derived_from=origin,
    )
