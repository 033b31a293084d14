"""Whether a written file's pictures are what its parameter sets say: key frames are decoded.

A decoder that is told a picture too small stops before the bytes end and finds nothing wrong. So
each key frame is decoded twice, once with its last bytes changed: that must not be the same.
"""

from pathlib import Path
from typing import Any

import av
import av.error

from agent.docking.mp4 import nals
from agent.docking.mp4.coded import Codec

_KEYS_TRIED = 3  # one may be damaged, the next ones tell
_CHANGED_BYTES = 8
_STRICT = {"err_detect": "explode"}


def decodes(path: Path, codec: Codec) -> bool:
    """Whether one of the first key frames decodes without any error, to its last byte."""
    tried = 0
    try:
        with av.open(str(path)) as container:
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
    return picture is not None and _decoded(context, _changed(sample, codec)) != picture


def _changed(sample: bytes, codec: Codec) -> bytes:
    """Give a picture whose last slice ends in other bytes."""
    place = end = 0
    for nal in nals.units(sample):
        place += nals.LENGTH_BYTES + len(nal)
        if codec.is_slice(codec.kind(nal)):
            end = place - _padding_bytes(nal)
    start = max(0, end - _CHANGED_BYTES)
    return sample[:start] + bytes(value ^ 0x55 for value in sample[start:end]) + sample[end:]


def _padding_bytes(nal: bytes) -> int:
    """Give how many bytes an encoder has filled up with (cabac_zero_words)."""
    left = nal
    while left.endswith(b"\x00\x00\x03"):
        left = left[:-3]
    return len(nal) - len(left)


def _decoded(context: Any, sample: bytes) -> bytes | None:
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
    return b"".join(bytes(plane) for plane in found[0].planes)
