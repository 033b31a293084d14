"""Agent, broker, receiver and camera as processes, with a gate before each end of the broker."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.app import DATABASE
from agent.core.errors import StorageError
from agent.device import inspect, status
from firmware_sim import broker as broker_sim
from firmware_sim.demo import ROOT, WAITING, Screen, Stage, free_port, fresh, prepare
from firmware_sim.faultfs import unmount
from firmware_sim.gate import Gate

CLOSED = re.compile(r"event closed event_id=([0-9a-f]{32})")
# Waits are a tenth of a site's, so that a round takes seconds; nothing else differs.
HURRIED = {
    "delivery.ack_timeout_s": 4.0,
    "delivery.receipt_timeout_s": 3.0,
    "delivery.reconnect_max_s": 2.0,
    "delivery.refused_retry_s": 5.0,
    "broker.keepalive_s": 5,
    "recording.segment_s": 2.0,
    "cameras.0.events.lost_s": 2.0,
}


@dataclass
class Scene(Stage):
    """The stage of the demo, where everything can be taken away and put back."""

    device_gate: Gate = None
    centre_gate: Gate = None
    restarts: int = 0  # of the agent, as systemd would: it had ended by itself
    env: dict[str, str] = field(default_factory=dict)  # of the agent, beside our own
    wrap: list[str] = field(default_factory=list)  # words before the agent's command
    known: set[str] = field(default_factory=set)  # events that any database of the agent has had
    forgiven: set[str] = field(default_factory=set)  # events that a fault was allowed to take
    has_damage: bool = False  # whether the agent's database was damaged
    rows_before: dict[tuple[str, Any], dict] = field(default_factory=dict)  # the first damage
    mourned: set[str] = field(default_factory=set)  # those of them that it did take

    @classmethod
    def open(cls, folder: Path, broker_kind: str, seed: int, screen: Screen) -> "Scene":
        """Start everything in a fresh folder."""
        scene = cls(fresh(folder), broker_kind, free_port())
        scene.device_gate = Gate(scene.broker_port, seed).start()
        scene.centre_gate = Gate(scene.broker_port, seed + 1).start()
        scene.extra = {**HURRIED, "broker.port": scene.device_gate.port}
        try:
            prepare(scene, screen)
        except BaseException:
            scene.clear()
            raise
        return scene

    @property
    def database(self) -> Path:
        """The agent's database."""
        return self.state / DATABASE

    @property
    def agent_log(self) -> Path:
        """What the agent says."""
        return self.folder / "agent.log"

    def start_agent(self) -> None:
        """Start the agent in what a fault has put around it."""
        self.start("agent", [*self.wrap, *self.outpost("run", *self.config())])

    @property
    def twin_log(self) -> Path:
        """What a second agent with the same identity says."""
        return self.folder / "twin.log"

    def start_twin(self) -> None:
        """Start a second agent with the same identity and without a camera."""
        home = self.folder / "twin"
        home.mkdir(exist_ok=True)
        shutil.copytree(self.state / "keys", home / "keys", dirs_exist_ok=True)
        extra, self.extra = self.extra, {**self.extra, "state_dir": home}
        port, self.rtsp_port = self.rtsp_port, free_port()
        try:
            self.start("twin", self.outpost("run", *self.config()))
        finally:
            self.extra, self.rtsp_port = extra, port

    def start_receiver(self) -> None:
        """Start the receiver behind its gate."""
        argv = self.outpost("receive", "--broker", f"127.0.0.1:{self.centre_gate.port}")
        argv += ["--site", "plaza", "--store", str(self.store)]
        self.start("receiver", [*argv, "--devices", str(self.folder / "devices")])

    def start_broker(self) -> None:
        """Start the broker again on its port and what it has kept."""
        self.broker = broker_sim.start(self.broker_kind, self.broker_port, self.broker_folder)

    def start(self, name: str, argv: list[str]) -> None:
        """Start a process with its log beside the others'."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), **(self.env if name == "agent" else {})}
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                argv, cwd=ROOT, stdout=log, stderr=log, text=True, env=env, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """End a process with SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def restart_agent(self) -> int | None:
        """Stop the agent in order and start it; gives the exit code."""
        code = self.stop("agent", 20.0)
        self.start_agent()
        return code

    def is_agent_up(self) -> bool:
        """Whether the agent's process runs."""
        process = self.processes.get("agent")
        return process is not None and process.poll() is None

    def keep_up(self) -> None:
        """Start the agent if it has ended by itself, as systemd's Restart=always does."""
        if not self.is_agent_up():
            self.restarts += 1
            self.processes.pop("agent", None)
            self.start_agent()

    def has_spoken(self) -> bool:
        """Whether the agent that runs now has written its status."""
        process = self.processes.get("agent")
        return process is not None and status.read(self.state).get("pid") == process.pid

    def counts(self) -> dict[str, int]:
        """Give how much of everything the agent holds; empty while its database cannot be read."""
        try:
            return inspect.counts(self.database)
        except StorageError:
            return {}

    def closed_by_log(self) -> set[str]:
        """Give the events of which the agent said that they are closed, and so kept."""
        return set(CLOSED.findall(self.agent_log.read_text(errors="replace")))

    def camera_plays(self) -> None:
        """Let the camera be reached, from the beginning of its film."""
        self.control({"do": "accept"})

    def camera_away(self) -> None:
        """Take the camera away: open events close."""
        self.control({"do": "refuse"})
        self.control({"do": "drop"})

    def wait_for_events(self, more: int, limit_s: float) -> bool:
        """Wait until the agent has closed so many more events."""
        wanted = len(self.closed_by_log()) + more
        return self.until(lambda: len(self.closed_by_log()) >= wanted, limit_s)

    def drain(self, limit_s: float, screen: Screen) -> bool:
        """Wait until everything that the agent made is signed for."""
        waiting: dict[str, Any] = {}

        def is_drained() -> bool:
            nonlocal waiting
            self.keep_up()
            now = self.counts()
            if self.has_damage and not now.get("files_waiting", 1):
                # Made anew after the database went back in time, while the centre has the first
                # making: it refuses the second, and the device says so.
                now["clips_sealed"] = 0
            waiting = {name: now.get(name, "?") for name in WAITING}
            if sys.stdout.isatty():
                screen.progress("  ".join(f"{name} {waiting[name]}" for name in WAITING))
            has_any = now.get("events_closed", 0) > 0 or self.has_damage
            return self.has_spoken() and bool(now) and has_any and not any(waiting.values())

        # Twice: an event that closes now makes a clip a moment later.
        return all(self.until(is_drained, limit_s) for _ in range(2))

    def until(self, condition: Any, limit_s: float) -> bool:
        """Wait for something to become true."""
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            if condition():
                return True
            time.sleep(0.5)
        return bool(condition())

    def clear(self) -> None:
        """End whatever still runs."""
        super().clear()
        for place in (self.state, self.store):  # what a round that broke has left
            while place.is_mount():
                unmount(place)
        for gate in (self.device_gate, self.centre_gate):
            gate.close()
