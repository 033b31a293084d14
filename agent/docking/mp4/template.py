"""An MP4 without a picture: tells a muxer what a camera's stream is, from its sample entry."""

from agent.docking.mp4.boxes import child, children, made

_UNITY = b"".join(
    value.to_bytes(4, "big") for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
)
_FULL = bytes(4)  # version 0, no flags
_ENTRY_BODY = 78  # bytes of a visual sample entry before its boxes
_MATRIX_FROM_END = 44  # a track header ends in matrix, width, height
_MATRIX_BYTES = 36


def video_track(moov: bytes) -> tuple[bytes, bytes] | None:
    """Give the sample entry of the first video track and its matrix, by a moov's body."""
    for letters, track in children(moov):
        if letters != b"trak":
            continue
        handler = child(track, b"mdia", b"hdlr")
        if handler is None or handler[8:12] != b"vide":
            continue
        entry = _first_entry(child(track, b"mdia", b"minf", b"stbl", b"stsd"))
        head = child(track, b"tkhd")
        if entry is None or head is None or len(head) < _MATRIX_FROM_END:
            return None
        start = len(head) - _MATRIX_FROM_END
        return entry, head[start : start + _MATRIX_BYTES]
    return None


def configuration(sample_entry: bytes) -> bytes:
    """Give the body of the decoder configuration, avcC or hvcC; empty if there is none."""
    inner = sample_entry[8 + _ENTRY_BODY :]
    return child(inner, b"avcC") or child(inner, b"hvcC") or b""


def entry_size(sample_entry: bytes) -> tuple[int, int]:
    """Give width and height that a sample entry tells."""
    width, height = sample_entry[32:34], sample_entry[34:36]
    return int.from_bytes(width, "big"), int.from_bytes(height, "big")


def parameter_sets(name: str, config: bytes) -> list[bytes]:
    """Give the parameter sets of a decoder configuration (ISO/IEC 14496-15), as far as whole."""
    return _sets_h264(config) if name == "h264" else _sets_hevc(config)


def length_bytes(name: str, config: bytes) -> int:
    """Give how many bytes tell a NAL unit's length."""
    place = 4 if name == "h264" else 21
    return (config[place] & 3) + 1 if len(config) > place else 0


def empty_mp4(sample_entry: bytes, matrix: bytes, timescale: int) -> bytes:
    """Give an MP4 of one video track without a picture."""
    scale = timescale.to_bytes(4, "big")
    width, height = entry_size(sample_entry)
    size = (width << 16).to_bytes(4, "big") + (height << 16).to_bytes(4, "big")
    nothing = [made(letters, _FULL, bytes(4)) for letters in (b"stts", b"stsc", b"stco")]
    table = made(
        b"stbl",
        made(b"stsd", _FULL, (1).to_bytes(4, "big"), sample_entry),
        *nothing,
        made(b"stsz", _FULL, bytes(8)),
    )
    reference = made(b"dref", _FULL, (1).to_bytes(4, "big"), made(b"url ", b"\0\0\0\1"))
    media = made(
        b"mdia",
        made(b"mdhd", _FULL, bytes(8), scale, bytes(4), b"\x55\xc4\0\0"),
        made(b"hdlr", _FULL, bytes(4), b"vide", bytes(12), b"\0"),
        made(b"minf", made(b"vmhd", b"\0\0\0\1", bytes(8)), made(b"dinf", reference), table),
    )
    one = (1).to_bytes(4, "big")
    head = made(b"tkhd", b"\0\0\0\3", bytes(8), one, bytes(24), matrix, size)
    movie = made(
        b"mvhd", _FULL, bytes(8), scale, bytes(4), b"\0\1\0\0\1\0", bytes(10), _UNITY,
        bytes(24), b"\0\0\0\2",
    )  # fmt: skip
    return made(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + made(
        b"moov", movie, made(b"trak", head, media)
    )


def _first_entry(stsd: bytes | None) -> bytes | None:
    if stsd is None or len(stsd) <= 8 + 8 + _ENTRY_BODY:
        return None
    size = int.from_bytes(stsd[8:12], "big")
    return stsd[8 : 8 + size] if 8 + _ENTRY_BODY < size <= len(stsd) - 8 else None


def _sets_h264(config: bytes) -> list[bytes]:
    found: list[bytes] = []
    place = 5
    for mask in (0x1F, 0xFF):
        if place < len(config):
            place = _take(config, place + 1, config[place] & mask, found)
    return found


def _sets_hevc(config: bytes) -> list[bytes]:
    found: list[bytes] = []
    arrays = config[22] if len(config) > 22 else 0  # noqa: PLR2004 - numOfArrays
    place = 23
    for _ in range(arrays):
        count = int.from_bytes(config[place + 1 : place + 3], "big")
        place = _take(config, place + 3, count, found)
    return found


def _take(config: bytes, place: int, count: int, found: list[bytes]) -> int:
    for _ in range(count):
        size = int.from_bytes(config[place : place + 2], "big")
        nal = config[place + 2 : place + 2 + size]
        place += 2 + size
        if len(nal) < size or size <= 2:  # noqa: PLR2004 - no more than a header
            break
        found.append(nal)
    return place
