"""Names that come from cameras: shown as data, never used as paths or topics."""

import hashlib
import re

MOST_LETTERS = 63
_ALLOWED = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_OTHER = re.compile(r"[^a-z0-9._-]+")


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
