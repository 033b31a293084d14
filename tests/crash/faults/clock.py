"""The agent's wall clock is wrong, or is set right while it works; monotonic time goes on.

By a preloaded library of our own, `firmware_sim/wallshift.c`: libfaketime moves the monotonic
clock too, or makes Python's sleep fail when told not to.
"""

import subprocess
import time

from firmware_sim.demo import ROOT
from tests.crash.faults.fault import Fault, needs_program

HOUR_S = 3600
SETTLED_S = 2.0


class _Wrong(Fault):
    lasts_s = (3.0, 8.0)
    at_start_s, then_s = 0, 0

    def needs(self, scene):
        return needs_program("gcc")

    def inject(self, scene, dice):
        self._file = scene.folder / "wall-seconds"
        self._say(self.start_s())
        scene.env = {"LD_PRELOAD": str(_library(scene)), "WALLSHIFT_FILE": str(self._file)}
        scene.restart_agent()
        time.sleep(dice.uniform(SETTLED_S, 2 * SETTLED_S))
        self._say(self.then_s)
        return f"clock at {self.start_s():+,} s, then {self.then_s:+,} s"

    def heal(self, scene):
        self._say(0)
        time.sleep(SETTLED_S)
        scene.env = {}

    def start_s(self):
        return self.at_start_s

    def _say(self, seconds):
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)


class Ahead(_Wrong):
    name = "clock-ahead"
    about = "the clock jumps an hour ahead, later back"
    then_s = HOUR_S


class Behind(_Wrong):
    name = "clock-behind"
    about = "the clock jumps an hour back, later ahead"
    then_s = -HOUR_S


class Cold(_Wrong):
    name = "clock-1970"
    about = "started without a clock, in 1970; set right while it works"

    def start_s(self):
        return -int(time.time())

    then_s = 0


class Stepped(_Wrong):
    name = "clock-step"
    about = "set by some seconds, to and fro"
    at_start_s, then_s = 7, -5


def _library(scene):
    library = scene.folder / "wallshift.so"
    if not library.exists():
        source = ROOT / "firmware_sim" / "wallshift.c"
        build = ["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
        subprocess.run(build, check=True, capture_output=True)
    return library


FAMILY = (Ahead, Behind, Cold, Stepped)
