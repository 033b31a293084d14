"""Kills the agent, the broker and the receiver at random moments, then counts.

`./run chaos [--rounds N] [--seed S]`. Each round ends one of the three with SIGKILL and starts it
again after a random pause. Then the camera is switched off, everything drains, and it must hold:

- every event that the agent said it had closed is at the receiver, once, and closed;
- every clip that the agent sealed is signed for, and its files are there with equal hashes;
- `outpost verify` finds nothing wrong, and the custody chain is whole.
"""

import argparse
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from firmware_sim import broker as broker_sim
from firmware_sim.demo import ROOT, WAITING, Screen, Stage, free_port, fresh, is_drained, prepare

VICTIMS = ("agent", "agent", "analysis", "broker", "receiver")
DRAIN_S = 240.0  # an offer that was lost with its receiver is made again after up to minutes
CLOSED = re.compile(r"event closed event_id=([0-9a-f]{32})")


def main(argv: list[str] | None = None) -> int:
    """Run the rounds; 0 only if nothing was lost or doubled."""
    parser = argparse.ArgumentParser(prog="./run chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=("auto", "mosquitto", "embedded"), default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "chaos")
    options = parser.parse_args(argv)
    stage = Stage(fresh(options.out), options.broker, free_port())
    screen = Screen()
    try:
        prepare(stage, screen)
        _rounds(stage, screen, random.Random(options.seed), options.rounds)
        stage.stop("camera")
        screen.say("camera off; waiting until everything is delivered")
        is_drained = _drain(stage, screen)
        exit_code = stage.stop("agent")
        return _judge(stage, is_drained, exit_code)
    finally:
        stage.clear()
        screen.close()


def _rounds(stage: Stage, screen: Screen, dice: random.Random, rounds: int) -> None:
    _wait_for_events(stage, 1, 60.0)
    for number in range(1, rounds + 1):
        time.sleep(dice.uniform(0.5, 4.0))
        victim = dice.choice(VICTIMS)
        pause_s = dice.uniform(0.0, 2.5)
        screen.say(f"round {number:3}/{rounds}: kill -9 {victim}, back after {pause_s:.1f} s")
        _kill(stage, victim)
        time.sleep(pause_s)
        _revive(stage, victim)


def _kill(stage: Stage, victim: str) -> None:
    if victim == "broker":
        if stage.broker is not None:
            stage.broker.kill()
    elif victim == "analysis":
        for pid in stage.children("agent"):
            _signal(pid, signal.SIGKILL)
    else:
        process = stage.processes.pop(victim)
        process.kill()
        process.wait()


def _revive(stage: Stage, victim: str) -> None:
    if victim == "broker":
        stage.broker = broker_sim.start(stage.broker_kind, stage.broker_port, stage.broker_folder)
    elif victim == "receiver":
        stage.start_receiver()
    elif victim == "agent":
        stage.start_agent()


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        print(f"process {pid} had already ended", file=sys.stderr)


def _wait_for_events(stage: Stage, wanted: int, limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if len(_closed_by_log(stage)) >= wanted:
            return
        if stage.processes["agent"].poll() is not None:
            break
        time.sleep(0.5)
    raise SystemExit(
        f"the agent ended or closed no event within {limit_s:.0f} s: see {stage.folder}/agent.log"
    )


def _drain(stage: Stage, screen: Screen) -> bool:
    deadline_s = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline_s:
        now = stage.status()
        if now and is_drained(now):
            return True
        if now:
            screen.progress("  ".join(f"{name} {now[name]}" for name in WAITING))
        time.sleep(1.0)
    return False


def _closed_by_log(stage: Stage) -> set[str]:
    return set(CLOSED.findall((stage.folder / "agent.log").read_text()))


def _judge(stage: Stage, is_drained: bool, exit_code: int | None) -> int:
    said = _closed_by_log(stage)
    agent = _device_rows(stage.state / "outpost.db")
    centre = stage.json("receive", "--status", "--json", "--store", str(stage.store))
    at_centre = [row["event_id"] for row in centre["events"] if row["state"] == "closed"]
    files = sorted((row["clip_id"], row["name"], row["sha256"]) for row in centre["files"])
    verified = stage.verify()
    custody = stage.folder / "custody.jsonl"
    custody.write_text(
        stage.text("inspect", "custody", "--json", "--limit", "999999", *stage.config())
    )
    chain = stage.outpost("verify", str(custody), "--key", str(stage.device_key))
    promises = {
        f"{len(said)} events were said to be closed, all are in the store": said <= agent["closed"],
        "everything drained": is_drained,
        "every closed event is at the receiver": agent["closed"] <= set(at_centre),
        "no event is there twice": len(at_centre) == len(set(at_centre)),
        "the receiver has no event that the agent does not know": set(at_centre) <= agent["closed"],
        f"all {agent['clips']} clips are signed for": agent["clips"] == agent["receipted"] > 0,
        f"all {len(agent['files'])} files are there once, hashes equal": agent["files"] == files,
        "outpost verify finds nothing wrong": verified["ok"],
        "the custody chain is whole": subprocess.run(chain, cwd=ROOT, check=False).returncode == 0,
        "the agent stopped cleanly": exit_code == 0,
    }
    for promise, held in promises.items():
        print(f"  {'yes' if held else 'NO '}  {promise}")
    print(f"  empty clips (nothing was recorded in their span): {agent['empty']}")
    return 0 if all(promises.values()) else 1


def _device_rows(database: Path) -> dict[str, Any]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        states = [row[0] for row in connection.execute("SELECT state FROM clip")]
        return {
            "closed": {
                row[0] for row in connection.execute("SELECT id FROM event WHERE state='closed'")
            },
            "clips": len(states) - states.count("empty"),
            "receipted": states.count("receipted"),
            "empty": states.count("empty"),
            "files": sorted(connection.execute("SELECT clip_id, name, sha256 FROM transfer")),
        }


if __name__ == "__main__":
    sys.exit(main())
