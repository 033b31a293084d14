"""A child process that lives as long as we do: lines come in, its end is never left to chance.

Its standard input is a pipe: when we die, however, it reads the end of the file. What is written to
it never makes us wait. `setpriv` (util-linux) adds a parent-death signal for a child that does not
read; the usual way, a function between fork and exec, can deadlock in a process with threads.
"""

import os
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence

from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import Transient
from agent.device import notify

READ_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 20  # an event with its whole path stays far below
TERMINATE_AFTER_S = 2.0
KILL_AFTER_S = 4.0
REAP_S = 1.0  # longest that a process which has closed its output, or was killed, may linger
POLL_S = 0.02


class Child:
    """One running process, used by one thread."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", pipes: tuple[int, int], clock: Clock
    ) -> None:
        self._name = name
        self._process = process
        self._input, self._output = pipes  # our ends
        self._clock = clock
        self._rest = b""
        self._unwritten = b""
        self._has_ended = False
        self._stop_ns: int | None = None
        self._is_terminated = False

    @property
    def pid(self) -> int:
        """Process id; also that of its group, which what it starts belongs to."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether its standard output is at its end: nothing more will be read."""
        return self._has_ended

    def lines(self, timeout_s: float) -> list[str]:
        """Give the lines that came, waiting at most `timeout_s` for the first.

        Raises:
            Transient: a line longer than any of ours.
        """
        if not select.select([self._output], [], [], timeout_s)[0]:
            return []
        chunk = os.read(self._output, READ_BYTES)
        self._has_ended = not chunk
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise Transient(
                f"process {self._name}: a line of over {MAX_LINE_BYTES} bytes;"
                f" allowed: {MAX_LINE_BYTES}"
            )
        return [line.decode(errors="replace") for line in whole if line]

    def is_writable(self) -> bool:
        """Whether it has taken all that was written so far; tries to get rid of the rest."""
        self._write_on()
        return self._input >= 0 and not self._unwritten

    def write(self, data: bytes) -> None:
        """Write to its standard input without ever waiting; ask `is_writable` before."""
        self._unwritten += data
        self._write_on()

    def _write_on(self) -> None:
        while self._unwritten and self._input >= 0:
            try:
                written = os.write(self._input, self._unwritten)
            except BlockingIOError:
                return
            except BrokenPipeError:  # it is about to end: its output tells
                self._unwritten = b""
                return
            self._unwritten = self._unwritten[written:]

    def ask_to_stop(self) -> None:
        """Close its input; call again while waiting: after 2 s SIGTERM, after 4 s SIGKILL."""
        if self._stop_ns is None:
            self._stop_ns = self._clock.mono_ns()
            self._close_input()
        waited_s = (self._clock.mono_ns() - self._stop_ns) / NS_PER_S
        if waited_s >= KILL_AFTER_S:
            self._signal(signal.SIGKILL)
        elif waited_s >= TERMINATE_AFTER_S and not self._is_terminated:
            self._is_terminated = True
            self._signal(signal.SIGTERM)

    def reap(self) -> int | None:
        """End it and what it started, free everything.

        Returns:
            Its exit code, -N when signal N ended it, None when even SIGKILL did not (a process
            that hangs in the kernel).
        """
        self._close_input()
        if self._has_ended:
            self._await_exit(REAP_S)
        self._signal(signal.SIGKILL)  # before it is waited for: later its number may be another's
        os.close(self._output)
        try:
            return self._process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            return None

    def _await_exit(self, limit_s: float) -> None:
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        begun_ns = self._clock.mono_ns()
        while os.waitid(os.P_PID, self._process.pid, options) is None:
            if (self._clock.mono_ns() - begun_ns) / NS_PER_S > limit_s:
                return
            self._clock.wait(threading.Event(), POLL_S)

    def _close_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def start(name: str, argv: Sequence[str], clock: Clock) -> Child:
    """Start a process in a session of its own, so that Ctrl-C reaches us alone.

    Raises:
        Transient: the program cannot be started.
    """
    their_input, our_input = os.pipe()
    our_output, their_output = os.pipe()
    try:
        process = subprocess.Popen(
            [*_tether(), *argv],
            stdin=their_input,
            stdout=their_output,
            start_new_session=True,
            env=notify.without(os.environ),
        )
    except OSError as error:
        os.close(our_input)
        os.close(our_output)
        raise Transient(f"process {name}: cannot start {argv[0]}: {error.strerror}") from error
    finally:
        os.close(their_input)
        os.close(their_output)
    os.set_blocking(our_input, False)
    return Child(name, process, (our_input, our_output), clock)


def _tether() -> list[str]:
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "KILL", "--"] if program else []
