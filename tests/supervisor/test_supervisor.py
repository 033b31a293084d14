"""Workers in real threads under a real supervisor: who is restarted, who is not, who ends it."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.clock import RealClock, SimClock
from agent.core.errors import (
    AuthRefused,
    ChainBroken,
    ConfigError,
    OutboxFull,
    SourceLost,
    StorageError,
    UplinkDown,
)
from agent.device.notify import Notifier
from agent.supervisor import EXIT_CONFIG, EXIT_FAILED, Supervisor, SupervisorConfig, Worker
from tests.supervisor.support import until

QUICK = SupervisorConfig(
    first_backoff_s=0.01,
    max_backoff_s=0.05,
    source_backoff_s=0.05,
    settled_s=0.05,
    stall_s=0.3,
    stop_s=2.0,
)
ROOT = Path(__file__).parents[2]


class Steady:
    """Turns its loop until it is told to stop."""

    def __init__(self, name: str = "steady") -> None:
        self.name = name
        self.turns = 0

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        while not stop.wait(0.01):
            self.turns += 1
            progress()


class Failing(Steady):
    """Raises an error at each of its first starts, then is steady."""

    def __init__(self, error: Exception, times: int = 1_000_000, name: str = "failing") -> None:
        super().__init__(name)
        self.error = error
        self.times = times
        self.starts = 0

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        self.starts += 1
        if self.starts <= self.times:
            raise self.error
        super().run(stop, progress)


class Hanging(Steady):
    """Makes progress until it is told to hang; then not even `stop` reaches it."""

    def __init__(self) -> None:
        super().__init__("hanging")
        self.hang = threading.Event()
        self.free = threading.Event()

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        while not stop.wait(0.01):
            progress()
            if self.hang.is_set():
                self.free.wait(10)


class Running:
    """A supervisor that runs in a thread of the test."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.code: int | None = None
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.code = self.supervisor.run()

    def end(self, limit_s: float = 5.0) -> int | None:
        self.supervisor.stop()
        self.thread.join(limit_s)
        assert not self.thread.is_alive()
        return self.code


@contextmanager
def running(
    *workers: Worker,
    config: SupervisorConfig = QUICK,
    check: Callable[[], object] = lambda: None,
    notifier: Notifier | None = None,
) -> Iterator[Running]:
    run = Running(Supervisor(workers, RealClock(), config, check, notifier or Notifier()))
    run.thread.start()
    try:
        yield run
    finally:
        run.end()


def test_runs_every_worker_and_stops_with_zero() -> None:
    first, second = Steady("first"), Steady("second")
    with running(first, second) as run:
        until(lambda: first.turns > 3 and second.turns > 3)
        assert run.supervisor.states() == {"first": "running", "second": "running"}
        assert run.end() == 0
    assert run.supervisor.states() == {"first": "stopped", "second": "stopped"}


@pytest.mark.parametrize(
    "error",
    [
        SourceLost("gate"),
        UplinkDown("broker"),
        StorageError("disk"),
        OutboxFull("full"),
        OSError(28, "No space left on device"),
    ],
)
def test_transient_is_restarted_until_it_works(error: Exception) -> None:
    worker = Failing(error, times=8)
    with running(worker) as run:
        until(lambda: worker.turns > 3)
        assert worker.starts == 9
        assert run.supervisor.states() == {"failing": "running"}


def test_says_why_a_worker_waits() -> None:
    slow = replace(QUICK, first_backoff_s=1000.0, source_backoff_s=1000.0)
    with running(
        Failing(SourceLost("camera gate: rtsp://u:pw@10.0.0.1/: refused")), config=slow
    ) as run:
        until(lambda: run.supervisor.states()["failing"] == "waiting")
        health = run.supervisor.health()["failing"]
        assert health.detail == "camera gate: rtsp://10.0.0.1/: refused"
        assert abs(health.since_utc_ns - time.time_ns()) < 5e9


