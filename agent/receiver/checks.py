"""Whole files compared with their manifests in a thread of their own: alarms do not wait for it."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from agent.core.errors import HashMismatch
from agent.receiver.assembly import Assembly


class Checks:
    """A queue of files to be checked, one at a time."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._stop = threading.Event()
        self._running: list[tuple[Assembly, Future[bool]]] = []

    @property
    def is_busy(self) -> bool:
        """Whether a file is being checked or waits for it."""
        return bool(self._running)

    def start(self, assembly: Assembly) -> None:
        """Queue a file; nothing may be written to it until it is given back."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="receiver-check")
        assembly.is_checking = True
        self._running.append((assembly, self._pool.submit(assembly.check, self._stop.is_set)))

    def ended(self) -> list[tuple[Assembly, HashMismatch | OSError | None]]:
        """Give the files that are done, each with what is wrong with it."""
        found = [(assembly, future) for assembly, future in self._running if future.done()]
        self._running = [item for item in self._running if item not in found]
        for assembly, _ in found:
            assembly.is_checking = False
        return [(assembly, _wrong(future)) for assembly, future in found]

    def close(self) -> None:
        """Stop within a block; files not yet checked are asked for again by their devices."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        self._stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        self._stop.clear()
        self._running = []


def _wrong(future: "Future[bool]") -> HashMismatch | OSError | None:
    try:
        future.result()
    except (HashMismatch, OSError) as error:
        return error
    return None
