"""Makes every kind of trouble at any moment, heals it, and counts what was lost: `./run chaos`.

Real processes: agent, broker, receiver, camera. Each round waits for a random moment or a marked
step on the wire, makes one fault, heals it, takes the camera away, and waits until everything is
delivered. Then it must hold:

- every event that the agent said was closed is at the receiver, once;
- every file is at the receiver with the hash it was sealed with, or still so on the device;
- no receipt names bytes that the receiver does not have, and every clip is signed for;
- both databases are sound and the custody chain is whole; at the end of a scene `outpost verify`
  finds nothing wrong.

A round that fails keeps its folder and says its seed; the next begins with everything new.
"""

import argparse
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
from pathlib import Path

from agent.core.errors import AgentError
from firmware_sim.demo import ROOT, Screen
from tests.crash import abreast, invariant
from tests.crash.faults import FAULTS
from tests.crash.faults.fault import Fault
from tests.crash.scene import Scene
from tests.crash.tally import Tally

DRAIN_S = 90.0
SCENE_ROUNDS = 20  # then everything begins anew, so that a long run does not fill the disk
STEPS = ("file/[^/]+/offer", "file/[^/]+/need", "file/[^/]+/0", "file/[^/]+/done")
STEPS += ("file/[^/]+/receipt", "/event/", "cam-0001/receipt$")
STEP_WAIT_S = 15.0
SHARE_AT_STEP = 0.5
BROKE_OFF = (AgentError, OSError, RuntimeError, sqlite3.Error, subprocess.SubprocessError)
MOST_RESTARTS = 2  # by systemd, after all is well again


def main(argv: list[str] | None = None) -> int:
    """Run the rounds; 0 only if every promise held in each."""
    options = _options(argv)
    if options.list:
        for name, fault in FAULTS.items():
            print(f"{name:22}{fault.about}")
        return 0
    tally = abreast.run(options) if options.jobs > 1 else _one_suite(options)
    print(tally.table())
    is_good = not tally.broken and bool(tally.held)
    if not is_good:
        print(f"NOT all of it held; again: --seed {options.seed}; folders: {options.out}-*")
    return 0 if is_good else 1


def _one_suite(options: argparse.Namespace) -> Tally:
    suite = Suite(options, options.only or list(FAULTS))
    try:
        suite.run()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        suite.close()
        if options.tally is not None:
            options.tally.write_text(json.dumps(suite.tally.document()))
    return suite.tally


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle-every", type=int, default=1, help="rounds between two checks")
    parser.add_argument(
        "--only", action="append", choices=FAULTS, metavar="NAME", help="repeatable"
    )
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument(
        "--broker", choices=("auto", "mosquitto", "embedded", "both"), default="auto"
    )
    parser.add_argument("--jobs", type=int, default=1, help="suites at once, each with its seed")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "chaos")
    parser.add_argument("--tally", type=Path, help="write how the rounds ended as JSON")
    options = parser.parse_args(argv)
    if not 1 <= options.jobs <= options.rounds:
        parser.error(f"--jobs {options.jobs}; allowed: 1 to the number of rounds")
    if options.broker == "both" and options.jobs == 1:
        parser.error("--broker both; allowed with --jobs 2 and more")
    return options


