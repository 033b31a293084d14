"""A real recorder process killed at any moment: at most one group of pictures is missing."""

import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.vision.disks import Disks
from agent.vision.recovery import recover
from agent.vision.remux import demux
from tests import footage
from tests.vision.recording import CAMERA, rows, segments, sha256
from tests.vision.test_recovery import note

pytestmark = [pytest.mark.crash, pytest.mark.video]

ROOT = Path(__file__).parents[2]
ROUNDS = 4

RECORDER = """
import sys, threading
from pathlib import Path
from agent.core.clock import RealClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.vision.config import RecordConfig
from agent.vision.disks import Disks
from agent.vision.recorder import Recorder
from agent.vision.ring import Ring
from agent.vision.segment import Place
from drivers import file

folder, footage = Path(sys.argv[1]), Path(sys.argv[2])
clock = RealClock()
store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
store.open()
source = file.build(file.Config(footage, is_looped=True, is_realtime=True), clock)
ring = Ring(20, 1 << 24)
place = Place("gate", store, Disks(folder, store, clock))
recorder = Recorder(
    place, source, ring, clock, RecordConfig(segment_s=1.0), int(sys.argv[3])
)
count = 0

def progress():
    global count
    count += 1
    print(count, flush=True)

recorder.run(threading.Event(), progress)
"""


def record_and_kill(folder: Path, boot: int, after_s: float) -> int:
    """Run a recorder and kill it; gives how many packets it was fed."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(folder), str(footage.numbered(60)), str(boot)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(after_s)
    process.kill()
    rest, _ = process.communicate(timeout=10)
    return int((first + rest).split()[-1])


def test_killed_recorder_loses_at_most_one_group(tmp_path: Path) -> None:
    dice = random.Random(5)
    for boot in range(1, ROUNDS + 1):
        fed = record_and_kill(tmp_path, boot, dice.uniform(0.3, 2.8))
        store = Store(tmp_path / "outpost.db", DEVICE_MIGRATIONS, RealClock())
        assert store.open() is None
        found = recover(store, Disks(tmp_path, store, RealClock()), note)
        ours = rows(store, "SELECT * FROM segment WHERE run LIKE ? ORDER BY id", f"{boot}-%")
        kept = [row for row in ours if row["state"] != "damaged"]
        store.close()
        assert found.quarantined == 0
        assert fed - sum(row["packets"] for row in kept) <= footage.GOP
        seen = []
        for row in kept:
            path = tmp_path / row["path"]
            assert (row["size_bytes"], row["sha256"]) == (path.stat().st_size, sha256(path))
            assert len(list(demux(path))) == row["packets"]
            seen += footage.numbers(path)
        assert seen[:1] in ([0], [])
        assert all((right - left) % 60 == 1 for left, right in pairwise(seen))


def test_second_start_tells_the_gap(tmp_path: Path) -> None:
    for boot in (1, 2):
        record_and_kill(tmp_path, boot, 1.2)
        store = Store(tmp_path / "outpost.db", DEVICE_MIGRATIONS, RealClock())
        store.open()
        recover(store, Disks(tmp_path, store, RealClock()), note)
        gaps = rows(store, "SELECT * FROM gap WHERE camera = ?", CAMERA)
        assert {row["state"] for row in segments(store)} <= {"closed", "recovered", "damaged"}
        store.close()
        if boot == 1:
            time.sleep(1.0)
    (gap,) = gaps
    assert gap["reason"] == "the agent was not running"
