"""Work on media in a process of its own, with little of everything, so that ours never parses any.

Decoders are the largest target that a recording from a stranger's card can hit. Whatever becomes of
the child - an error, a crash, a hang, a bomb - comes back as words.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

_MODULE: Final = "agent.docking.mediachild"
_MOST_ANSWER_BYTES: Final = 64 << 10
_WALL_TIMES: Final = 3  # of the CPU time: a slow disk, a busy machine
_NOT_FOR_IT: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_TICK_S: Final = 0.5

Tick = Callable[[], None]
"""Tells that work goes on; raises to end it."""


def idle() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use."""

    cpu_s: int = 30
    memory_mib: int = 512  # of addresses; about 130 are programs
    file_bytes: int = 0  # of a file that it writes

    @property
    def wall_s(self) -> int:
        """Seconds by the clock."""
        return _WALL_TIMES * self.cpu_s


def told(
    word: str,
    arguments: Sequence[str],
    limits: Limits,
    tick: Tick = idle,
    descriptor: int = -1,
) -> dict[str, Any]:
    """Have a child do one thing and give the JSON object it printed.

    Args:
        word: what is to be done (`mediachild`).
        arguments: its arguments.
        limits: what it may use.
        tick: called about twice a second meanwhile; what it raises ends the child, and comes out.
        descriptor: a file that stays open in it under the same number.

    Returns:
        The object, unchecked; `{"why": …}` if there is none.
    """
    numbers = [limits.cpu_s, limits.memory_mib, limits.file_bytes]
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, *map(str, numbers), word, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if descriptor < 0 else (descriptor,),
            env={name: text for name, text in os.environ.items() if name not in _NOT_FOR_IT},
        )
    except OSError as error:
        return {"why": f"no process for it: {error.strerror}"}
    with process, _Watch(process, limits.wall_s) as watch:
        answer = _read(process, tick)
        if len(answer) > _MOST_ANSWER_BYTES:
            watch.end()
            return {"why": "its reader told more than allowed"}
        code = _awaited(process, tick)
    if watch.has_ended_it:
        return {"why": f"took longer than {limits.wall_s} s"}
    return _answer(code, answer)


def _read(process: "subprocess.Popen[bytes]", tick: Tick) -> bytes:
    """Give what it tells, up to a little more than allowed."""
    answer = b""
    while process.stdout is not None and len(answer) <= _MOST_ANSWER_BYTES:
        tick()
        if select.select([process.stdout], [], [], _TICK_S)[0]:
            piece = os.read(process.stdout.fileno(), _MOST_ANSWER_BYTES)
            if not piece:
                break
            answer += piece
    return answer


def _awaited(process: "subprocess.Popen[bytes]", tick: Tick) -> int:
    while True:
        tick()
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_TICK_S)


class _Watch:
    """Ends a process, and what it started, when its time is over."""

    def __init__(self, process: "subprocess.Popen[bytes]", limit_s: float) -> None:
        self._process = process
        self._timer = threading.Timer(limit_s, self.end)
        self.has_ended_it = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._process.returncode is None:
            self.end()

    def end(self) -> None:
        """End it now."""
        if self._process.returncode is None:
            self.has_ended_it = True
            os.killpg(self._process.pid, signal.SIGKILL)


def _answer(code: int, answer: bytes) -> dict[str, Any]:
    if code == -signal.SIGXCPU:
        return {"why": "took more computing time than allowed"}
    if code != 0:
        return {"why": f"its reader ended by {f'signal {-code}' if code < 0 else f'code {code}'}"}
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"why": "its reader told nothing"}
