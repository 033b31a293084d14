"""A box with a past: thousands of stale files, or three days without a link."""

import random
import time
from pathlib import Path

from agent.core.clock import NS_PER_S, SimClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from firmware_sim.demo import DEVICE, SITE
from tests.crash.faults.fault import Fault
from tests.receiver.rig import event

STALE_FILES = 10_000
OFFLINE_S = 72 * 3600
EVENT_EVERY_S = 300
BEAT_EVERY_S = 60
BOOT = 1


class StaleFiles(Fault):
    name = "stale-files"
    about = "10,000 left-over files in the agent's folders at its start"
    lasts_s = (2.0, 4.0)

    def inject(self, scene, dice):
        scene.kill("agent")
        folders = [path for path in scene.state.iterdir() if path.is_dir() and path.name != "keys"]
        for number in range(STALE_FILES):
            name = f"{random.Random(number).randbytes(8).hex()}.part"
            (dice.choice(folders) / name).write_bytes(b"stale")
        self._names = sorted(path.name for path in folders)
        scene.start_agent()
        self._began_s = time.monotonic()
        return f"{STALE_FILES:,} stale files in {', '.join(self._names)}"

    def heal(self, scene):
        self._has_worked = scene.wait_for_events(1, 60.0)

    def judge(self, scene):
        return [] if self._has_worked else ["no event within 60 s of a start with stale files"]


class Offline72h(Fault):
    name = "offline-72h"
    about = "the rows of 72 h without a link, made in simulated time, beside the live ones"
    lasts_s = (0.5, 2.0)

    def inject(self, scene, dice):
        scene.kill("agent")
        seed = dice.randrange(1 << 30)
        self._events, rows = _three_days(scene.database, seed)
        scene.known |= self._events
        return f"{rows:,} rows of 72 h, {len(self._events)} events among them"

    def heal(self, scene):
        scene.start_agent()


def _three_days(database: Path, seed: int) -> tuple[set[str], int]:
    """Put what an agent would have: events that need receipts, and beats."""
    clock = SimClock(time.time_ns() - OFFLINE_S * NS_PER_S, seed)
    store = Store(database, DEVICE_MIGRATIONS, clock)
    store.open()
    outbox, ids, rows = Outbox(store, Topics(SITE, DEVICE), clock, BOOT), set(), 0

    try:
        for second in range(0, OFFLINE_S, BEAT_EVERY_S):
            clock.advance(BEAT_EVERY_S)
            now_ms = clock.utc_ns() // 1_000_000
            state = {"state": "offline", "since_utc_ms": now_ms, "detail": f"second {second}"}
            outbox.put(Message(Lane.BACKFILL, "state/link", state))
            rows += 1
            if second % EVENT_EVERY_S == 0:
                ids.add(clock.new_id())
                times = {"start_utc_ms": now_ms, "end_utc_ms": now_ms + 1000}
                body = event(0, event_id=max(ids), **times)
                outbox.put(Message(Lane.ALARM, "event/zone_enter", body, needs_receipt=True))
                rows += 1
    finally:
        store.close()
    return ids, rows


FAMILY = (StaleFiles, Offline72h)
