"""The main job on real footage, start to end, as one command: `./run demo`.

A simulated RTSP camera plays people crossing a plaza; the agent records, detects and cuts clips;
the broker is taken away while events go on and brought back; the receiver signs for every file.
Everything runs as its own process with the same commands a technician types.
"""

import argparse
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware_sim import broker as broker_sim

ROOT = Path(__file__).resolve().parent.parent
PLAZA = ROOT / "firmware_sim" / "media" / "plaza.mp4"
CONFIG = ROOT / "configs" / "camera.toml"
USER, PASSWORD = "outpost", "demo-camera"
SITE, DEVICE = "plaza", "cam-0001"
WARM_S, OFFLINE_S, AFTER_S = 14.0, 15.0, 8.0
DRAIN_S = 60.0
POLL_S = 1.0
MARKER = ".outpost-run"
WAITING = ("events_open", "clips_wanted", "clips_sealed", "files_waiting", "receipts_waiting")

Status = Mapping[str, Any]


_SUB_TABLE = re.compile(r"^\[cameras\.sub\].*?(?=^\[)", re.MULTILINE | re.DOTALL)


@dataclass(slots=True)
class Stage:
    """The processes of the demo and where their things lie."""

    folder: Path
    broker_kind: str
    broker_port: int
    rtsp_port: int = 0
    control_port: int = 0
    broker: broker_sim.Broker | None = None
    media: Path = Path()
    extra: dict[str, object] = field(default_factory=dict)  # further values of the configuration
    has_sub: bool = True  # whether the camera has a small stream
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """The agent's state directory."""
        return self.folder / "agent"

    @property
    def store(self) -> Path:
        """The receiver's store."""
        return self.folder / "receiver"

    def outpost(self, *words: str) -> list[str]:
        """Give the command line of an outpost command."""
        return [sys.executable, "-m", "agent", *words]

    def config(self) -> list[str]:
        """Give the options that point the example configuration at this demo."""
        values = {
            "state_dir": self.state,
            "broker.port": self.broker_port,
            "delivery.receiver_key_path": self.folder / "receiver.pub",
            "cameras.0.main.url": f"rtsp://127.0.0.1:{self.rtsp_port}/main",
            "cameras.0.sub.url": f"rtsp://127.0.0.1:{self.rtsp_port}/sub",
            "cameras.0.main.password_path": self.folder / "agent.password",
            "cameras.0.sub.password_path": self.folder / "agent.password",
            "telemetry.beat_s": 2.0,
            "delivery.reconnect_max_s": 5.0,
            **self.extra,
        }
        file = CONFIG
        if not self.has_sub:
            values = {key: value for key, value in values.items() if ".sub." not in key}
            file = self.folder / "camera.toml"
            file.write_text(_SUB_TABLE.sub("", CONFIG.read_text()))
        options = ["--config", str(file)]
        for key, value in values.items():
            text = json.dumps(str(value) if isinstance(value, Path) else value)
            options += ["--set", f"{key}={text}"]
        return options

    @property
    def broker_folder(self) -> Path:
        """Where the broker keeps its things."""
        return self.folder / "broker"

    @property
    def device_key(self) -> Path:
        """The device's public key as the receiver has it."""
        return self.folder / "devices" / f"{DEVICE}.pub"

    def make_media(self) -> None:
        """Make the camera's two streams, unless they were given."""
        if self.media == Path():
            self.media = self.folder / "media"
            make = [sys.executable, "-m", "firmware_sim.streams"]
            _run_text([*make, "--main-from", str(PLAZA), "--out", str(self.media)])

    def control(self, order: Mapping[str, Any]) -> Any:
        """Give the camera's control port an order."""
        with socket.create_connection(("127.0.0.1", self.control_port), 10) as connection:
            connection.sendall(json.dumps(order).encode() + b"\n")
            return json.loads(connection.makefile().readline())

    def children(self, name: str) -> list[int]:
        """Give the process ids of a process's children."""
        pid = self.processes[name].pid
        listing = Path(f"/proc/{pid}/task")
        found = [path.read_text().split() for path in listing.glob("*/children")]
        return [int(child) for children in found for child in children]

    def start_agent(self) -> None:
        """Start the agent with the example configuration."""
        self.start("agent", self.outpost("run", *self.config()))

    def start_receiver(self) -> None:
        """Start the reference receiver."""
        argv = self.outpost("receive", "--broker", f"127.0.0.1:{self.broker_port}")
        argv += ["--site", SITE, "--store", str(self.store)]
        self.start("receiver", [*argv, "--devices", str(self.folder / "devices")])

    def text(self, *words: str) -> str:
        """Run an outpost command to its end and give what it prints."""
        return _run_text(self.outpost(*words))

    def json(self, *words: str) -> Any:
        """Run an outpost command that prints JSON."""
        return json.loads(self.text(*words))

    def status(self) -> Status:
        """Ask the agent how it is; empty before its database is there."""
        answer = _attempt_json(self.outpost("status", "--json", *self.config()))
        return answer if "events_closed" in answer else {}

    def verify(self) -> Status:
        """Let `outpost verify` look at all that the receiver stored."""
        words = ["verify", str(self.store / SITE / DEVICE), "--json", "--key", str(self.device_key)]
        report = _attempt_json(
            self.outpost(*words, "--receiver-key", str(self.folder / "receiver.pub"))
        )
        return {"ok": False, "checked": 0, **report}

    def clear(self) -> None:
        """End whatever still runs."""
        for name in list(self.processes):
            self.stop(name)
        if self.broker is not None:
            self.broker.stop()

    def start(self, name: str, argv: list[str]) -> None:
        """Start a process with its log beside the others'."""
        log = (self.folder / f"{name}.log").open("a")
        self.processes[name] = subprocess.Popen(
            argv, cwd=ROOT, stdout=log, stderr=log, text=True, start_new_session=True
        )
        log.close()

    def stop(self, name: str, limit_s: float = 10.0) -> int | None:
        """Ask a process to end and give its exit code."""
        process = self.processes.pop(name, None)
        if process is None:
            return None
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
        finally:
            if process.stdout is not None:
                process.stdout.close()


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 only if everything that it promises held."""
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("--broker", choices=("auto", "mosquitto", "embedded"), default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "demo")
    options = parser.parse_args(argv)
    stage = Stage(fresh(options.out), options.broker, free_port())
    screen = Screen()
    try:
        prepare(stage, screen)
        seen = _play(stage, screen)
        return _judge(stage, screen, seen)
    finally:
        stage.clear()
        screen.close()


@dataclass(slots=True)
class Seen:
    """What the demo itself counted while it watched."""

    offline_bytes: int = 0
    offline_events: int = 0
    status: Status = field(default_factory=dict)
    is_drained: bool = False
    exit_code: int | None = None


class Screen:
    """Progress for a person: one live line on a terminal, plain lines elsewhere."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet
        self._is_terminal = sys.stdout.isatty()
        self._begun_s = time.monotonic()
        self._width = 0
        self._last = ""

    def say(self, text: str) -> None:
        """Print a lasting line."""
        self._clear()
        if not self._is_quiet:
            print(f"{self._elapsed()}  {text}", flush=True)

    def progress(self, text: str) -> None:
        """Show what is going on now; elsewhere than on a terminal only what changed."""
        if self._is_terminal:
            line = f"{self._elapsed()}  {text}"[: shutil.get_terminal_size().columns - 1]
            print("\r" + line.ljust(self._width), end="", flush=True)
            self._width = len(line)
        elif text != self._last:
            print(f"{self._elapsed()}  {text}", flush=True)
        self._last = text

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        self._clear()

    def _clear(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", flush=True)
            self._width = 0

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._begun_s:5.1f} s"


