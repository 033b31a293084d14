"""HEVC: parameter sets, slices, what a picture is told from (ITU-T H.265, 7.3.2, 7.3.6, 7.3.7)."""

from dataclasses import dataclass

from agent.docking.mp4.bits import Bits, Implausible, unescaped
from agent.docking.mp4.coded import HEAD_BYTES, Slice

_LAST_SLICE, _SPS, _PPS, _SEQ_END, _STREAM_END, _FILLER, _SUFFIX = 31, 33, 34, 36, 37, 38, 40
_BLA, _IDR_W_RADL, _IDR_N_LP, _LAST_KEY = 16, 19, 20, 23
_LEADING = range(6, 10)
_RESERVED_SLICES = range(22, 32)
_LAST_SUBLAYER = 14  # up to it, even kinds are no reference within their layer
_INTRA = 2
_MOST_SETS, _MOST_PICTURES = 64, 16
_CHROMA_444 = 3
_MOST_PX = 16384

_RefSet = tuple[tuple[int, bool], ...]  # difference of place, whether this picture needs it


@dataclass(frozen=True, slots=True)
class _Sps:
    size_px: tuple[int, int]
    has_planes: bool
    poc_bits: int
    ref_sets: tuple[_RefSet, ...]


@dataclass(frozen=True, slots=True)
class _Pps:
    sps: _Sps
    has_output_flag: bool
    extra_bits: int


class Hevc:
    """Reads NAL units by parameter sets.

    Raises:
        Implausible: the parameter sets are none.
    """

    name = "hevc"
    header_bytes = 2
    frame_nums = 0

    def __init__(self, parameter_sets: list[bytes]) -> None:
        found = {}
        self._pps: dict[int, _Pps] = {}
        for nal in parameter_sets:
            if self.kind(nal) == _SPS:
                number, sps = _read_sps(nal)
                found[number] = sps
        for nal in parameter_sets:
            if self.kind(nal) == _PPS:
                bits = Bits(unescaped(nal[2:HEAD_BYTES]))
                number, owner = bits.golomb(63), bits.golomb(15)
                bits.skip(1)
                if owner in found:
                    self._pps[number] = _Pps(found[owner], bits.flag(), bits.number(3))
        if not self._pps:
            raise Implausible("no parameter sets of HEVC")
        one = next(iter(self._pps.values())).sps
        self.size_px, self.poc_bits = one.size_px, one.poc_bits

    def kind(self, nal: bytes) -> int:
        """Give `nal_unit_type`."""
        return nal[0] >> 1 & 0x3F

    def is_slice(self, kind: int) -> bool:
        """Whether it is a slice."""
        return kind <= _LAST_SLICE

    def ends_picture(self, kind: int) -> bool:
        """Whether it comes after a picture's slices."""
        return kind in (_SEQ_END, _STREAM_END, _FILLER, _SUFFIX)

    def told_size(self, nal: bytes) -> tuple[int, int] | None:
        """Give width and height of a sequence parameter set."""
        return _read_sps(nal)[1].size_px if self.kind(nal) == _SPS else None

    def read(self, nal: bytes) -> Slice:
        """Read the beginning of a slice."""
        kind = self.kind(nal)
        if kind in _RESERVED_SLICES:
            raise Implausible(f"kind {kind} is reserved")
        is_key, is_idr = _BLA <= kind <= _LAST_KEY, kind in (_IDR_W_RADL, _IDR_N_LP)
        bits = Bits(unescaped(nal[2:HEAD_BYTES]))
        is_first = bits.flag()
        if is_key:
            bits.skip(1)
        pps = self._pps.get(bits.golomb(63))
        if pps is None:
            raise Implausible("no slice of these parameter sets")
        if not is_first:
            return Slice(is_first=False, is_key=is_key)
        bits.skip(pps.extra_bits)
        form = bits.golomb(_INTRA)
        if is_key and form != _INTRA:
            raise Implausible("no key frame")
        bits.skip(int(pps.has_output_flag) + 2 * int(pps.sps.has_planes))
        poc_lsb, refs = (0, ()) if is_idr else _read_place(bits, pps.sps)
        is_tid0 = nal[1] & 7 == 1
        is_sub = kind <= _LAST_SUBLAYER and kind % 2 == 0
        return Slice(
            is_first=True,
            is_key=is_key,
            is_reset=is_idr or _BLA <= kind < _IDR_W_RADL,
            is_anchor=is_tid0 and kind not in _LEADING and not is_sub,
            poc_lsb=poc_lsb,
            needs=() if is_key else tuple(delta for delta, is_used in refs if is_used),
            holds=tuple(delta for delta, _ in refs),
        )


