"""What the running agent is doing, in a small file that `outpost status` reads.

Written by rename and without a sync: it describes a running process and is worth nothing after it.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import DeviceBusy, StorageError

FILE_NAME = "status.json"
LOCK_NAME = "lock"
EVERY_S = 1.0


class StatusFile:
    """Worker that writes what `look` says every second."""

    name = "status"

    def __init__(
        self, state_dir: Path, look: Callable[[], Mapping[str, object]], clock: Clock
    ) -> None:
        self._path = state_dir / FILE_NAME
        self._look = look
        self._clock = clock

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Write until `stop`; StorageError if the disk refuses."""
        while not self._clock.wait(stop, EVERY_S):
            document = {
                "pid": os.getpid(),
                "utc_ms": self._clock.utc_ns() // NS_PER_MS,
                **self._look(),
            }
            self._write(json.dumps(document))
            progress()

    def _write(self, text: str) -> None:
        temp = self._path.with_suffix(".new")
        try:
            temp.write_text(text)
            temp.replace(self._path)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error


def read(state_dir: Path) -> dict[str, Any]:
    """Give what the running agent does, or that none runs and when one last did."""
    try:
        document = json.loads((state_dir / FILE_NAME).read_text())
    except (OSError, ValueError):
        document = {}
    if _is_locked(state_dir / LOCK_NAME):
        return {"running": True, **document}
    return {"running": False, "last_seen_utc_ms": document.get("utc_ms")}


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process; two agents on one would lose footage.

    Raises:
        DeviceBusy: another agent holds it.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    with (state_dir / LOCK_NAME).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeviceBusy(
                f"state_dir {state_dir}: another agent runs on it; allowed: one"
            ) from error
        yield


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
