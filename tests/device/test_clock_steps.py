"""Clocks that are set while the box works: order and age of what waits, and a real process."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import closing
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.clock import SimClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store, read_only
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from tests.delivery.centre import until

ROOT = Path(__file__).parents[2]
TOPICS = Topics("plaza", "cam-1")
STEPS = st.sampled_from([0, 0, 3600, -3600, -1_700_000_000, -2_000_000_000, 10**9])
LANES = st.sampled_from([Lane.TELEMETRY, Lane.STATE, Lane.ALARM])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("steps")


def sent(folder, story, *, with_steps):
    """Give the order in which a box would send, and the stamps, after a story of puts and steps."""
    clock = SimClock(seed=len(list(folder.iterdir())))
    store = Store(folder / f"{len(list(folder.iterdir()))}.db", DEVICE_MIGRATIONS, clock)
    store.open()
    outbox = Outbox(store, TOPICS, clock, 1, lambda: {"source": "none", "error_ms": -1})
    try:
        for number, (lane, wait_s, step_s) in enumerate(story):
            outbox.put(Message(lane, "sample", {"n": number}))
            clock.advance(wait_s)
            if with_steps:
                clock.step_wall(step_s)
        return [(row.lane, wire.decode("envelope", row.payload)) for row in outbox.take(100)]
    finally:
        store.close()


def is_a_clock(story):
    """Whether a wall clock can tell it: nanoseconds in 64 bits begin in 1677."""
    return all(total > -(10**10) for total in accumulate(step_s for _, _, step_s in story))


@given(
    st.lists(st.tuples(LANES, st.sampled_from([0, 1, 30, 61]), STEPS), max_size=12).filter(
        is_a_clock
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_steps_of_the_wall_clock_change_neither_order_nor_age(folder, story):
    stepped, calm = (sent(folder, story, with_steps=steps) for steps in (True, False))
    assert [(lane, row["body"]) for lane, row in stepped] == [
        (lane, row["body"]) for lane, row in calm
    ]
    assert [row["mono_ms"] for _, row in stepped] == [row["mono_ms"] for _, row in calm]
    assert all(row["t_utc_ms"] >= 0 for _, row in stepped)


def has_told(database):
    with closing(read_only(database)) as connection:
        query = "SELECT count(*) FROM outbox WHERE topic LIKE '%/time'"
        return connection.execute(query).fetchone()[0] == 1


SCRIPT = """
import sys, threading, json
from pathlib import Path
from agent.core.clock import RealClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from agent.device.timekeeper import Sources, Timekeeper

folder = Path(sys.argv[1])
clock = RealClock()
store = Store(folder / "box.db", DEVICE_MIGRATIONS, clock)
store.open()
def kernel():
    is_synced = (folder / "synced").exists()
    return {"source": "ntp" if is_synced else "none", "error_ms": 5 if is_synced else -1}
keeper = Timekeeper(
    store, lambda c, m: outbox.put_in(c, m), clock, 1, Sources(kernel, lambda: None)
)
outbox = Outbox(store, Topics("plaza", "cam-1"), clock, 1, keeper.state)
stop = threading.Event()
thread = threading.Thread(target=keeper.run, args=(stop, lambda: None))
thread.start()
print("ready", flush=True)
for line in sys.stdin:
    outbox.put(Message(Lane.TELEMETRY, "sample", {}))
    print("put", flush=True)
stop.set()
thread.join()
for row in outbox.take(100):
    print(row.payload.decode(), flush=True)
store.close()
"""


def test_a_real_process_from_1970_through_its_first_sync(tmp_path):
    """The wall clock is moved by a preloaded library; monotonic time goes on as it is."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: nothing moves the clock of a real process")
    library, shift = tmp_path / "wallshift.so", tmp_path / "wall-seconds"
    source = ROOT / "firmware_sim" / "wallshift.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    shift.write_text(f"{-int(time.time()) + 1000}\n")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        env={"LD_PRELOAD": str(library), "WALLSHIFT_FILE": str(shift), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        made_ms = time.time() * 1000
        process.stdin.write("x\n")
        process.stdin.flush()
        assert process.stdout.readline() == "put\n"
        put_ms = time.time() * 1000
        shift.write_text("0\n")
        (tmp_path / "synced").touch()
        assert until(lambda: has_told(tmp_path / "box.db"), 30)
        process.stdin.write("x\n")
        process.stdin.close()
        rows = [json.loads(line) for line in process.stdout if line.startswith("{")]
    assert process.returncode == 0
    first, second = [row for row in rows if row["kind"] == "sample"]
    (told,) = [row["body"] for row in rows if row["kind"] == "time"]
    assert (first["clock"]["source"], second["clock"]["source"]) == ("none", "ntp")
    assert first["t_utc_ms"] < 86_400_000, "stamped in 1970, and left so"
    best_ms = first["mono_ms"] + told["offset_ms"]
    assert made_ms - 10 <= best_ms <= put_ms + 10
    assert told["from_mono_ms"] <= first["mono_ms"] < told["to_mono_ms"]
    assert second["mono_ms"] >= told["to_mono_ms"] - 1
