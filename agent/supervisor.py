"""Starts workers, watches them, restarts them with back-off, ends them; alone catches everything.

What a worker raises says what happens to it (agent/core/errors.py): Transient, StorageError and
the machine's own OSError are tried again for ever, Permanent and IntegrityError disable this worker
alone, ConfigError ends the agent with 78, StoreCorrupt with 1, for the next start mends a damaged
database; anything else is a defect: traced, tried again, and too many end it with 1.
"""

import os
import queue
import random
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.core import log
from agent.core.clock import NS_PER_S, Clock, RealClock
from agent.core.errors import (
    AgentError,
    ConfigError,
    IntegrityError,
    Permanent,
    SourceLost,
    StorageError,
    StoreCorrupt,
    Transient,
)
from agent.device import child, notify
from agent.device.notify import Notifier

EXIT_OK, EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_CONFIG = 0, 1, 69, 78
LINE_WAIT_S = 0.2
END_LOOK_S = 0.5
WATCH_S = 5.0  # between two looks at the workers where systemd asks for no watchdog
FEEDS_PER_PERIOD = 3  # a lost datagram must not cost a restart
MOST_DOUBLINGS = 16

_log = log.get(__name__)


class Worker(Protocol):
    """One thread's work, resumable: `run` may be called again after it raised."""

    name: str

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Work until `stop` is set, then return within about 2 s.

        Calls `progress` whenever work was done or the idle loop really turned, at least every
        few seconds. Returning before `stop` says that there is nothing left to do.

        Raises:
            AgentError: see the module.
        """
        ...


@dataclass(frozen=True, slots=True)
class SupervisorConfig:
    """Limits of restarts and of patience."""

    first_backoff_s: float = 1.0  # waits are drawn from [0, this x 2^n]: full jitter
    max_backoff_s: float = 60.0
    source_backoff_s: float = 2.5  # a camera is near and cheap to ask; every wait is lost footage
    reset_after_s: float = 60.0  # of running, and the next wait is short again
    settled_s: float = 5.0  # of running, and the log says that the worker is back
    max_crashes: int = 5  # of one worker within the window; one more ends the process
    crash_window_s: float = 600.0
    # Without progress for so long the watchdog is not fed; a driver may wait 60 s for its camera.
    stall_s: float = 75.0
    stop_s: float = 5.0


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """How a worker is."""

    state: str  # starting, running, stalled, waiting, disabled, failed, ended, stopped
    since_utc_ns: int
    detail: str  # why, in words


@dataclass(slots=True)
class _Post:
    """A worker with its history; written by its own thread, read by others."""

    worker: Worker
    health: WorkerHealth
    progress_mono_ns: int = 0
    started_mono_ns: int = 0
    failures: int = 0  # in a row
    is_lost: bool = False  # the log has said so
    crashes_mono_ns: deque[int] = field(default_factory=deque)
    thread: threading.Thread | None = None


class Supervisor:
    """Runs workers until it is told to stop, each in a thread of its own.

    Args:
        workers: their names differ.
        clock: for waits and times.
        config: limits.
        check: a round trip through the store; the watchdog is fed only while it returns.
        notifier: systemd's socket; by default the one that the environment names.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        clock: Clock,
        config: SupervisorConfig | None = None,
        check: Callable[[], object] = lambda: None,
        notifier: Notifier | None = None,
    ) -> None:
        self._clock = clock
        self._config = config or SupervisorConfig()
        self._check = check
        self._notifier = notifier
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._stop = threading.Event()
        # SimpleQueue.put may be called from a signal handler at any moment; Event.set may not.
        self._ends: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        born = WorkerHealth("starting", clock.utc_ns(), "")
        self._posts = {worker.name: _Post(worker, born) for worker in workers}

    def run(self) -> int:
        """Run until a signal, `stop` or a failure ends it; gives the exit code.

        In the main thread SIGTERM and SIGINT stop it.
        """
        notifier = self._notifier or notify.from_environment(os.environ)
        previous = self._take_signals()
        watch = threading.Thread(target=self._watch, args=(notifier,), name="watch", daemon=True)
        try:
            for post in self._posts.values():
                post.thread = threading.Thread(
                    target=self._live, args=(post,), name=post.worker.name, daemon=True
                )
                post.thread.start()
            notifier.send("READY=1", self._status())
            watch.start()
            code, reason = self._await_end()
            _log.info("stopping", reason=reason)
            notifier.send("STOPPING=1", f"STATUS=stopping: {reason}")
            self._stop.set()
            unfinished = self._join([watch])
            return code or unfinished
        finally:
            for number, before in previous.items():
                signal.signal(number, before)

    def stop(self, reason: str = "asked to") -> None:
        """End `run` with exit code 0; from any thread, any number of times."""
        self._ends.put((EXIT_OK, reason))

    def health(self) -> Mapping[str, WorkerHealth]:
        """Give the health of every worker by name."""
        return {name: self._health(post) for name, post in self._posts.items()}

    def states(self) -> Mapping[str, str]:
        """Give the state of every worker by name."""
        return {name: health.state for name, health in self.health().items()}

    def _take_signals(self) -> Mapping[signal.Signals, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {
            number: signal.signal(number, lambda got, _frame: self.stop(signal.Signals(got).name))
            for number in (signal.SIGTERM, signal.SIGINT)
        }

    def _await_end(self) -> tuple[int, str]:
        while True:
            try:  # in short waits: a signal taken by another thread does not wake this one
                return self._ends.get(timeout=END_LOOK_S)
            except queue.Empty:
                continue

    def _join(self, others: Sequence[threading.Thread]) -> int:
        deadline_ns = self._clock.mono_ns() + round(self._config.stop_s * NS_PER_S)
        threads = [post.thread for post in self._posts.values() if post.thread is not None]
        for thread in [*threads, *others]:
            thread.join(max(0.0, (deadline_ns - self._clock.mono_ns()) / NS_PER_S))
        late = [thread.name for thread in threads if thread.is_alive()]
        if late:
            _log.error("workers did not stop", workers=", ".join(late), limit_s=self._config.stop_s)
        return EXIT_FAILED if late else EXIT_OK

    # One worker's thread.

    def _live(self, post: _Post) -> None:
        while not self._stop.is_set():
            post.started_mono_ns = post.progress_mono_ns = self._clock.mono_ns()
            self._enter(post, "starting", post.health.detail)
            try:
                post.worker.run(self._stop, lambda: self._progressed(post))
            except Exception as error:  # noqa: BLE001 - the one place that may: decides what follows
                if not self._goes_on_after(post, error):
                    return
            else:
                self._returned(post)
                return
        self._enter(post, "stopped", "")

    def _returned(self, post: _Post) -> None:
        if self._stop.is_set():
            self._enter(post, "stopped", "")
            return
        self._enter(post, "ended", "nothing left to do")
        _log.warning("worker ended by itself", worker=post.worker.name)

    def _progressed(self, post: _Post) -> None:
        now_ns = self._clock.mono_ns()
        post.progress_mono_ns = now_ns
        if post.health.state != "running":
            self._enter(post, "running", "")
        if post.is_lost and now_ns - post.started_mono_ns > self._config.settled_s * NS_PER_S:
            post.is_lost = False
            _log.info("worker back", worker=post.worker.name, failures=post.failures)

    def _goes_on_after(self, post: _Post, error: Exception) -> bool:
        """Decide what a worker's error means, and wait if it is to run again."""
        name, reason = post.worker.name, log.redact(str(error))
        if isinstance(error, ConfigError):
            self._enter(post, "failed", reason)
            self._ends.put((EXIT_CONFIG, f"worker {name}: {reason}"))
            return False
        if isinstance(error, StoreCorrupt):
            self._ends.put((EXIT_FAILED, f"{reason}; the next start mends it"))
            return False
        if isinstance(error, Permanent | IntegrityError):
            self._enter(post, "disabled", reason)
            _log.error("worker disabled", worker=name, reason=reason)
            return False
        if not isinstance(error, Transient | StorageError | OSError):
            _log.error("worker crashed", trace=True, worker=name, error=type(error).__name__)
            if self._has_crashed_too_often(post):
                self._enter(post, "failed", reason)
                self._ends.put((EXIT_FAILED, f"worker {name} crashed too often"))
                return False
        elif not post.is_lost:
            post.is_lost = True
            _log.warning("worker lost", worker=name, reason=reason)
        self._enter(post, "waiting", reason or type(error).__name__)
        return not self._clock.wait(self._stop, self._backoff_s(post, error))

    def _has_crashed_too_often(self, post: _Post) -> bool:
        now_ns = self._clock.mono_ns()
        post.crashes_mono_ns.append(now_ns)
        while now_ns - post.crashes_mono_ns[0] > self._config.crash_window_s * NS_PER_S:
            post.crashes_mono_ns.popleft()
        return len(post.crashes_mono_ns) > self._config.max_crashes

    def _backoff_s(self, post: _Post, error: Exception) -> float:
        ran_s = (self._clock.mono_ns() - post.started_mono_ns) / NS_PER_S
        post.failures = 1 if ran_s > self._config.reset_after_s else post.failures + 1
        is_source = isinstance(error, SourceLost)
        longest_s = self._config.source_backoff_s if is_source else self._config.max_backoff_s
        doubled_s = self._config.first_backoff_s * 2 ** min(post.failures - 1, MOST_DOUBLINGS)
        return self._random.uniform(0, min(longest_s, doubled_s))

    def _enter(self, post: _Post, state: str, detail: str) -> None:
        if (state, detail) != (post.health.state, post.health.detail):
            post.health = WorkerHealth(state, self._clock.utc_ns(), detail)

    # The watch over all of them.

    def _watch(self, notifier: Notifier) -> None:
        period_s = (notifier.watchdog_s or WATCH_S) / FEEDS_PER_PERIOD
        was_late: frozenset[str] = frozenset()
        while not self._clock.wait(self._stop, period_s):
            late = frozenset(name for name, state in self.states().items() if state == "stalled")
            for name in sorted(late - was_late):
                _log.error("worker stalled", worker=name, limit_s=self._config.stall_s)
            for name in sorted(was_late - late):
                _log.info("worker goes on", worker=name)
            was_late = late
            is_fed = notifier.watchdog_s is not None and not late and self._is_store_alive()
            notifier.send(self._status(), *(["WATCHDOG=1"] if is_fed else []))

    def _is_store_alive(self) -> bool:
        try:
            self._check()
        except Exception as error:  # noqa: BLE001 - whatever it is, the store does not answer
            _log.error("watchdog not fed", reason=error)
            return False
        return True

    def _health(self, post: _Post) -> WorkerHealth:
        health = post.health
        silent_s = (self._clock.mono_ns() - post.progress_mono_ns) / NS_PER_S
        if health.state in ("starting", "running") and silent_s > self._config.stall_s:
            return WorkerHealth("stalled", health.since_utc_ns, f"no progress for {silent_s:.0f} s")
        return health

    def _status(self) -> str:
        states = self.states()
        up = sum(state in ("starting", "running") for state in states.values())
        others = [
            f"{name} {state}"
            for name, state in states.items()
            if state not in ("starting", "running")
        ]
        return f"STATUS={'; '.join([f'{up} of {len(states)} workers run', *others])}"


class Feed(Protocol):
    """What a child process is given on its standard input."""

    def take(self) -> bytes:
        """Give what is new, empty if nothing is."""
        ...

    def forget(self) -> None:
        """Another process listens from now on."""
        ...


class ProcessWorker:
    """A child process as a worker: what it prints goes line by line to `on_line`.

    Its death is Transient; exit 69 or 78 says that only a person can help and disables it. A
    child that prints nothing for `silence_s` hangs: it is killed and started anew.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        silence_s: float = 60.0,
        feed: Feed | None = None,
    ) -> None:
        self.name = name
        self._feed = feed
        self._argv = argv
        self._on_line = on_line
        self._silence_s = silence_s

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """See `Worker.run`."""
        clock = RealClock()  # a process lives in real time
        if self._feed is not None:
            self._feed.forget()
        process = child.start(self.name, self._argv, clock)
        _log.info("process started", process=self.name, pid=process.pid)
        try:
            self._follow(process, clock, stop, progress)
        finally:
            code = process.reap()
        if not stop.is_set():
            raise self._death(code)
        _log.info("process ended", process=self.name, code=code)

    def _follow(
        self,
        process: child.Child,
        clock: Clock,
        stop: threading.Event,
        progress: Callable[[], None],
    ) -> None:
        heard_ns = clock.mono_ns()
        while not process.has_ended:
            for line in process.lines(LINE_WAIT_S):
                self._on_line(line)
                heard_ns = clock.mono_ns()
            progress()
            if self._feed is not None and process.is_writable():
                process.write(self._feed.take())
            if stop.is_set():
                process.ask_to_stop()
            elif (clock.mono_ns() - heard_ns) / NS_PER_S > self._silence_s:
                raise Transient(f"process {self.name}: silent for {self._silence_s:g} s, killed")

    def _death(self, code: int | None) -> AgentError:
        if code in (EXIT_UNAVAILABLE, EXIT_CONFIG):
            return Permanent(f"process {self.name}: exit {code}; its last lines above say why")
        if code is not None and code < 0:
            return Transient(f"process {self.name}: ended by {signal.Signals(-code).name}")
        return Transient(f"process {self.name}: ended with exit {code}")
