"""What a recording is: read as a player would, at its beginning and at its end.

Only for a process with nothing to lose (`agent/docking/mediachild.py`): its decoders meet whatever
somebody has put on a card.
"""

import re
from pathlib import Path
from typing import Any

import av
import av.error
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from agent.docking.mp4 import boxes
from agent.docking.mp4.source import Source

# Never a play list, nor what reads other files: those that cameras write.
_FORMATS = "mov,avi,matroska,mpegts,mpeg,flv,asf,wav,mp3,aac,amr,flac,ogg,jpeg_pipe,png_pipe"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
_MOST_PACKETS = 2000  # of all streams, up to a picture: over a minute of any camera
_MOST_PX = 64 << 20
_US_PER_MS, _US_PER_S = 1000, 1_000_000
_BACK_S = (0, 3, 12, 60)  # from the end to a key frame, where no index tells them
_MOST_TEXT = 64


def look(path: Path) -> dict[str, Any]:
    """Tell what a file is; the keys are those of `agent.docking.probe.Probe`.

    Raises:
        StorageError: it cannot be read.
    """
    with Source(path) as source:
        told: dict[str, Any] = {
            "size_bytes": source.size_bytes,
            "zero_tail_bytes": source.zeros_at_end(),
        }
    if told["size_bytes"] == 0:
        return told | {"why": "empty"}
    if told["zero_tail_bytes"] == told["size_bytes"]:
        return told | {"why": "nothing but zeros"}
    try:
        with av.open(str(path), options=_OPTIONS, metadata_errors="replace") as container:
            told |= _told(container)
            told |= _played(container, told["size_bytes"])
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        told["why"] = _text(getattr(error, "strerror", "") or str(error))
    return told | _cut(path, told)


def _cut(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Tell of an MP4 that ends too early; many players do not."""
    with Source(path) as source:
        found = boxes.layout(source)
    if not found.has_type or told.get("container", "mp4") not in ("mp4", "mov"):
        return {}
    if "container" not in told:
        why = "its index cannot be read" if found.has_index else "its index is missing"
        return {"container": "mp4", "why": why}
    return {"is_playable": False, "why": "it ends too early"} if found.is_cut else {}


def _told(container: Any) -> dict[str, Any]:
    video, has_sound = _video(container), any(isinstance(s, AudioStream) for s in container.streams)
    told = {
        "container": _name(container),
        "created": _text(str(container.metadata.get("creation_time", ""))),
        "has_sound": has_sound,
        "duration_ms": container.duration // _US_PER_MS if container.duration else None,
    }
    if video is not None:
        context = video.codec_context
        told |= {"codec": _text(context.name), "width_px": context.width}
        told |= {"height_px": context.height}
    return told


def _played(container: Any, size_bytes: int) -> dict[str, Any]:
    video = _video(container)
    if video is None:
        has_sound = any(isinstance(stream, AudioStream) for stream in container.streams)
        return {"is_playable": has_sound, "why": "" if has_sound else "no picture and no sound"}
    if video.codec_context.width * video.codec_context.height > _MOST_PX:
        return {"why": "a picture too large"}
    video.codec_context.thread_count = 1
    if not _is_shown(container, video, size_bytes):
        return {"why": "its first picture cannot be shown"}
    if container.duration and not _is_end_there(container, video, size_bytes):
        return {"why": "its last picture cannot be reached"}
    return {"is_playable": True}


def _is_shown(container: Any, video: Any, size_bytes: int) -> bool:
    """Whether a picture comes out, from where the container stands."""
    for count, packet in enumerate(container.demux(video)):
        if count > _MOST_PACKETS or not _is_whole(packet, size_bytes):
            return False
        try:
            if any(not picture.is_corrupt for picture in packet.decode()):
                return True
        except av.error.InvalidDataError:
            continue
    return False


def _is_end_there(container: Any, video: Any, size_bytes: int) -> bool:
    """Whether the last key frame is shown and all that follows it is in the file."""
    end_us = container.duration + (container.start_time or 0)
    for back_s in _BACK_S:
        container.seek(max(0, end_us - back_s * _US_PER_S), backward=True)
        if _is_shown(container, video, size_bytes):
            break
    else:
        return False
    return all(
        _is_whole(packet, size_bytes)
        for _, packet in zip(range(_MOST_PACKETS), container.demux(video), strict=False)
    )


def _is_whole(packet: Any, size_bytes: int) -> bool:
    is_inside = packet.pos is None or packet.pos + packet.size <= size_bytes
    return is_inside and not packet.is_corrupt


def _video(container: Any) -> Any:
    known = [stream for stream in container.streams if stream.codec_context is not None]
    return next((stream for stream in known if isinstance(stream, VideoStream)), None)


def _name(container: Any) -> str:
    """Give the container's short name; FFmpeg has one reader for QuickTime and MP4."""
    name = _text(container.format.name.split(",")[0])
    is_quicktime = str(container.metadata.get("major_brand", "qt")).startswith("qt")
    return "mp4" if name == "mov" and not is_quicktime else name


def _text(told: str) -> str:
    return re.sub(r"[^ -~]", "?", told)[:_MOST_TEXT]