def prepare(stage: Stage, screen: "Screen", agent_password: str = PASSWORD) -> float:
    """Make keys and media, start all; gives the monotonic second at which the agent was started."""
    for name, secret in (("camera", PASSWORD), ("agent", agent_password)):
        password = stage.folder / f"{name}.password"
        password.write_text(secret)
        password.chmod(0o600)
    stage.broker = broker_sim.start(stage.broker_kind, stage.broker_port, stage.broker_folder)
    screen.say(f"broker: {stage.broker.kind} on 127.0.0.1:{stage.broker_port}")
    receiver_key = _run_text(stage.outpost("key", "receiver", "--store", str(stage.store)))
    shutil.copy(receiver_key, stage.folder / "receiver.pub")
    stage.make_media()
    _start_camera(stage)
    screen.say(f"camera: rtsp://127.0.0.1:{stage.rtsp_port}/main plays real footage (plaza.mp4)")
    device_key = _run_text(stage.outpost("key", "device", *stage.config()))
    stage.device_key.parent.mkdir()
    shutil.copy(device_key, stage.device_key)
    stage.start_receiver()
    screen.say("receiver: waits for the device whose key it knows")
    begun_s = time.monotonic()
    stage.start_agent()
    screen.say("agent: outpost run --config configs/camera.toml")
    return begun_s


