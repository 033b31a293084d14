"""A process that only records: the recorders of some cameras, their store and their loop.

python -m benchmarks._recording FOLDER BOOT SOURCE...

A source is an rtsp:// address, or a file that is played for ever. Each line on standard input is
answered with the packets that every camera was given; the end of it ends the process.
"""

import json
import sys
import threading
from pathlib import Path
from typing import Any

from agent.core import memory
from agent.core.clock import RealClock
from agent.core.errors import AgentError
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.evidence import custody
from agent.vision.config import RecordConfig
from agent.vision.disks import Disks
from agent.vision.loop import RecordingLoop
from agent.vision.recorder import Recorder
from agent.vision.ring import Ring
from agent.vision.segment import Place, turn_of
from drivers import file, rtsp

MEGABYTE = 1_000_000


def main() -> int:
    """Run from the command line."""
    memory.stay_small()
    folder, boot = Path(sys.argv[1]), int(sys.argv[2])
    clock = RealClock()
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    disks = Disks(folder, store, clock)
    config = RecordConfig()
    stop = threading.Event()
    recorders = [
        Recorder(
            Place(f"camera-{number}", store, disks, turn_of(number)),
            _source(address, clock),
            Ring(config.ring_s, config.ring_max_mb * MEGABYTE),
            clock,
            config,
            boot,
        )
        for number, address in enumerate(sys.argv[3:])
    ]
    loop = RecordingLoop(
        store,
        disks,
        clock,
        config,
        lambda connection, *entry: custody.append(connection, clock, *entry),
    )
    threads = [
        threading.Thread(target=_run_for_ever, args=(item, stop)) for item in [*recorders, loop]
    ]
    for thread in threads:
        thread.start()
    for _ in sys.stdin:
        healths = [item.health() for item in recorders]
        told = {
            "packets": [health.packets for health in healths],
            "dropped": sum(health.dropped for health in healths),
            "streaming": sum(health.state == "streaming" for health in healths),
        }
        print(json.dumps(told), flush=True)
    stop.set()
    for thread in threads:
        thread.join()
    store.close()
    return 0


def _source(address: str, clock: RealClock) -> Any:
    if address.startswith("rtsp://"):
        return rtsp.build(rtsp.Config(address), clock)
    return file.build(file.Config(Path(address), is_looped=True, is_realtime=True), clock)


def _run_for_ever(worker: "Recorder | RecordingLoop", stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            worker.run(stop, lambda: None)
        except AgentError as error:
            print(error, file=sys.stderr, flush=True)
            stop.wait(0.5)


if __name__ == "__main__":
    sys.exit(main())
