"""A real clip maker killed at any moment: every wanted clip is sealed in the end, and once."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.core.store import Store
from agent.evidence import custody, verify
from tests import footage
from tests.vision.recording import rows
from tests.vision.test_clip import Box

pytestmark = [pytest.mark.crash, pytest.mark.video]

ROOT = Path(__file__).parents[2]
ROUNDS = 8
CLIPS = 24

MAKER = """
import sys, threading
from pathlib import Path
from agent.core.clock import RealClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.evidence.keys import DeviceKey
from agent.vision.clip import ClipMaker, Custodian

folder = Path(sys.argv[1])
clock = RealClock()
store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
store.open()
key = DeviceKey.load_or_create(folder / "keys" / "device.key")
state = {"source": "none", "error_ms": -1}
custodian = Custodian("cam-1", "yard", folder, store, key, clock, lambda: state)
maker = ClipMaker(custodian, {}, lambda connection, message: None)
stop = threading.Event()

def progress():
    with store.reading() as connection:
        left = connection.execute("SELECT count(*) FROM clip WHERE state = 'wanted'").fetchone()[0]
    print(left, flush=True)
    if left == 0:
        stop.set()

print("ready", flush=True)
maker.run(stop, progress)
store.close()
"""


def make(folder: Path, kill_after_s: float | None) -> list[str]:
    """Run a clip maker, to its end or until it is killed; gives what it said."""
    argv = [sys.executable, "-c", MAKER, str(folder)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip()]
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            process.kill()
        said += process.stdout.read().split()
    return said


def kill_again_and_again(folder: Path) -> list[str]:
    """Kill makers at any moment; gives how many clips each left to be made."""
    dice = random.Random(11)
    left: list[str] = []
    longest_s = 0.08
    while len(left) < ROUNDS or (len(set(left)) <= 2 and len(left) < 5 * ROUNDS):
        left.append(make(folder, dice.uniform(0.005, longest_s))[-1])
        if left[-1] == "ready":  # the machine is slower than that today
            longest_s = min(3.0, 1.4 * longest_s)
    return left


def test_killed_clip_maker_loses_and_doubles_nothing(store: Store, tmp_path: Path) -> None:
    box = Box(store, tmp_path)
    (tmp_path / "spool").mkdir()
    box.desk.record(200)
    wanted = {}
    for number in range(CLIPS):
        snapshot = f"spool/{number}.jpg"
        (tmp_path / snapshot).write_bytes(b"\xff\xd8" + bytes([number]) * 100)
        start = number * 15 // CLIPS
        wanted[box.want(start, start + 4, snapshot=snapshot)] = start
    store.close()

    left = kill_again_and_again(tmp_path)
    assert len(set(left)) > 2, "no kill came while clips were made"
    assert make(tmp_path, None)[-1] == "0"

    clips = rows(store, "SELECT * FROM clip")
    assert {clip["state"] for clip in clips} == {"sealed"}
    transfers = rows(store, "SELECT clip_id, name, path, sha256 FROM transfer")
    for clip in clips:
        folder = tmp_path / clip["path"]
        names = sorted(item["name"] for item in transfers if item["clip_id"] == clip["id"])
        assert names == ["clip-1.mp4", "path.json", "snapshot.jpg"]
        report = verify.verify(folder, box.key.public)
        assert report.ok, report.text()
        first = wanted[clip["id"]] * 10
        assert footage.numbers(folder / "clip-1.mp4") == list(range(first, first + 40))
    entries = rows(store, "SELECT * FROM custody ORDER BY seq")
    custody.check_chain(entries)
    sealed = [entry for entry in entries if entry["kind"] == "clip.sealed"]
    assert len(sealed) == CLIPS
    for entry in sealed:
        said = json.loads(entry["detail"])["files"]
        mine = {
            item["name"]: item["sha256"]
            for item in transfers
            if item["clip_id"] == entry["subject"]
        }
        assert said == mine
    assert list((tmp_path / "work").iterdir()) == []
    assert list((tmp_path / "spool").iterdir()) == []
    assert len(list((tmp_path / "clips").iterdir())) == CLIPS