def _start_camera(stage: Stage) -> None:
    argv = [sys.executable, "-m", "firmware_sim.camera", "--port", "0", "--control-port", "0"]
    argv += ["--main", str(stage.media / "main.mp4")]
    argv += ["--sub", str(stage.media / "sub.mp4")]
    argv += ["--user", USER, "--password-file", str(stage.folder / "camera.password")]
    with (stage.folder / "camera.log").open("a") as log:
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    stage.processes["camera"] = process
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit(f"the simulated camera did not start: see {stage.folder}/camera.log")
    ports = json.loads(line)
    stage.rtsp_port, stage.control_port = ports["rtsp_port"], ports["control_port"]


def _play(stage: Stage, screen: Screen) -> Seen:
    seen = Seen()
    _watch(stage, screen, seen, 45.0, "online", lambda now: now["events_closed"] >= 1)
    _watch(stage, screen, seen, WARM_S, "online", lambda _: False)
    if stage.broker is not None:
        stage.broker.kill()
    screen.say(f"BROKER TAKEN AWAY for {OFFLINE_S:.0f} s; events go on")
    before = int(seen.status.get("events_closed", 0))
    _watch(stage, screen, seen, OFFLINE_S, "offline", lambda _: False)
    seen.offline_events = int(seen.status.get("events_closed", 0)) - before
    seen.offline_bytes = int(seen.status.get("outbox_bytes", 0)) + int(
        seen.status.get("bytes_waiting", 0)
    )
    stage.broker = broker_sim.start(stage.broker_kind, stage.broker_port, stage.broker_folder)
    screen.say(f"broker back; {seen.offline_bytes:,} bytes were kept on the device meanwhile")
    _watch(stage, screen, seen, AFTER_S, "online", lambda _: False)
    stage.stop("camera")
    screen.say("camera switched off: open events close, what is left is delivered")
    seen.is_drained = _watch(stage, screen, seen, DRAIN_S, "draining", is_drained)
    seen.exit_code = stage.stop("agent")
    return seen


def is_drained(now: Status) -> bool:
    """Whether everything that the agent made is signed for."""
    return now["events_closed"] > 0 and not any(now[name] for name in WAITING)


def _watch(
    stage: Stage,
    screen: Screen,
    seen: Seen,
    limit_s: float,
    link: str,
    is_over: Callable[[Status], bool],
) -> bool:
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if (process := stage.processes.get("agent")) and process.poll() is not None:
            raise SystemExit(f"the agent ended by itself: see {stage.folder}/agent.log")
        now = stage.status()
        if now:
            seen.status = now
            screen.progress(_line(now, link))
            if is_over(now):
                return True
        time.sleep(POLL_S)
    return False


def _line(now: Status, link: str) -> str:
    camera: Status = next(iter(now.get("cameras", [])), {})
    return (
        f"{link:8} frames {camera.get('frames', 0)}  looks {camera.get('inferences', 0)}"
        f"  tracks {camera.get('tracks', 0)}  events {now['events_open']} open"
        f" {now['events_closed']} closed  clips {now['clips_wanted']} wanted"
        f" {now['clips_sealed']} sealed {now['clips_receipted']} receipted"
        f"  outbox {now['outbox_rows']} rows"
    )


