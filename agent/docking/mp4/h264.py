"""H.264: parameter sets and the beginning of slices (ITU-T H.264, 7.3.2.1, 7.3.2.2, 7.3.3)."""

from dataclasses import dataclass

from agent.docking.mp4.bits import Bits, Implausible, unescaped
from agent.docking.mp4.coded import HEAD_BYTES, Slice

_SLICE, _IDR, _SPS, _PPS, _SEQ_END, _STREAM_END, _FILLER = 1, 5, 7, 8, 10, 11, 12
_INTRA = 2
_HIGH = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244}  # profiles
_CHROMA_444 = 3
_MOST_PX = 16384


@dataclass(frozen=True, slots=True)
class _Sps:
    size_px: tuple[int, int]
    blocks: int  # macroblocks of a frame
    frame_num_bits: int
    poc_type: int
    poc_bits: int
    has_planes: bool
    has_fields: bool


class H264:
    """Reads NAL units by parameter sets.

    Raises:
        Implausible: the parameter sets are none.
    """

    name = "h264"
    header_bytes = 1

    def __init__(self, parameter_sets: list[bytes]) -> None:
        found = {}
        self._pps: dict[int, _Sps] = {}
        for nal in parameter_sets:
            if self.kind(nal) == _SPS:
                number, sps = _read_sps(nal)
                found[number] = sps
        for nal in parameter_sets:
            if self.kind(nal) == _PPS:
                bits = Bits(unescaped(nal[1:HEAD_BYTES]))
                number, owner = bits.golomb(255), bits.golomb(31)
                if owner in found:
                    self._pps[number] = found[owner]
        if not self._pps:
            raise Implausible("no parameter sets of H.264")
        one = next(iter(self._pps.values()))
        self.size_px = one.size_px
        self.frame_nums = 1 << one.frame_num_bits
        self.poc_bits = one.poc_bits

    def kind(self, nal: bytes) -> int:
        """Give `nal_unit_type`."""
        return nal[0] & 0x1F

    def is_slice(self, kind: int) -> bool:
        """Whether it is a slice."""
        return kind in (_SLICE, _IDR)

    def ends_picture(self, kind: int) -> bool:
        """Whether it comes after a picture's slices."""
        return kind in (_SEQ_END, _STREAM_END, _FILLER)

    def told_size(self, nal: bytes) -> tuple[int, int] | None:
        """Give width and height of a sequence parameter set."""
        return _read_sps(nal)[1].size_px if self.kind(nal) == _SPS else None

    def read(self, nal: bytes) -> Slice:
        """Read the beginning of a slice."""
        is_idr = self.kind(nal) == _IDR
        is_reference = nal[0] >> 5 != 0
        bits = Bits(unescaped(nal[1:HEAD_BYTES]))
        first_block = bits.golomb()
        form = bits.golomb(9) % 5
        sps = self._pps.get(bits.golomb(255))
        if sps is None or first_block >= sps.blocks or form > _INTRA:
            raise Implausible("no slice of these parameter sets")
        if sps.has_planes:
            bits.skip(2)
        frame_num = bits.number(sps.frame_num_bits)
        if sps.has_fields and bits.flag():
            raise Implausible("a field; allowed: whole frames")
        if is_idr:
            bits.golomb(65535)
            if form != _INTRA or frame_num or not is_reference:
                raise Implausible("no key frame")
        return Slice(
            is_first=first_block == 0,
            is_key=is_idr,
            is_reset=is_idr,
            is_reference=is_reference,
            is_anchor=is_reference,
            frame_num=frame_num,
            poc_lsb=bits.number(sps.poc_bits) if sps.poc_type == 0 else None,
        )


def _read_sps(nal: bytes) -> tuple[int, _Sps]:
    bits = Bits(unescaped(nal[1:]))
    profile = bits.number(8)
    bits.skip(16)
    number = bits.golomb(31)
    chroma, has_planes = 1, False
    if profile in _HIGH:
        chroma = bits.golomb(3)
        has_planes = bits.flag() if chroma == _CHROMA_444 else False
        bits.golomb(6)
        bits.golomb(6)
        bits.skip(1)
        if bits.flag():
            _skip_scaling(bits, 12 if chroma == _CHROMA_444 else 8)
    frame_num_bits = bits.golomb(12) + 4
    poc_type, poc_bits = _read_order(bits)
    bits.golomb(16)
    bits.skip(1)
    width, units = bits.golomb() + 1, bits.golomb() + 1
    has_fields = not bits.flag()
    if has_fields:
        bits.skip(1)
    height = units * (2 if has_fields else 1)
    bits.skip(1)
    size_px = _cropped(bits, (width * 16, height * 16), chroma, has_fields=has_fields)
    sps = _Sps(size_px, width * height, frame_num_bits, poc_type, poc_bits, has_planes, has_fields)
    return number, sps


def _read_order(bits: Bits) -> tuple[int, int]:
    poc_type = bits.golomb(2)
    if poc_type == 0:
        return poc_type, bits.golomb(12) + 4
    if poc_type == 1:
        bits.skip(1)
        bits.signed()
        bits.signed()
        for _ in range(bits.golomb(255)):
            bits.signed()
    return poc_type, 0


def _cropped(
    bits: Bits, size: tuple[int, int], chroma: int, *, has_fields: bool
) -> tuple[int, int]:
    width, height = size
    if bits.flag():
        across = 2 if chroma in (1, 2) else 1
        down = (2 if chroma == 1 else 1) * (2 if has_fields else 1)
        width -= across * (bits.golomb(_MOST_PX) + bits.golomb(_MOST_PX))
        height -= down * (bits.golomb(_MOST_PX) + bits.golomb(_MOST_PX))
    if not (0 < width <= _MOST_PX and 0 < height <= _MOST_PX):
        raise Implausible(f"{width}x{height} pixels")
    return width, height


def _skip_scaling(bits: Bits, lists: int) -> None:
    for index in range(lists):
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):  # noqa: PLR2004 - six lists of 4x4, then 8x8
            if following:
                following = (last + bits.signed()) % 256
            last = following or last