@pytest.mark.parametrize("error", [AuthRefused("camera gate: 401"), ChainBroken("custody 7")])
def test_permanent_disables_one_and_the_others_live(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    dead, alive = Failing(error, name="dead"), Steady("alive")
    with running(dead, alive) as run:
        until(lambda: run.supervisor.states()["dead"] == "disabled")
        seen = alive.turns
        until(lambda: alive.turns > seen + 10)
        assert dead.starts == 1
        assert run.supervisor.health()["dead"].detail == str(error)
        assert run.end() == 0
    assert [line.levelno for line in caplog.records if "disabled" in line.message] == [
        logging.ERROR
    ]
    assert run.supervisor.states() == {"dead": "disabled", "alive": "stopped"}


def test_a_mistake_in_the_configuration_ends_all_with_78() -> None:
    other = Steady()
    with running(Failing(ConfigError("outpost.toml: broker.port: 0")), other) as run:
        run.thread.join(3)
        assert run.code == EXIT_CONFIG == 78
        assert run.supervisor.states() == {"failing": "failed", "steady": "stopped"}


def test_a_crash_loop_ends_with_1(caplog: pytest.LogCaptureFixture) -> None:
    worker, other = Failing(ZeroDivisionError("a defect")), Steady()
    with running(worker, other) as run:
        run.thread.join(5)
        assert run.code == EXIT_FAILED == 1
    assert worker.starts == QUICK.max_crashes + 1
    assert "ZeroDivisionError: a defect" in caplog.text, "the traceback is logged"


def test_few_crashes_are_survived() -> None:
    worker = Failing(KeyError("a defect"), times=QUICK.max_crashes)
    with running(worker) as run:
        until(lambda: worker.turns > 3)
        assert run.supervisor.states() == {"failing": "running"}


def test_old_crashes_are_forgotten() -> None:
    worker = Failing(KeyError("a defect"), times=12)
    clock = SimClock()
    limits = SupervisorConfig(first_backoff_s=600.0, max_backoff_s=600.0, crash_window_s=1.0)
    run = Running(Supervisor([worker], clock, limits, notifier=Notifier()))
    run.thread.start()
    until(lambda: worker.turns > 3)  # on a simulated clock, waits of minutes pass at once
    assert run.end() == 0
    assert worker.starts == 13


def test_a_worker_that_is_done_is_not_started_again() -> None:
    class Done(Steady):
        def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
            self.turns += 1

    done, other = Done("done"), Steady()
    with running(done, other) as run:
        until(lambda: run.supervisor.states()["done"] == "ended" and other.turns > 20)
        assert done.turns == 1


def test_back_off_doubles_up_to_its_limit_and_is_jittered() -> None:
    class Noting(SimClock):
        def __init__(self) -> None:
            super().__init__(seed=1)
            self.waits: list[float] = []

        def wait(self, event: threading.Event, timeout_s: float) -> bool:
            if threading.current_thread().name == "failing":
                self.waits.append(timeout_s)
            return super().wait(event, timeout_s)

    def waits(error: Exception, times: int) -> list[float]:
        clock = Noting()
        worker = Failing(error, times=times)
        run = Running(Supervisor([worker], clock, notifier=Notifier()))
        run.thread.start()
        until(lambda: worker.turns > 0)
        run.end()
        return clock.waits

    found = waits(UplinkDown("broker"), 400)
    assert len(found) == 400
    for number, wait_s in enumerate(found):
        assert 0 <= wait_s <= min(60.0, 2.0**number)
    late = found[10:]
    assert max(late) > 50, "the limit is a minute"
    assert min(late) < 5, "full jitter: some come back soon"
    assert max(waits(SourceLost("gate"), 100)) <= 15, "a camera is asked more often"


def test_losses_are_logged_once_and_the_return_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    worker = Failing(SourceLost("gate"), times=6)
    with running(worker):
        until(lambda: "worker back" in caplog.text)
    lines = [line.getMessage() for line in caplog.records]
    assert lines.count("worker lost worker=failing reason=gate") == 1
    assert lines.count("worker back worker=failing failures=6") == 1


def test_stop_is_bounded_and_names_who_did_not_stop(caplog: pytest.LogCaptureFixture) -> None:
    worker = Hanging()
    with running(worker, Steady(), config=replace(QUICK, stop_s=0.5)) as run:
        worker.hang.set()
        time.sleep(0.05)
        begun = time.monotonic()
        assert run.end() == EXIT_FAILED
        assert time.monotonic() - begun < 1.5
    assert "workers did not stop workers=hanging" in caplog.text
    worker.free.set()


def test_a_stalled_worker_is_seen_and_its_return_too(caplog: pytest.LogCaptureFixture) -> None:
    worker = Hanging()
    with running(worker, Steady(), notifier=Notifier(watchdog_s=0.3)) as run:
        until(lambda: run.supervisor.states()["hanging"] == "running")
        worker.hang.set()
        until(lambda: "worker stalled worker=hanging" in caplog.text)
        assert run.supervisor.states() == {"hanging": "stalled", "steady": "running"}
        assert "no progress for" in run.supervisor.health()["hanging"].detail
        worker.hang.clear()
        worker.free.set()
        until(lambda: run.supervisor.states()["hanging"] == "running")


# systemd's side of the socket.


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    if request.param == "abstract":
        address = f"@outpost-test-{os.getpid()}-{tmp_path.name}"
        name = "\0" + address[1:]
    else:
        address = name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name)
        receiver.settimeout(3)
        yield address, receiver