def _judge(stage: Stage, screen: Screen, seen: Seen) -> int:
    verified = stage.verify()
    events = _rows(stage, "events")
    clips = [row for row in _rows(stage, "clips") if row["state"] != "empty"]
    stored = stage.json("receive", "--status", "--json", "--store", str(stage.store))
    kept_ids = {row["event_id"] for row in stored["events"] if row["state"] == "closed"}
    closed_ids = {row["id"] for row in events if row["state"] == "closed"}
    sent = {row["sha256"] for row in _rows(stage, "files")}
    kept = {row["sha256"] for row in stored["files"]}
    stage.stop("receiver")
    camera: Status = next(iter(seen.status.get("cameras", [])), {})
    promises = {
        "the agent ran on while the broker was away, and events were made": seen.offline_events > 0,
        "everything was delivered after the broker came back": seen.is_drained,
        "every closed event reached the receiver, each once": bool(closed_ids)
        and kept_ids == closed_ids
        and len(stored["events"]) == len(closed_ids),
        "every clip was signed for by the receiver": bool(clips)
        and all(row["state"] == "receipted" for row in clips),
        "the hashes of all files are equal on both sides": bool(sent) and sent == kept,
        "outpost verify, with the public keys alone, finds nothing wrong": verified["ok"],
        "the agent stopped cleanly": seen.exit_code == 0,
    }
    screen.say("")
    print("What this run shows")
    for promise, held in promises.items():
        print(f"  {'yes' if held else 'NO '}  {promise}")
    print(
        f"\n  {camera.get('frames', 0)} frames seen, {camera.get('inferences', 0)} looked at by"
        f" the detector, {len(closed_ids)} events, {len(clips)} clips,"
        f"\n  {seen.offline_events} events and {seen.offline_bytes:,} bytes kept through"
        f" {OFFLINE_S:.0f} s without a broker,"
        f"\n  {len(stored['files'])} files stored by the receiver,"
        f" {verified['checked']} hand-overs verified"
    )
    _where_to_look(stage, clips)
    is_good = all(promises.values())
    print("\nAll of it held." if is_good else f"\nNOT all of it held; logs: {stage.folder}/*.log")
    return 0 if is_good else 1


def _where_to_look(stage: Stage, clips: list[Any]) -> None:
    folders = [stage.store / SITE / DEVICE / row["id"] for row in clips]
    folder = next(
        (
            item
            for item in folders
            if all((item / name).exists() for name in ("clip-1.mp4", "snapshot.jpg"))
        ),
        None,
    )
    if folder is None:
        return
    print("\nOpen one of them as the receiver keeps it:")
    for name in ("clip-1.mp4", "snapshot.jpg", "manifest.json", "receipt-clip-1.mp4.json"):
        print(f"  {folder / name}")
    print(f"Check it yourself:\n  .venv/bin/outpost verify {folder} --key {stage.device_key}")


def _rows(stage: Stage, topic: str) -> list[Any]:
    return list(stage.json("inspect", topic, "--json", "--limit", "9999", *stage.config()))


def _attempt_json(argv: list[str]) -> Status:
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        answer: Status = json.loads(result.stdout)
    except ValueError:
        return {}
    return answer


def _run_text(argv: list[str]) -> str:
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(argv[1:6])} … failed:\n{result.stderr}")
    return result.stdout.strip()


def fresh(folder: Path) -> Path:
    """Give an empty folder for a run; only what an earlier run made is removed.

    Raises:
        SystemExit: the folder holds something else.
    """
    folder = folder.absolute()
    marker = folder / MARKER
    if folder.exists() and not marker.exists() and any(folder.iterdir()):
        raise SystemExit(
            f"--out {folder}: holds other files; allowed: a new or empty folder,"
            " or an earlier run's"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return folder


def free_port() -> int:
    """Give a TCP port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
