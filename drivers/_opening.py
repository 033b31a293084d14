"""Opening a container on a thread of its own: libav cannot be called off, and a device may hang."""

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import av

from agent.core.errors import AgentError, SourceLost

POLL_S: Final = 0.25
GRACE_S: Final = 1.0  # libav's own time limit comes first and knows more

Opened: TypeAlias = av.container.InputContainer | AgentError
Connect: TypeAlias = Callable[[], Opened]
"""Opens, or gives, not raises, why not: the error is raised where its context is harmless."""


class Opening:
    """One attempt to open."""

    def __init__(self, connect: Connect, name: str) -> None:
        self._connect = connect
        self._name = name
        self._found: queue.Queue[Opened] = queue.Queue(1)
        self._is_abandoned = threading.Event()

    def wait(self, closed: threading.Event, timeout_s: float) -> Opened:
        """Give what was opened, or why not; after that nothing is left open behind it."""
        thread = threading.Thread(target=self._open, name="opening", daemon=True)
        thread.start()
        waited_s = 0.0
        while not closed.is_set() and waited_s < timeout_s + GRACE_S:
            try:
                found = self._found.get(timeout=POLL_S)
            except queue.Empty:
                waited_s += POLL_S
                continue
            thread.join()
            return found
        self._is_abandoned.set()
        self._discard()
        reason = "closed" if closed.is_set() else f"no answer for {waited_s:.0f} s"
        return SourceLost(f"{self._name}: {reason}")

    def _open(self) -> None:
        self._found.put(self._connect())
        if self._is_abandoned.is_set():
            self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(queue.Empty):
            found = self._found.get_nowait()
            if not isinstance(found, AgentError):
                found.close()
