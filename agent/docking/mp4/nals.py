"""NAL units with four bytes of length before each, as MP4 holds them."""

from collections.abc import Iterator

LENGTH_BYTES = 4
_FORBIDDEN = (b"\x00\x00\x00", b"\x00\x00\x01", b"\x00\x00\x02")


def units(sample: bytes) -> Iterator[bytes]:
    """Give the NAL units of a picture; ValueError if they do not fill it exactly."""
    place = 0
    while place < len(sample):
        size = int.from_bytes(sample[place : place + LENGTH_BYTES], "big")
        place += LENGTH_BYTES
        if size == 0 or place + size > len(sample):
            raise ValueError(f"no chain of NAL units at byte {place}")
        yield sample[place : place + size]
        place += size


def first_forbidden(data: bytes) -> int:
    """Give where bytes stand that no NAL unit holds (H.264 7.4.1), or their length."""
    found = [place for code in _FORBIDDEN if (place := data.find(code)) >= 0]
    return min(found, default=len(data))


def is_clean(nal: bytes) -> bool:
    """Whether it holds nothing forbidden and does not end in zero."""
    return nal[-1:] != b"\0" and first_forbidden(nal) == len(nal)
