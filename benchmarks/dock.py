"""Eight cameras put into a dock at once: how soon it says so, who they are, what it costs.

Eight simulated cameras that come twice, each with 60 MB of recordings, hang into a dock of folders
within a moment. Measured from the outside: the time from the plug until `status.json` says Busy and
until the camera's name is known (its file is written once a second, so up to a second of both is
that), until all is sealed, and the largest RSS of the agent's process. The copying itself is
measured beside `cp` by `./run bench ingest`.
"""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks._table import markdown
from firmware_sim.bodycam import BodyCam
from firmware_sim.demo import free_port
from firmware_sim.dock_stage import DockStage

SLOTS, PAD_MB, FILES = 8, 20, 3
LOOK_S = 0.05
LIMIT_S = 180.0
MIB = 1 << 20
BOUNDS = {"busy": "<= 1 s", "known": "<= 3 s", "rss": "<= 150 MiB"}


def table() -> str:
    """Measure, and give the table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stage = DockStage(Path(folder), "embedded", free_port())
        stage.extra = {"dock.link.dialect": "line", "dock.wipe.enabled": False}
        stack.callback(stage.clear)
        stage.start_all()
        scenarios = [
            {"serial": f"BC{number:04}", "files": FILES, "clip_s": 1.0, "pad_mb": PAD_MB}
            for number in range(1, SLOTS + 1)
        ]
        cameras = [stack.enter_context(BodyCam(stage.folder, one)) for one in scenarios]
        while not stage.seen("1"):
            time.sleep(LOOK_S)
        idle = _rss_bytes(stage)
        found = _watch(stage, cameras)
    size_mb = SLOTS * FILES * PAD_MB
    rows = [
        (
            "detected: the slot says Busy, slowest of eight",
            f"{found['busy']:.2f} s",
            BOUNDS["busy"],
        ),
        ("identified, slowest of eight", f"{found['known']:.2f} s", BOUNDS["known"]),
        (f"all sealed ({size_mb} MB)", f"{found['sealed']:.1f} s", ""),
        ("agent's RSS before", f"{idle / MIB:.0f} MiB", ""),
        ("agent's RSS, largest", f"{found['rss'] / MIB:.0f} MiB", BOUNDS["rss"]),
    ]
    return markdown(["eight cameras at once", "measured", "bound"], rows)


def _watch(stage: DockStage, cameras: list[BodyCam]) -> dict[str, float]:
    plugged: dict[str, float] = {}
    for slot, camera in zip(stage.slots, cameras, strict=True):
        camera.plug(stage.slot[slot])
        plugged[slot] = time.monotonic()
    seen: dict[str, dict[str, float]] = {"busy": {}, "known": {}, "sealed": {}}
    rss = 0.0
    until_s = time.monotonic() + LIMIT_S
    while len(seen["sealed"]) < len(plugged) and time.monotonic() < until_s:
        now_s = time.monotonic()
        for slot, since_s in plugged.items():
            for name, is_so in _facts(stage.seen(slot)).items():
                if is_so:
                    seen[name].setdefault(slot, now_s - since_s)
        rss = max(rss, _rss_bytes(stage))
        time.sleep(LOOK_S)
    return {name: max(times.values(), default=LIMIT_S) for name, times in seen.items()} | {
        "rss": rss
    }


def _facts(row: dict[str, Any]) -> dict[str, bool]:
    return {
        "busy": row.get("word", "Empty") != "Empty",
        "known": bool(row.get("camera")),
        "sealed": row.get("footage") in ("in_dock", "at_centre"),
    }


def _rss_bytes(stage: DockStage) -> float:
    text = Path(f"/proc/{stage.processes['agent'].pid}/statm").read_text()
    return int(text.split()[1]) * 4096.0
