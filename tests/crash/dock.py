"""A dock whose cameras are pulled and whose agent is killed, hundreds of times, as real processes.

    python -m tests.crash.dock --pulls 1000 --kills 200 --seed 1

Broker, receiver and agent are processes; cards lie in folders and are put into slots and pulled
out at random moments; the agent is killed with SIGKILL. In the end every byte that was ever on a
card is still on it or in a sealed copy that its signature confirms, what left a card was signed
for, and no file was sealed twice.
"""

import argparse
import hashlib
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from agent.evidence import manifest
from agent.evidence.hashing import hash_file
from agent.evidence.keys import PublicKey
from agent.evidence.verify import envelope_of
from firmware_sim.demo import free_port
from firmware_sim.dock_stage import DockStage
from tests.docking.dockside import Camera

SLOTS = ("1", "2", "3", "4")
CARDS = 3
SIZES = (0, 40_000, 400_000, 3_000_000, 9_000_000, 25_000_000)
REST_S = 180.0


class Round:
    """The dock, its cards, and what has happened."""

    def __init__(self, folder, seed, broker):
        self.dice = random.Random(seed)
        self.stage = DockStage(folder, broker, free_port(), slots=SLOTS)
        self.stage.extra = {"dock.wipe.min_hold_h": 0.0, "dock.copy.rescue": False}
        self.stage.start_all()
        self.cards = [Camera(folder, f"BC000{number}") for number in range(1, CARDS + 1)]
        self.names = self.pulls = self.kills = 0

    def film(self, card):
        for _ in range(self.dice.randint(1, 3)):
            self.names += 1
            card.film(f"DCIM/100MEDIA/MOV_{self.names:05}.mp4", self.dice.choice(SIZES))

    def plug(self, card):
        free = [s for s in self.stage.slot.values() if s not in {c.slot for c in self.cards}]
        card.plug(self.dice.choice(free))

    def pull(self):
        card = self.dice.choice(self.cards)
        if card.slot is not None:
            card.pull()
            self.pulls += 1
            time.sleep(self.dice.choice((0.0, 0.05, 0.3)))
        if len(card.files()) < 4:
            self.film(card)
        self.plug(card)

    def kill(self):
        agent = self.stage.processes.pop("agent")
        agent.kill()
        agent.wait()
        self.kills += 1
        self.stage.start_agent()

    def run(self, pulls, kills):
        for card in self.cards:
            self.film(card)
            self.plug(card)
        while self.pulls < pulls or self.kills < kills:
            time.sleep(self.dice.uniform(0.02, 0.5))
            left = (pulls - self.pulls, kills - self.kills)
            if self.dice.random() * sum(map(max, left, (0, 0))) < max(0, left[1]):
                self.kill()
                time.sleep(self.dice.uniform(0.5, 1.5))
            else:
                self.pull()
            if (self.pulls + self.kills) % 100 == 0:
                print(f"{self.pulls} pulls, {self.kills} kills", flush=True)
        return self.settle()

    def settle(self):
        """Wait until all is done, then count what does not hold."""
        until_s = time.monotonic() + REST_S
        while time.monotonic() < until_s and any(card.files() for card in self.cards):
            time.sleep(0.5)
        wrong = [
            f"{card.serial}: {len(card.files())} files are still on it: {self.why(card)}"
            for card in self.cards
            if card.files()
        ]
        sealed = self.sealed(wrong)
        for card in self.cards:
            there = {digest(data) for data in card.files().values()}
            for name, data in card.ever:
                if digest(data) not in there | sealed:
                    wrong.append(f"{card.serial} {name}: lost")
        unsigned = "SELECT count(*) FROM footage WHERE there = 'wiped' AND here = 'sealed'"
        if self.stage.rows(unsigned) != [(0,)]:
            wrong.append("files were wiped that the centre had not signed for")
        twice = self.stage.rows(
            "SELECT subject FROM custody WHERE kind = 'footage.sealed' GROUP BY subject"
            " HAVING count(*) > 1"
        )
        wrong += [f"{subject}: sealed twice" for (subject,) in twice]
        files = sum(len(card.ever) for card in self.cards)
        print(f"{self.pulls} pulls, {self.kills} kills, {files} files: {len(wrong)} wrong")
        return wrong

    def sealed(self, wrong):
        key = PublicKey.load(self.stage.device_key)
        found = set()
        for (path,) in self.stage.rows("SELECT path FROM footage WHERE here != 'no'"):
            folder = self.stage.state / path
            entry = manifest.read(envelope_of(folder), key)["files"][0]
            try:
                manifest.check_file(hash_file(folder / entry["name"]), entry)
            except (OSError, ValueError) as error:
                wrong.append(f"{path}: {error}")
            found.add(entry["sha256"])
        return found

    def why(self, card):
        query = "SELECT slot, state, code, detail FROM dock_slot"
        kept = "SELECT name, here, there, kept_because, flags FROM footage WHERE there = 'yes'"
        return self.stage.rows(query) + self.stage.rows(kept)[:3] + [card.slot and card.slot.path]

    def close(self):
        self.stage.clear()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pulls", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=("embedded", "mosquitto", "auto"), default="embedded")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="dock-"))
    made = Round(folder, options.seed, options.broker)
    try:
        wrong = made.run(options.pulls, options.kills)
    finally:
        made.close()
    for line in wrong:
        print(f"  {line}")
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