def _read_place(bits: Bits, sps: _Sps) -> tuple[int, _RefSet]:
    poc_lsb = bits.number(sps.poc_bits)
    if not bits.flag():
        return poc_lsb, _read_ref_set(bits, len(sps.ref_sets), sps.ref_sets, in_slice=True)
    if not sps.ref_sets:
        raise Implausible("no set of references")
    index = bits.number((len(sps.ref_sets) - 1).bit_length())
    if index >= len(sps.ref_sets):
        raise Implausible("no such set of references")
    return poc_lsb, sps.ref_sets[index]


def _read_ref_set(
    bits: Bits, index: int, sets: tuple[_RefSet, ...], *, in_slice: bool = False
) -> _RefSet:
    """Read `st_ref_pic_set` (7.3.7, semantics 7.4.8)."""
    if index and bits.flag():
        back = bits.golomb(index - 1) + 1 if in_slice else 1
        return _predicted(bits, sets[index - back])
    before, after = bits.golomb(_MOST_PICTURES), bits.golomb(_MOST_PICTURES)
    found: list[tuple[int, bool]] = []
    for count, sign in ((before, -1), (after, 1)):
        delta = 0
        for _ in range(count):
            delta += sign * (bits.golomb(1 << 15) + 1)
            found.append((delta, bits.flag()))
    return tuple(found)


def _predicted(bits: Bits, base: _RefSet) -> _RefSet:
    is_negative = bits.flag()
    step = (bits.golomb(1 << 15) + 1) * (-1 if is_negative else 1)
    found = []
    for delta in [*(delta for delta, _ in base), 0]:
        is_used = bits.flag()
        is_kept = is_used or bits.flag()
        if is_kept and delta + step != 0:
            found.append((delta + step, is_used))
    # the order the format keeps its sets in, which a set told from this one counts by
    before = sorted((item for item in found if item[0] < 0), reverse=True)
    return tuple(before + sorted(item for item in found if item[0] > 0))


def _read_sps(nal: bytes) -> tuple[int, _Sps]:
    bits = Bits(unescaped(nal[2:]))
    bits.skip(4)
    sublayers = bits.number(3)
    bits.skip(1)
    _skip_profile(bits, sublayers)
    number = bits.golomb(15)
    chroma = bits.golomb(3)
    has_planes = bits.flag() if chroma == _CHROMA_444 else False
    size_px = _read_size(bits, chroma)
    bits.golomb(8)
    bits.golomb(8)
    poc_bits = bits.golomb(12) + 4
    for _ in range(sublayers + 1 if bits.flag() else 1):
        for _ in range(3):
            bits.golomb()
    for _ in range(6):
        bits.golomb(64)
    if bits.flag() and bits.flag():
        _skip_scaling(bits)
    bits.skip(2)
    if bits.flag():  # PCM
        bits.skip(8)
        bits.golomb(8)
        bits.golomb(8)
        bits.skip(1)
    sets: tuple[_RefSet, ...] = ()
    for index in range(bits.golomb(_MOST_SETS)):
        sets += (_read_ref_set(bits, index, sets),)
    return number, _Sps(size_px, has_planes, poc_bits, sets)


def _skip_profile(bits: Bits, sublayers: int) -> None:
    bits.skip(88 + 8)
    told = [(bits.flag(), bits.flag()) for _ in range(sublayers)]
    if sublayers:
        bits.skip(2 * (8 - sublayers))
    for has_profile, has_level in told:
        bits.skip(88 * int(has_profile) + 8 * int(has_level))


def _read_size(bits: Bits, chroma: int) -> tuple[int, int]:
    width, height = bits.golomb(_MOST_PX), bits.golomb(_MOST_PX)
    if bits.flag():
        across = 2 if chroma in (1, 2) else 1
        down = 2 if chroma == 1 else 1
        width -= across * (bits.golomb(_MOST_PX) + bits.golomb(_MOST_PX))
        height -= down * (bits.golomb(_MOST_PX) + bits.golomb(_MOST_PX))
    if width <= 0 or height <= 0:
        raise Implausible(f"{width}x{height} pixels")
    return width, height


def _skip_scaling(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):  # noqa: PLR2004 - 32x32 has two lists
            if not bits.flag():
                bits.golomb()
                continue
            if size > 1:
                bits.signed()
            for _ in range(min(64, 1 << (4 + (size << 1)))):
                bits.signed()
