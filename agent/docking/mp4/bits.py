"""Bits of a NAL unit, as H.264 (7.3) and HEVC (7.3, 9.2) write them."""

_MOST_ZEROS = 31  # of an Exp-Golomb code: more is no number of these formats


class Implausible(ValueError):
    """These bytes are not what they would have to be."""


def unescaped(nal: bytes) -> bytes:
    """Take out the bytes that keep a payload from looking like a start code."""
    return nal.replace(b"\x00\x00\x03", b"\x00\x00")


class Bits:
    """Reads numbers from the front of bytes.

    Raises, from every method:
        Implausible: the bytes end too early, or hold no such number.
    """

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def number(self, bits: int) -> int:
        """Give an unsigned number of so many bits."""
        self._left -= bits
        if self._left < 0:
            raise Implausible("the bytes end too early")
        return self._value >> self._left & ((1 << bits) - 1)

    def flag(self) -> bool:
        """Give one bit."""
        return self.number(1) == 1

    def skip(self, bits: int) -> None:
        """Pass over bits."""
        self.number(bits)

    def golomb(self, most: int = 1 << _MOST_ZEROS) -> int:
        """Give an unsigned Exp-Golomb number, ue(v)."""
        zeros = 0
        while not self.flag():
            zeros += 1
            if zeros > _MOST_ZEROS:
                raise Implausible("no Exp-Golomb number")
        value = (1 << zeros) - 1 + (self.number(zeros) if zeros else 0)
        if value > most:
            raise Implausible(f"{value}; allowed: up to {most}")
        return value

    def signed(self) -> int:
        """Give a signed Exp-Golomb number, se(v)."""
        value = self.golomb()
        return (value + 1) // 2 if value & 1 else -(value // 2)
