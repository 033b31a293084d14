"""Which codec a file without an index looks like, to say why a good clip does not fit."""

import re

from agent.docking.mp4.boxes import Span
from agent.docking.mp4.nals import LENGTH_BYTES, is_clean
from agent.docking.mp4.source import Source

_LOOK_BYTES = 8 << 20
_MOST_NAL_BYTES = 1 << 20
_LEAST_SHARE = 0.5  # of the bytes; in noise it is a few hundredths
_USUAL = {
    "h264": rb"[\x65\x25\x45\x67\x27\x68\x28\x06\x09\x41\x61\x21\x01]",
    "hevc": rb"[\x26\x28\x2a\x02\x00\x40\x42\x44\x4e\x46]\x01",
}


def codec_of(source: Source, spans: tuple[Span, ...]) -> str:
    """Give `h264`, `hevc` or nothing."""
    for name, usual in _USUAL.items():
        pattern = re.compile(rb"(?s)\x00.{3}" + usual)
        looked = covered = 0
        for start, end in spans:
            stop = min(end, start + max(0, _LOOK_BYTES - looked))
            looked += stop - start
            covered += _covered(source, pattern, start, stop)
        if covered > _LEAST_SHARE * looked:
            return name
    return ""


def _covered(source: Source, pattern: re.Pattern[bytes], place: int, end: int) -> int:
    covered = 0
    while (place := source.find(pattern, place, end, LENGTH_BYTES + 2)) < end:
        size = int.from_bytes(source.read(place, LENGTH_BYTES), "big")
        stop = place + LENGTH_BYTES + size
        is_unit = 1 < size <= _MOST_NAL_BYTES and stop <= end
        if is_unit and is_clean(source.read(place + LENGTH_BYTES, size)):
            covered += stop - place
            place = stop
        else:
            place += 1
    return covered
