"""Several suites at once, each with a seed, folder and broker of its own: a round mostly waits."""

import argparse
import json
import subprocess
import sys
import threading
from pathlib import Path

from firmware_sim.demo import ROOT
from tests.crash.tally import Tally

BROKERS = {"both": ("mosquitto", "embedded")}


def run(options: argparse.Namespace) -> Tally:
    """Share the rounds among `options.jobs` suites and give how all of them ended.

    Raises:
        RuntimeError: a suite ended without telling how its rounds did.
    """
    suites = [_start(options, number) for number in range(options.jobs)]
    readers = [threading.Thread(target=_tell, args=(n, suite)) for n, suite in enumerate(suites)]
    try:
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    finally:
        for suite in suites:  # a terminal's Ctrl-C has told them too, and they tidy up
            suite.wait()
    tally = Tally()
    for number in range(options.jobs):
        told = _told(options, number)
        if not told.exists():
            raise RuntimeError(f"suite {number} ended without a result: {told}")
        tally.add(json.loads(told.read_text()))
    return tally


def _start(options: argparse.Namespace, number: int) -> subprocess.Popen:
    brokers = BROKERS.get(options.broker, (options.broker,))
    rounds = options.rounds // options.jobs + (number < options.rounds % options.jobs)
    told = _told(options, number)
    told.parent.mkdir(parents=True, exist_ok=True)
    told.unlink(missing_ok=True)
    words = {
        "--rounds": rounds,
        "--seed": options.seed + number,
        "--settle-every": options.settle_every,
        "--broker": brokers[number % len(brokers)],
        "--out": f"{options.out}-{number}",
        "--tally": told,
    }
    argv = [str(part) for pair in words.items() for part in pair]
    argv += [part for name in options.only or () for part in ("--only", name)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.chaos", *argv],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _tell(number: int, suite: subprocess.Popen) -> None:
    for line in suite.stdout:
        print(f"[{number}] {line}", end="", flush=True)


def _told(options: argparse.Namespace, number: int) -> Path:
    return options.out.with_name(f"{options.out.name}-{number}.json")
