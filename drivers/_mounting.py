"""Asking the privileged part to mount: one connection, one request, one answer.

The other end is `drivers/_mount_service.py`.
"""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.core.errors import AgentError, SourceLost, StorageError, Unsupported

SOCKET = Path("/run/outpost-mount.sock")
ANSWER_BYTES = 8192
PATIENCE_S = 60.0  # a sick card keeps the kernel busy for long

_ERRORS: Mapping[str, type[AgentError]] = {
    "unsupported": Unsupported,
    "refused": Unsupported,
    "readonly": StorageError,
    "busy": StorageError,
}


def ask(path: Path, word: str, slot: str) -> dict[str, Any]:
    """Send a request and give the answer.

    Raises:
        SourceLost: it was pulled, has no medium yet, or the privileged part does not answer.
        Unsupported: no file system that we take, or one that cannot be mounted safely.
        StorageError: the medium does not allow it.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(path))
            connection.send(f"{word} {slot}".encode())
            raw = connection.recv(ANSWER_BYTES)
    except TimeoutError as error:
        raise SourceLost(f"slot {slot}: {word}: no answer within {PATIENCE_S:.0f} s") from error
    except OSError as error:
        raise SourceLost(f"{path}: {error.strerror}; is outpost-mount.socket started?") from error
    return _read(raw, word, slot)


def _read(raw: bytes, word: str, slot: str) -> dict[str, Any]:
    try:
        answer = dict(json.loads(raw))
    except (ValueError, TypeError) as error:
        raise SourceLost(f"slot {slot}: {word}: no answer that can be read") from error
    if code := answer.get("error"):
        raise _ERRORS.get(str(code), SourceLost)(str(answer.get("why", code)))
    return answer
