"""CPU of the whole agent on one 1080p15 camera with a sub stream: idle, and with steady motion.

Real processes on loopback, as in `agent`: the camera shows the empty plaza under sensor noise, then
the plaza with people all the time, at most two looks a second. All that `outpost run` and its
analysis process do is counted, in the last row with an event a second, its clip and its delivery.
"""

import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks import _footage
from benchmarks._table import markdown
from benchmarks.agent import cpu_s, rss_mib, until_streaming
from firmware_sim.demo import Screen, Stage, Status, free_port, prepare

SECONDS: Final = 40.0
SETTLE_S: Final = 15.0
FPS: Final = 15
LOOKS_PER_S: Final = 2.0
FOOTAGE_S: Final = 40.0  # of the plaza, which is 10 pictures a second
MAIN_SIZE: Final = (1440, 1080)
SUB_SIZE: Final = (480, 360)


def table() -> str:
    """Measure, and give the table."""
    rows = []
    busy = _footage.Footage(_footage.PLAZA, FOOTAGE_S)
    for name, footage, bound, has_rules in (
        ("idle: nothing moves", _footage.Empty(_footage.PLAZA, FOOTAGE_S), "<= 3", True),
        ("steady motion, no rules", busy, "<= 6", False),
        ("steady motion, an event a second", busy, "", True),
    ):
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(Path(folder), "embedded", free_port())
            stage.extra["cameras.0.max_rate_per_s"] = LOOKS_PER_S
            if not has_rules:
                stage.extra["cameras.0.rules"] = []
            stage.media = stage.folder / "media"
            stage.media.mkdir()
            for file, size, rate in (
                ("main.mp4", MAIN_SIZE, _footage.MAIN_KBIT_PER_S),
                ("sub.mp4", SUB_SIZE, _footage.SUB_KBIT_PER_S),
            ):
                _footage.encode(footage.pictures(), stage.media / file, FPS, size, rate)
            try:
                rows.append((name, *_measure(stage), bound))
            finally:
                stage.clear()
    head = ("camera", "record, % of a core", "see, %", "both, %", "inferences/s", "events")
    return markdown((*head, "RSS MiB", "bound of both"), rows)


def _measure(stage: Stage) -> tuple[str, ...]:
    prepare(stage, Screen(is_quiet=True))
    until_streaming(stage)
    time.sleep(SETTLE_S)
    main, child = [stage.processes["agent"].pid], stage.children("agent")
    first, begun_s = stage.status(), time.monotonic()
    before = [cpu_s(pids) for pids in (main, child)]
    time.sleep(SECONDS)
    used = [cpu_s(pids) - then for pids, then in zip((main, child), before, strict=True)]
    last, passed_s = stage.status(), time.monotonic() - begun_s
    record, see = (seconds / SECONDS * 100 for seconds in used)
    looks = (_looks(last) - _looks(first)) / passed_s
    events = last["events_closed"] - first["events_closed"]
    return (
        f"{record:.1f}",
        f"{see:.1f}",
        f"{record + see:.1f}",
        f"{looks:.1f}",
        str(events),
        f"{rss_mib([*main, *child]):.0f}",
    )


def _looks(status: Status) -> int:
    return int(status["cameras"][0]["inferences"])
