"""Whether a written file's pictures are what its parameter sets say: key frames are decoded.

A decoder that is told a picture too small stops before the bytes end and finds nothing wrong. So
each key frame is decoded again with its last bytes changed: that must not be the same. One of HEVC
that is told a picture too large goes on after the bytes have ended, or leaves the rest of the
picture empty, and finds nothing wrong either. So bytes after the end must change nothing, and the
last corner must be painted.
"""

from pathlib import Path
from typing import Any

import av
import av.error

from agent.docking.mp4 import nals
from agent.docking.mp4.coded import Codec

_KEYS_TRIED = 3  # one may be damaged, the next ones tell
_CHANGED_BYTES = 8
_MORE = b"\x5a" * 64  # after the end of a slice
_CORNER_BYTES = 8
_STRICT = {"err_detect": "explode", "apply_cropping": "0"}  # what is cut off counts too


def decodes(path: Path, codec: Codec) -> bool:
    """Whether one of the first key frames decodes without any error, to its last byte."""
    tried = 0
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                if packet.size == 0 or not packet.is_keyframe:
                    continue
                if _is_right(stream.codec_context, bytes(packet), codec):
                    return True
                tried += 1
                if tried == _KEYS_TRIED:
                    return False
    except (av.error.FFmpegError, OSError, IndexError, ValueError):
        return False
    return False


def _is_right(context: Any, sample: bytes, codec: Codec) -> bool:
    picture = _decoded(context, sample)
    if picture is None or _pixels(_decoded(context, _changed(sample, codec))) == _pixels(picture):
        return False
    if codec.name != "hevc":  # the decoder of H.264 tells by itself
        return True
    more = _decoded(context, _lengthened(sample, codec))
    return _is_painted(picture) and _pixels(more) == _pixels(picture)


def _changed(sample: bytes, codec: Codec) -> bytes:
    """Give a picture whose last slice ends in other bytes."""
    start, stop = _last_slice(sample, codec)
    end = stop - _padding_bytes(sample[start:stop])
    start = max(0, end - _CHANGED_BYTES)
    return sample[:start] + bytes(value ^ 0x55 for value in sample[start:end]) + sample[end:]


def _lengthened(sample: bytes, codec: Codec) -> bytes:
    """Give a picture whose last slice has bytes after its end."""
    start, stop = _last_slice(sample, codec)
    size = (stop - start + len(_MORE)).to_bytes(nals.LENGTH_BYTES, "big")
    head = sample[: start - nals.LENGTH_BYTES] if start else b""
    return head + size + sample[start:stop] + _MORE + sample[stop:]


def _last_slice(sample: bytes, codec: Codec) -> tuple[int, int]:
    place = start = stop = 0
    for nal in nals.units(sample):
        place += nals.LENGTH_BYTES
        if codec.is_slice(codec.kind(nal)):
            start, stop = place, place + len(nal)
        place += len(nal)
    return start, stop


def _padding_bytes(nal: bytes) -> int:
    """Give how many bytes an encoder has filled up with (cabac_zero_words)."""
    left = nal
    while left.endswith(b"\x00\x00\x03"):
        left = left[:-3]
    return len(nal) - len(left)


def _pixels(picture: Any) -> list[bytes]:
    return [] if picture is None else [bytes(plane) for plane in picture.planes]


def _is_painted(picture: Any) -> bool:
    """Whether the last corner holds anything: fresh memory is zero, a black picture is not."""
    for plane in picture.planes:
        row = bytes(plane)[(plane.height - 1) * plane.line_size :]
        width_bytes = plane.width * ((picture.format.components[0].bits + 7) // 8)
        if any(row[max(0, width_bytes - _CORNER_BYTES) : width_bytes]):
            return True
    return False


def _decoded(context: Any, sample: bytes) -> Any:
    decoder: Any = av.CodecContext.create(context.name, "r")
    decoder.extradata = context.extradata
    decoder.thread_count = 1
    decoder.options = dict(_STRICT)
    try:
        found = [*decoder.decode(av.Packet(sample)), *decoder.decode(None)]
    except (av.error.FFmpegError, ValueError):
        return None
    if len(found) != 1 or found[0].is_corrupt:
        return None
    return found[0]
