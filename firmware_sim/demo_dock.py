"""A shift's end at a dock, start to end, as one command: `./run demo-dock`.

Four simulated body cameras are put into a dock of eight slots: one is pulled out in the middle of
the copying and put back elsewhere, one carries a recording that was cut off, one has its clock
seven hours ahead, one is on nobody's list. Everything runs as its own process with the commands a
technician types; what is shown is what `outpost dock watch` shows.
"""

import argparse
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from firmware_sim.bodycam import BodyCam
from firmware_sim.demo import ROOT, Screen, free_port, fresh
from firmware_sim.dock_stage import DEVICE, SITE, DockStage

PIN = "482915"
AHEAD_S = 7 * 3600
PAD_MB = 60
COPY_S, DONE_S, WATCH_ENDS_S = 60.0, 180.0, 5.0
CAMERAS: dict[str, dict[str, Any]] = {
    "1": {"serial": "BC0001", "pad_mb": PAD_MB, "percent": 88, "marks": ["MOV_0002.mp4"]},
    "2": {"serial": "BC0002", "card": ["no_moov"], "percent": 93},
    "3": {"serial": "BC0003", "clock_offset_s": AHEAD_S, "percent": 71},
    "4": {"serial": "BC0099", "percent": 85},
}
BACK_IN = "6"  # the slot of the camera that was pulled
FLEET = [
    {"serial": "BC0001", "officer": "0421"},
    {"serial": "BC0002", "officer": "0388"},
    {"serial": "BC0003", "officer": "0107"},
]
RESTING = ("ready", "quarantine")


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 only if everything that it promises held."""
    parser = argparse.ArgumentParser(prog="./run demo-dock", description=__doc__)
    parser.add_argument("--broker", choices=("auto", "mosquitto", "embedded"), default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "demo-dock")
    options = parser.parse_args(argv)
    stage = DockStage(fresh(options.out), options.broker, free_port())
    screen = Screen()
    try:
        _prepare(stage, screen)
        return _judge(stage, _play(stage, screen))
    finally:
        stage.clear()
        screen.close()


def _prepare(stage: DockStage, screen: Screen) -> None:
    password = stage.folder / "bodycam.password"
    password.write_text(PIN)
    password.chmod(0o600)
    stage.extra = {
        "dock.link.password_path": str(password),
        "dock.link.dialect": "line",
        "dock.fleet": FLEET,
        "dock.only_fleet": True,
        "dock.set_clock": "always",
        "dock.wipe.min_hold_h": 0.0,
        "dock.min_battery_percent": 80,
    }
    screen.say("a dock with eight slots, an MQTT broker and a receiver that keeps two copies")
    stage.start_all()


def _play(stage: DockStage, screen: Screen) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    with ExitStack() as stack:
        screen.say("four cameras with real recordings are made")
        cameras = {
            slot: stack.enter_context(
                BodyCam(stage.folder, {"password": PIN, "clip_s": 2.0, **facts})
            )
            for slot, facts in CAMERAS.items()
        }
        seen["recorded"] = {
            facts["serial"]: len(list(cameras[slot].card.rglob("*.mp4")))
            for slot, facts in CAMERAS.items()
        }
        screen.say("they are docked; this is what `outpost dock watch` shows")
        screen.close()
        watch = _Watch(stage)
        for slot, camera in cameras.items():
            camera.plug(stage.slot[slot])
        try:
            stage.wait("1", "copying", limit_s=COPY_S)
            time.sleep(0.3)
            cameras["1"].pull()
            seen["pulled"] = stage.wait("1", "pulled", limit_s=COPY_S)
            cameras["1"].plug(stage.slot[BACK_IN])
            for slot in (BACK_IN, "2", "3", "4"):
                seen[slot] = stage.wait(slot, *RESTING, limit_s=DONE_S)
            seen["charged"] = _wait_for_word(stage, "3", "Ready")
            _wait_until_delivered(stage)
        finally:
            watch.end()
        seen["left"] = {
            facts["serial"]: len(list(cameras[slot].root.rglob("*.mp4")))
            for slot, facts in CAMERAS.items()
        }
        seen["clock_error_s"] = abs(cameras["3"].utc_ns() - time.time_ns()) / 1e9
    return seen


class _Watch:
    """The terminal view, for as long as the demo plays."""

    def __init__(self, stage: DockStage) -> None:
        argv = stage.outpost("dock", "watch", *stage.config())
        self._process = subprocess.Popen(argv, cwd=ROOT)

    def end(self) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(WATCH_ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _wait_for_word(stage: DockStage, slot: str, word: str) -> bool:
    until_s = time.monotonic() + DONE_S
    while time.monotonic() < until_s:
        if stage.seen(slot).get("word") == word:
            return True
        time.sleep(0.2)
    return False


def _wait_until_delivered(stage: DockStage) -> None:
    until_s = time.monotonic() + DONE_S
    while time.monotonic() < until_s:
        if stage.rows("SELECT count(*) FROM transfer WHERE state != 'receipted'") == [(0,)]:
            return
        time.sleep(0.2)


def _judge(stage: DockStage, seen: dict[str, Any]) -> int:
    count = _counts(stage)
    report = _verify(stage)
    sealed = stage.rows("SELECT id, count(*) FROM footage WHERE here != 'no' GROUP BY id")
    twice = stage.rows(
        "SELECT count(*) FROM custody WHERE kind = 'footage.sealed' GROUP BY subject"
        " HAVING count(*) > 1"
    )
    offset_ms = stage.rows("SELECT clock_offset_ms FROM dock_session WHERE serial = 'BC0003'")
    promises = {
        "a camera pulled out while it was copied was called for": seen["pulled"]["word"]
        == "Call technician",
        "put into another slot it went on, and nothing was sealed twice": not twice
        and seen[BACK_IN]["word"] == "Ready",
        "every recording is sealed in the dock": count["kept"] == sum(seen["recorded"].values()),
        "the centre has signed for every one of them": count["receipted"] == len(sealed),
        "what was cut off has a playable copy; the original is as it was": count["rescued"] == 1,
        "the clock that was seven hours ahead is known and right now": bool(offset_ms)
        and abs(offset_ms[0][0] / 1000 - AHEAD_S) < 1
        and seen["clock_error_s"] < 1,
        "the camera with a low battery was held back until it was charged": seen["charged"],
        "what is on nobody's list is kept safe and not wiped": seen["left"]["BC0099"]
        == seen["recorded"]["BC0099"]
        and seen["4"]["code"] == "D-09",
        "the others are empty: each file went after its receipt": not any(
            seen["left"][serial] for serial in ("BC0001", "BC0002", "BC0003")
        ),
        "outpost verify, with the public keys alone, finds nothing wrong": report["ok"],
    }
    print("\nWhat this run shows")
    for promise, held in promises.items():
        print(f"  {'yes' if held else 'NO '}  {promise}")
    _tell(stage, count, report)
    is_good = all(promises.values())
    print("\nAll of it held." if is_good else f"\nNOT all of it held; logs: {stage.folder}/*.log")
    return 0 if is_good else 1


def _counts(stage: DockStage) -> dict[str, int]:
    queries = {
        "kept": "SELECT count(*) FROM footage WHERE derived_from = '' AND here != 'no'",
        "uploaded": "SELECT count(*) FROM transfer",
        "receipted": "SELECT count(*) FROM footage WHERE here = 'receipted'",
        "wiped": "SELECT count(*) FROM footage WHERE there = 'wiped'",
        "quarantined": "SELECT count(*) FROM footage f JOIN dock_session d ON"
        " d.id = f.seen_session_id WHERE d.quarantine != ''",
        "rescued": "SELECT count(*) FROM footage WHERE derived_from != ''",
    }
    return {name: int(stage.rows(query)[0][0]) for name, query in queries.items()}


def _verify(stage: DockStage) -> dict[str, Any]:
    words = ["--json", "--key", str(stage.device_key), "--receiver-key", str(stage.pinned)]
    report: dict[str, Any] = stage.json("verify", str(stage.store / SITE / DEVICE), *words)
    return report


def _tell(stage: DockStage, count: dict[str, int], report: dict[str, Any]) -> None:
    reasons = {
        "kept": "recordings, each sealed with its hashes and the dock's signature",
        "uploaded": "files: recordings, rescued copies, signed lists of the dockings",
        "receipted": "recordings and copies that the centre has signed for, two copies each",
        "wiped": "from their cameras, each after its receipt was checked once more",
        "quarantined": "kept safe, left on a camera that is on nobody's list (D-09)",
        "rescued": "its end was cut off (no index): playable copy beside the untouched original",
    }
    print()
    for name, reason in reasons.items():
        print(f"  {count[name]:3} {name:12} {reason}")
    sessions = sorted((stage.state / "sessions").glob("*/session.json"))
    print(f"\n  {report['checked']} hand-overs verified at the centre")
    print("\nThe signed list of a docking, and how to check it yourself:")
    print(f"  {sessions[0]}")
    print(f"  .venv/bin/outpost verify {sessions[0].parent} --key {stage.device_key}")


if __name__ == "__main__":
    sys.exit(main())
