"""What the centre wants every device to know, retained below `want/`: its keys, and its store.

The live link hands over what it hears; a thread of its own checks it and acts.
"""

import queue
import threading
from collections.abc import Callable, Mapping

from agent.core import log
from agent.core.clock import Clock
from agent.core.errors import IntegrityError, StorageError
from agent.core.wire import Topics
from agent.delivery.patience import Complaints

MOST_WAITING = 32
MOST_BYTES = 128 * 1024
WAIT_S = 0.5

_log = log.get(__name__)

Want = Callable[[bytes], object]
"""Takes the payload of one name; raises IntegrityError if it is not the centre's."""


class Wants:
    """Worker that takes in what the centre has retained for this device."""

    name = "wants"

    def __init__(self, topics: Topics, wants: Mapping[str, Want], clock: Clock) -> None:
        self.topic = topics.want("+")
        self._root = topics.want("")
        self._wants = wants
        self._clock = clock
        self._queue: queue.Queue[tuple[str, bytes]] = queue.Queue(MOST_WAITING)
        self._complaints = Complaints(_log)

    @property
    def ignored(self) -> int:
        """How many were not the centre's."""
        return self._complaints.count

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message of `topic`; called by the live link."""
        if not payload:
            return  # retained no more
        name = topic.removeprefix(self._root)
        if len(payload) > MOST_BYTES:
            self._ignore(name, f"{len(payload)} bytes; allowed: {MOST_BYTES}")
            return
        try:
            self._queue.put_nowait((name, payload))
        except queue.Full:
            self._ignore(name, f"more than {MOST_WAITING} are waiting")

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Take in what comes until `stop`."""
        while not stop.is_set():
            try:
                name, payload = self._queue.get(timeout=WAIT_S)
            except queue.Empty:
                progress()
                continue
            self._take(name, payload)
            progress()

    def _take(self, name: str, payload: bytes) -> None:
        want = self._wants.get(name)
        if want is None:
            return  # a word of a later centre
        try:
            want(payload)
        except (IntegrityError, StorageError) as error:
            self._ignore(name, error)

    def _ignore(self, name: str, reason: object) -> None:
        self._complaints.add("want ignored", self._clock.mono_ns(), name=name, reason=reason)