def heard(receiver: socket.socket, seconds: float) -> list[str]:
    """What arrives within so many seconds."""
    lines: list[str] = []
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        receiver.settimeout(left)
        try:
            lines += receiver.recv(4096).decode().split("\n")
        except TimeoutError:
            break
    return lines


def test_tells_systemd_ready_watchdog_status_and_stopping(
    systemd: tuple[str, socket.socket],
) -> None:
    address, receiver = systemd
    dead = Failing(AuthRefused("no"), name="dead")
    with running(dead, Steady(), notifier=Notifier(address, watchdog_s=0.15)) as run:
        assert receiver.recv(4096).decode().split("\n")[0] == "READY=1"
        lines = heard(receiver, 0.6)
        assert lines.count("WATCHDOG=1") >= 5
        assert lines[-2] == "STATUS=1 of 2 workers run; dead disabled"
        run.end()
        assert "STOPPING=1" in heard(receiver, 0.2)


def test_the_watchdog_is_withheld_while_a_worker_hangs(
    systemd: tuple[str, socket.socket],
) -> None:
    address, receiver = systemd
    worker = Hanging()
    with running(worker, Steady(), notifier=Notifier(address, watchdog_s=0.15)) as run:
        assert "WATCHDOG=1" in heard(receiver, 0.4)
        worker.hang.set()
        until(lambda: run.supervisor.states()["hanging"] == "stalled")
        heard(receiver, 0.1)  # what was fed before
        lines = heard(receiver, 0.4)
        assert "WATCHDOG=1" not in lines
        assert "STATUS=1 of 2 workers run; hanging stalled" in lines
        worker.hang.clear()
        worker.free.set()
        until(lambda: "WATCHDOG=1" in heard(receiver, 0.1))


@pytest.mark.parametrize("how", ["raises", "blocks"])
def test_the_watchdog_is_withheld_while_the_store_does_not_answer(
    systemd: tuple[str, socket.socket], how: str
) -> None:
    address, receiver = systemd
    is_broken, is_mended = threading.Event(), threading.Event()

    def check() -> None:
        if is_broken.is_set() and how == "raises":
            raise StorageError("store: disk I/O error")
        if is_broken.is_set():
            is_mended.wait(10)

    with running(Steady(), check=check, notifier=Notifier(address, watchdog_s=0.15)):
        assert "WATCHDOG=1" in heard(receiver, 0.3)
        is_broken.set()
        heard(receiver, 0.1)
        assert "WATCHDOG=1" not in heard(receiver, 0.3)
        is_broken.clear()
        is_mended.set()
        assert "WATCHDOG=1" in heard(receiver, 0.3)


# Signals, in a process of their own: only a main thread can take them.

PROGRAM = """
import threading
from agent.core.clock import RealClock
from agent.supervisor import Supervisor

class Steady:
    name = "steady"
    def run(self, stop, progress):
        print("up", flush=True)
        while not stop.wait(0.05):
            progress()

raise SystemExit(Supervisor([Steady()], RealClock()).run())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            begun = time.monotonic()
            process.send_signal(number)
            assert process.wait(5) == 0
            assert time.monotonic() - begun < 2
        told = heard(receiver, 0.1)
    assert "READY=1" in told
    assert f"STATUS=stopping: {number.name}" in told
