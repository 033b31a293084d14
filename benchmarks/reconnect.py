"""Two hundred reconnects of one camera: what grows, and how long it takes to come back.

The camera is the simulated one; it drops the connection, the driver is opened again at once.
"""

import gc
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from agent.core.clock import RealClock
from agent.core.errors import SourceLost
from agent.device import proc
from benchmarks._camera import SimulatedCamera
from benchmarks._table import markdown
from drivers import rtsp

TIMES = 200
WARM = 20  # sessions before the first reading: libraries fill their caches
STALLS = 5
KIB = 1024


def table() -> str:
    """Measure, and give the table."""
    with tempfile.TemporaryDirectory() as folder, SimulatedCamera(Path(folder)) as camera:
        source = rtsp.build(rtsp.Config(camera.url), RealClock())
        for _ in range(WARM):
            _session(source, camera)
        before = _reading()
        back_s = [_session(source, camera) for _ in range(TIMES)]
        after = _reading()
        stalls_s = [_stall(source, camera) for _ in range(STALLS)]
    rows = [
        (f"threads after {TIMES} reconnects", f"{after[0] - before[0]:+d}", "0"),
        ("file descriptors", f"{after[1] - before[1]:+d}", "0"),
        ("RSS, KiB", f"{after[2] - before[2]:+d}", "up to +2,048"),
        (
            "from opening to the first packet, median and worst, s",
            f"{statistics.median(back_s):.2f}, {max(back_s):.2f}",
            "up to 3",
        ),
        (
            "stall noticed after, median and worst, s",
            f"{statistics.median(stalls_s):.2f}, {max(stalls_s):.2f}",
            "up to 5",
        ),
    ]
    return markdown(["what", "measured", "bound"], rows)


def _session(source: rtsp.RtspSource, camera: SimulatedCamera) -> float:
    """Open, take a packet, be dropped; gives the seconds from the opening to the packet."""
    begun_s = time.monotonic()
    source.open()
    packets = source.packets()
    next(packets)
    took_s = time.monotonic() - begun_s
    camera.do("drop")
    try:
        for _ in packets:
            pass
    except SourceLost:
        return took_s
    raise AssertionError("a dropped connection went unnoticed")


def _stall(source: rtsp.RtspSource, camera: SimulatedCamera) -> float:
    source.open()
    packets = source.packets()
    next(packets)
    camera.do("stall")
    begun_s = time.monotonic()
    try:
        for _ in packets:
            pass
    except SourceLost:
        return time.monotonic() - begun_s
    finally:
        camera.do("resume")
    raise AssertionError("a stall went unnoticed")


def _reading() -> tuple[int, int, int]:
    gc.collect()
    usage = proc.usage(os.getpid())
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return threading.active_count(), descriptors, usage.rss_bytes // KIB