class Suite:
    """Rounds one after the other, on scenes that are renewed now and then."""

    def __init__(self, options: argparse.Namespace, names: list[str]) -> None:
        self.tally = Tally()
        self._out, self._broker, self._seed = options.out, options.broker, options.seed
        self._rounds, self._settle_every = options.rounds, options.settle_every
        self._names = names
        self._dice = random.Random(options.seed)
        self._screen = Screen()
        self._scene: Scene | None = None
        self._in_scene = 0
        self._bag: list[str] = []
        self._unsettled: list[Fault] = []

    def run(self) -> None:
        """Run the rounds; every fault comes once before one comes again."""
        for number in range(1, self._rounds + 1):
            seed = self._dice.randrange(1 << 30)
            fault = self._next(seed)
            if fault is None:
                self._screen.say("no fault of those wanted can be made here")
                return
            began_s = time.monotonic()
            is_settled = number % self._settle_every == 0 or number == self._rounds
            try:
                told = self._strike(fault, random.Random(seed))
                wrong = self._settle() if is_settled else []
            except BROKE_OFF as error:
                traceback.print_exc()
                told, wrong = "the round itself broke off", [repr(error)]
            took_s = time.monotonic() - began_s
            self.tally.seconds.setdefault(fault.name, []).append(took_s)
            verdict = "BROKEN" if wrong else "held" if is_settled else "goes on"
            self._screen.say(f"round {number:3}/{self._rounds} {fault.name}: {told}: {verdict}")
            self._count(fault, number, wrong)

    def _count(self, fault: Fault, number: int, wrong: list[str]) -> None:
        (self.tally.broken if wrong else self.tally.held)[fault.name] += 1
        for line in wrong:
            print(f"         {line}", flush=True)
        if wrong:
            self._keep(f"{self._out}-seed{self._seed}-round{number}-{fault.name}")
        elif self._in_scene >= SCENE_ROUNDS and not self._unsettled:
            self._end_scene()

    def close(self) -> None:
        """End the last scene, checked in full."""
        try:
            self._end_scene()
        finally:
            if self._scene is not None:
                self._scene.clear()
            self._screen.close()

    def _next(self, seed: int) -> Fault | None:
        if self._scene is None:
            self._scene = Scene.open(self._out, self._broker, seed, self._screen)
            self._in_scene = 0
            if not self._scene.wait_for_events(1, 90.0):
                raise SystemExit(f"no event within 90 s: see {self._scene.agent_log}")
        for _ in range(2 * len(self._names)):
            if not self._bag:
                self._bag = [name for name in self._names if name not in self.tally.skipped]
                self._dice.shuffle(self._bag)
            if not self._bag:
                return None
            fault = FAULTS[self._bag.pop()]()
            why = fault.needs(self._scene)
            if not why:
                return fault
            self.tally.skipped[fault.name] = why
            self._screen.say(f"{fault.name}: skipped, {why}")
        return None

    def _strike(self, fault: Fault, dice: random.Random) -> str:
        """Make the fault at its moment and heal it; gives what was done, in words."""
        scene = self._scene
        self._in_scene += 1
        self._unsettled.append(fault)
        scene.camera_plays()
        when = self._moment(scene, fault, dice)
        scene.has_damage |= fault.may_lose
        invariant.note_known(scene)
        told = fault.inject(scene, dice)
        for gate in (scene.device_gate, scene.centre_gate):
            gate.let_go()
        lasts_s = dice.uniform(*fault.lasts_s)
        restarts = self._last(scene, fault, lasts_s)
        fault.heal(scene)
        told += f", the agent ended {restarts} times by itself" if restarts else ""
        return f"{when}, {told}, for {lasts_s:.1f} s"

    def _last(self, scene: Scene, fault: Fault, lasts_s: float) -> int:
        """Let the fault last; gives how often the agent ended and was started meanwhile."""
        before, until_s = scene.restarts, time.monotonic() + lasts_s
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(1.0, left_s))
            if fault.is_agent_expected:
                scene.keep_up()
        return scene.restarts - before

    def _settle(self) -> list[str]:
        """Take the camera away, wait until all is delivered, and give what is wrong then."""
        scene, faults, self._unsettled = self._scene, self._unsettled, []
        time.sleep(1.0)
        scene.camera_away()
        wrong = []
        restarts = scene.restarts
        if not scene.drain(DRAIN_S, self._screen):
            wrong.append(f"not drained within {DRAIN_S:.0f} s: {_waiting(scene)}")
        if scene.restarts > restarts + MOST_RESTARTS:
            wrong.append(f"the agent ended {scene.restarts - restarts} times by itself, healed")
        wrong += invariant.broken(scene, self._screen)
        for fault in faults:
            wrong += fault.judge(scene)
            if fault.may_lose:
                taken = scene.forgiven - scene.mourned - invariant.at_centre(scene)
                self.tally.taken[fault.name] += len(taken)
                scene.mourned |= taken
        return wrong

    def _moment(self, scene: Scene, fault: Fault, dice: random.Random) -> str:
        step = dice.choice(STEPS)
        delay_s = dice.uniform(0.3, 4.0)
        if not fault.has_steps or dice.random() > SHARE_AT_STEP:
            time.sleep(delay_s)
            return f"after {delay_s:.1f} s"
        mark = scene.device_gate.stop_at(step)
        if mark.reached.wait(STEP_WAIT_S):
            return f"at {step}"
        scene.device_gate.let_go()
        return f"no {step} came"

    def _end_scene(self) -> None:
        scene, self._scene = self._scene, None
        if scene is None:
            return
        wrong = []
        try:
            if scene.stop("agent", 20.0) != 0:
                wrong.append("the agent did not stop cleanly")
            wrong += invariant.broken_at_the_end(scene)
        finally:
            scene.clear()
        for line in wrong:
            self._screen.say(f"end of scene: BROKEN: {line}")
        if wrong:
            self.tally.broken["end of scene"] += 1
            self.tally.seconds.setdefault("end of scene", []).append(0.0)
            self._move(f"{self._out}-seed{self._seed}-end-{int(time.monotonic())}")

    def _keep(self, name: str) -> None:
        self._scene.clear()
        self._scene, self._unsettled = None, []
        self._move(name)

    def _move(self, name: str) -> None:
        target = Path(name)
        shutil.rmtree(target, ignore_errors=True)
        self._out.rename(target)
        self._screen.say(f"kept in {target}")


def _waiting(scene: Scene) -> str:
    waiting = {name: count for name, count in scene.counts().items() if count}
    return ", ".join(
        f"{name} {count}" for name, count in waiting.items() if "wait" in name or "clips" in name
    )


if __name__ == "__main__":
    sys.exit(main())
