"""Names that come from cameras: data to be shown and stored, never used as our own paths or topics.

A name is bytes to the kernel. As data it is a text in which everything that could deceive a reader
or break a line (control characters, marks that turn the writing direction, bytes that are no UTF-8)
stands escaped, so that two different names never look the same and the bytes can be had back.
"""

import hashlib
import re
import unicodedata

MOST_LETTERS = 63
_ALLOWED = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_OTHER = re.compile(r"[^a-z0-9._-]+")
_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cn", "Zl", "Zp"})  # Unicode categories
_FIRST_SURROGATE, _LAST_SURROGATE = 0xDC80, 0xDCFF  # of surrogateescape: bytes 0x80 to 0xff
_BYTE_OF = 0xDC00


def camera_name(serial: str) -> str:
    """Give a name for a serial number as topics, manifests and folders may hold it.

    Two serials that differ in more than their case get two names: what cannot be kept of one is
    told apart by its hash. Empty for an empty serial.
    """
    plain = serial.strip().lower()
    if not plain or _ALLOWED.fullmatch(plain):
        return plain
    kept = _OTHER.sub("-", plain).strip("-._")[: MOST_LETTERS - 9]
    digest = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept or 'camera'}-{digest}"


def shown(name: bytes) -> str:
    """Give a name, or a path, as data."""
    return "".join(_shown(letter) for letter in name.decode("utf-8", "surrogateescape"))


def raw(data: str) -> bytes:
    """Give back the bytes of what `shown` gave.

    Raises:
        ValueError: it was not made by `shown`.
    """
    name = _ESCAPE.sub(_unescaped, data).encode("utf-8", "surrogateescape")
    if shown(name) != data:
        raise ValueError(f"name {data!r}; allowed: escaped as our own rows are")
    return name


def _shown(letter: str) -> str:
    code = ord(letter)
    if letter == "\\":
        return "\\\\"
    if _FIRST_SURROGATE <= code <= _LAST_SURROGATE:
        return f"\\x{code - _BYTE_OF:02x}"
    if unicodedata.category(letter) not in _HIDDEN:
        return letter
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - four digits


def _unescaped(found: re.Match[str]) -> str:
    word = found[1]
    if word == "\\":
        return word
    code = int(word[1:], 16)
    return chr(code + _BYTE_OF) if word[0] == "x" else chr(code)
