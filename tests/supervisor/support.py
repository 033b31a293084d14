"""Waiting for what another thread does."""

import time
from collections.abc import Callable


def until(reached: Callable[[], object], limit_s: float = 5.0) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.005)
