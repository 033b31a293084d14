"""The processes of a dock at work: broker, receiver, agent, and slots made of folders."""

import json
import shutil
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware_sim import broker as brokers
from firmware_sim.demo import ROOT, Stage
from firmware_sim.dock import FolderSlot

CONFIG = ROOT / "configs" / "dock.toml"
SITE, DEVICE = "plaza", "dock-0001"
COPIES = 2
LOG_LETTERS = 4000


@dataclass(slots=True)
class DockStage(Stage):
    """A dock of folders, its receiver and its broker, each a process of its own."""

    slots: tuple[str, ...] = ("1", "2", "3", "4", "5", "6", "7", "8")
    slot: dict[str, FolderSlot] = field(default_factory=dict)
    receive: list[str] = field(default_factory=list)  # further options of the receiver

    @property
    def pinned(self) -> Path:
        """The receiver's public key as the dock has it."""
        return self.folder / "receiver.pub"

    @property
    def device_key(self) -> Path:
        """The dock's public key as the receiver has it."""
        return self.folder / "devices" / f"{DEVICE}.pub"

    def config(self) -> list[str]:
        """Give the options that point the example configuration at this stage."""
        values: dict[str, object] = {
            "state_dir": str(self.state),
            "broker.port": self.broker_port,
            "delivery.receiver_key_path": str(self.pinned),
            "delivery.reconnect_max_s": 2.0,
            "telemetry.beat_s": 2.0,
            "dock.hardware.folder": str(self.folder / "dock"),
            "dock.hardware.slots": list(self.slots),
            **self.extra,
        }
        options = ["--config", str(CONFIG)]
        for key, value in values.items():
            options += ["--set", f"{key}={_toml(value)}"]
        return options

    def start_all(self) -> None:
        """Make keys and slots, start everything."""
        self.slot = {name: FolderSlot(self.folder / "dock", name) for name in self.slots}
        self.broker = brokers.start(self.broker_kind, self.broker_port, self.broker_folder)
        shutil.copy(self.text("key", "receiver", "--store", str(self.store)), self.pinned)
        key = self.text("key", "device", *self.config())
        self.device_key.parent.mkdir()
        shutil.copy(key, self.device_key)
        self.start_receiver()
        self.start_agent()

    def start_receiver(self) -> None:
        """Start the reference receiver, of a store that keeps two copies."""
        argv = self.outpost("receive", "--broker", f"127.0.0.1:{self.broker_port}")
        argv += ["--site", SITE, "--store", str(self.store), "--copies", str(COPIES), *self.receive]
        self.start("receiver", [*argv, "--devices", str(self.folder / "devices")])

    def seen(self, slot: str) -> dict[str, Any]:
        """Give what stands at a slot; empty before there is anything."""
        path = self.state / "status.json"
        if not path.exists():
            return {}
        rows = json.loads(path.read_text())["slots"]
        return next((row for row in rows if row["slot"] == slot), {})

    def wait(self, slot: str, *states: str, limit_s: float = 30.0) -> dict[str, Any]:
        """Wait until a slot is in one of some states; gives what stands there.

        Raises:
            TimeoutError: it never was, or the agent has ended.
        """
        until_s = time.monotonic() + limit_s
        now: dict[str, Any] = {}
        while time.monotonic() < until_s and self.processes["agent"].poll() is None:
            now = self.seen(slot)
            if now.get("state") in states:
                return now
            time.sleep(0.05)
        raise TimeoutError(f"slot {slot}: {now}, not {states}; log:\n{self.log()}")

    def rows(self, query: str, *values: object) -> list[Any]:
        """Read the dock's database."""
        connection = sqlite3.connect(f"file:{self.state / 'outpost.db'}?mode=ro", uri=True)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def log(self) -> str:
        """Give the end of the agent's log."""
        return (self.folder / "agent.log").read_text()[-LOG_LETTERS:]


def _toml(value: object) -> str:
    """Give a value in TOML: that of JSON, but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
