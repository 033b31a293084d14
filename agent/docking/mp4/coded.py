"""What is told of a NAL unit whatever its codec, and what a codec has to tell."""

from dataclasses import dataclass
from typing import Protocol

from agent.docking.mp4.bits import Implausible

HEAD_BYTES = 96  # of a NAL unit: its slice header, as far as it is read, stands within them


@dataclass(frozen=True, slots=True)
class Slice:
    """The beginning of a slice."""

    is_first: bool  # of its picture
    is_key: bool = False  # decoding can begin here
    is_reset: bool = False  # the count of pictures begins again here
    is_reference: bool = True  # others may need it
    is_anchor: bool = True  # the next one's place is told from this one's
    frame_num: int = 0  # H.264
    poc_lsb: int | None = 0  # place in the order of showing, its lower bits; None: as decoded
    needs: tuple[int, ...] = ()  # HEVC: pictures it is told from, as differences of place
    holds: tuple[int, ...] = ()  # HEVC: those and what later ones still need


class Codec(Protocol):
    """Reads NAL units of one camera's mode.

    Attributes:
        name: `h264` or `hevc`.
        header_bytes: of a NAL unit.
        size_px: width and height that the parameter sets tell.
        frame_nums: H.264: how many numbers there are before they begin again; else 0.
        poc_bits: bits of `Slice.poc_lsb`.
    """

    name: str
    header_bytes: int
    size_px: tuple[int, int]
    frame_nums: int
    poc_bits: int

    def kind(self, nal: bytes) -> int:
        """Give the kind of a NAL unit by its header."""
        ...

    def is_slice(self, kind: int) -> bool:
        """Whether a NAL unit of this kind holds a part of a picture."""
        ...

    def ends_picture(self, kind: int) -> bool:
        """Whether a NAL unit of this kind, not a slice, belongs to the picture before it."""
        ...

    def told_size(self, nal: bytes) -> tuple[int, int] | None:
        """Give width and height if this is a sequence parameter set; raises Implausible."""
        ...

    def read(self, nal: bytes) -> Slice:
        """Read the beginning of a slice; raises Implausible."""
        ...


def names_of(sample_entry: bytes) -> str:
    """Give the codec that a sample entry's four letters stand for.

    Raises:
        Implausible: none that can be rescued.
    """
    letters = sample_entry[4:8]
    known = {b"avc1": "h264", b"avc3": "h264", b"hvc1": "hevc", b"hev1": "hevc"}
    if letters not in known:
        shown = letters.decode("ascii", "replace")
        raise Implausible(f"codec {shown!r}; allowed: {', '.join(k.decode() for k in known)}")
    return known[letters]
