"""The devices that this receiver knows: one public key file each, read again when it changes."""

import re
from pathlib import Path

from agent.core import log
from agent.core.config import NAME
from agent.core.errors import ConfigError
from agent.evidence.keys import PublicKey

_log = log.get(__name__)


class Registry:
    """Public keys by device name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: dict[str, tuple[int, PublicKey | None]] = {}

    def key(self, device: str) -> PublicKey | None:
        """Give a device's key, or None for a device that is not registered."""
        if not re.fullmatch(NAME.regex, device):  # comes from a topic and becomes a file's name
            return None
        path = self._folder / f"{device}.pub"
        try:
            changed_ns = path.stat().st_mtime_ns
        except OSError:
            self._keys.pop(device, None)
            return None
        known = self._keys.get(device)
        if known is None or known[0] != changed_ns:
            known = (changed_ns, _read(path))
            self._keys[device] = known
        return known[1]


def _read(path: Path) -> PublicKey | None:
    try:
        return PublicKey.load(path)
    except ConfigError as error:
        _log.warning("device key not usable", reason=error)
        return None
