"""Child processes as workers: real ones, that die, hang, shout, or do not want to go."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.core.errors import AgentError, Permanent, StorageError, Transient
from agent.device.notify import Notifier
from agent.supervisor import ProcessWorker, Supervisor, SupervisorConfig
from tests.supervisor.support import until

ROOT = Path(__file__).parents[2]
QUICK = SupervisorConfig(first_backoff_s=0.01, max_backoff_s=0.05)

GOOD = """
import os, sys
print(os.getpid(), flush=True)
sys.stdin.read()
print("last words", flush=True)
"""
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM ignored", flush=True))
print(os.getpid(), flush=True)
while True:
    time.sleep(1)
"""


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Run:
    """`run` of a process worker in a thread, without a supervisor."""

    def __init__(self, script: str, silence_s: float = 60.0) -> None:
        self.lines: list[str] = []
        self.turns = 0
        self.error: AgentError | None = None
        self.stop = threading.Event()
        self._worker = ProcessWorker("child", python(script), self.lines.append, silence_s)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._worker.run(self.stop, self._progressed)
        except AgentError as error:
            self.error = error

    def _progressed(self) -> None:
        self.turns += 1

    def end(self, limit_s: float = 6.0) -> None:
        self.stop.set()
        self.thread.join(limit_s)
        assert not self.thread.is_alive()


def test_gives_lines_and_stops_by_closing_its_input() -> None:
    run = Run(GOOD)
    until(lambda: run.lines)
    begun = time.monotonic()
    run.end()
    assert time.monotonic() - begun < 1.5, "no signal was needed"
    assert run.error is None
    assert run.lines[1:] == ["last words"], "what it says at its end is still heard"
    assert not is_alive(int(run.lines[0]))
    assert run.turns > 0


def test_kills_a_child_that_ignores_sigterm_within_five_seconds() -> None:
    run = Run(DEAF)
    until(lambda: run.lines)
    begun = time.monotonic()
    run.end()
    assert 3.5 < time.monotonic() - begun < 5
    assert run.error is None
    assert run.lines[1:] == ["SIGTERM ignored"]
    assert not is_alive(int(run.lines[0]))


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("raise SystemExit(1)", Transient, "process child: ended with exit 1"),
        ("raise SystemExit(0)", Transient, "process child: ended with exit 0"),
        ("import os; os.kill(os.getpid(), 11)", Transient, "process child: ended by SIGSEGV"),
        ("raise SystemExit(78)", Permanent, "process child: exit 78; its last lines above say why"),
        ("raise SystemExit(69)", Permanent, "process child: exit 69; its last lines above say why"),
    ],
)
def test_says_how_a_child_ended(script: str, kind: type[Exception], words: str) -> None:
    run = Run(script)
    run.thread.join(5)
    assert type(run.error) is kind
    assert str(run.error) == words


def test_a_missing_program_is_transient() -> None:
    worker = ProcessWorker("child", ["/nowhere/outpost"], print)
    with pytest.raises(Transient, match="process child: "):
        worker.run(threading.Event(), lambda: None)


def test_a_silent_child_is_killed() -> None:
    run = Run("import os, time; print(os.getpid(), flush=True); time.sleep(60)", silence_s=0.5)
    run.thread.join(5)
    assert str(run.error) == "process child: silent for 0.5 s, killed"
    assert isinstance(run.error, Transient)
    assert not is_alive(int(run.lines[0]))


def test_an_endless_line_is_refused_with_bounded_memory() -> None:
    run = Run("import sys\nwhile True: sys.stdout.write('x' * 65536)")
    run.thread.join(10)
    assert isinstance(run.error, Transient)
    assert "a line of over 1048576 bytes" in str(run.error)


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    run = Run("import os; os.write(1, b'\\xff\\n\\n' + 'grün'.encode() + b'\\nhalf')")
    run.thread.join(5)
    assert run.lines == ["\N{REPLACEMENT CHARACTER}", "grün"], "half a line is no line"


def test_what_the_consumer_raises_ends_the_child_and_goes_up() -> None:
    seen: list[str] = []

    def refuse(line: str) -> None:
        seen.append(line)
        raise StorageError("store: full")

    worker = ProcessWorker("child", python(GOOD), refuse)
    with pytest.raises(StorageError, match="store: full"):
        worker.run(threading.Event(), lambda: None)
    assert not is_alive(int(seen[0]))


def test_grandchildren_go_too() -> None:
    run = Run(
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); sys.stdin.read()"
    )
    until(lambda: run.lines)
    assert is_alive(int(run.lines[0]))
    run.end()
    until(lambda: not is_alive(int(run.lines[0])))


SHOW = """
import os
print(sorted(name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))))
"""
AGENT = """
import sys, threading
from agent.supervisor import ProcessWorker

argv = [sys.executable, "-c", {script!r}]
worker = ProcessWorker("child", argv, lambda line: print(line, flush=True))
worker.run(threading.Event(), lambda: None)
"""


def test_a_child_cannot_speak_to_systemd_in_our_name(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": str(tmp_path / "socket"),
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": "1",
    }
    output = subprocess.run(
        python(AGENT.format(script=SHOW)),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.stdout == "[]\n"
    assert output.stderr.endswith("Transient: process child: ended with exit 0\n")


def test_a_child_killed_with_9_is_restarted_by_the_supervisor() -> None:
    pids: list[str] = []
    supervisor = Supervisor(
        [ProcessWorker("analysis", python(GOOD), pids.append)],
        RealClock(),
        QUICK,
        notifier=Notifier(),
    )
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    thread.start()
    for number in range(3):
        until(lambda number=number: len(pids) > number)
        os.kill(int(pids[number]), signal.SIGKILL)
    until(lambda: len(pids) > 3 and supervisor.states()["analysis"] == "running")
    supervisor.stop()
    thread.join(5)
    assert codes == [0]
    assert len(set(pids[:4])) == 4


@pytest.mark.parametrize("script", [GOOD, DEAF], ids=["reads", "deaf"])
def test_no_child_outlives_a_killed_agent(script: str) -> None:
    if script is DEAF and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed (util-linux)")
    with subprocess.Popen(
        python(AGENT.format(script=script)), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert is_alive(child)
        process.kill()
        process.wait(5)
    until(lambda: not is_alive(child))
