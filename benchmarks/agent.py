"""The whole agent on one 1080p camera: memory, CPU, and how soon it records.

Real processes on loopback: simulated camera (1080p10 main, 480x360 sub), embedded broker,
receiver. The figures are of `outpost run` and its analysis process, over half a minute of people
walking, with events, clips and their delivery going on. The peer is ffmpeg, which only records
the same stream to segments (`-c copy`); it is left out where it is not installed.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks._table import markdown
from firmware_sim import streams
from firmware_sim.demo import PASSWORD, PLAZA, USER, Screen, Stage, free_port, prepare

SECONDS = 30.0
SETTLE_S = 12.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KIB = 1024


def table() -> str:
    """Measure, and give the table."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), "embedded", free_port())
        stage.media = stage.folder / "media"
        stage.media.mkdir()
        streams.make(PLAZA, stage.media / "main.mp4", 1920, 3000)
        streams.make(PLAZA, stage.media / "sub.mp4", 480, 400)
        try:
            return _measure(stage)
        finally:
            stage.clear()


def _measure(stage: Stage) -> str:
    begun_s = prepare(stage, Screen(is_quiet=True))
    first_packet_s = until_streaming(stage) - begun_s
    time.sleep(SETTLE_S)
    main = [stage.processes["agent"].pid]
    child = stage.children("agent")
    rows = []
    with _Ffmpeg(stage) as ffmpeg:
        before = [cpu_s(pids) for pids in (main, child, ffmpeg)]
        time.sleep(SECONDS)
        after = [cpu_s(pids) for pids in (main, child, ffmpeg)]
        names = ["main process: record, cut, seal, deliver", "analysis process: see"]
        names += ["peer: ffmpeg -c copy, records only"] if ffmpeg else []
        for name, pids, then, now in zip(names, (main, child, ffmpeg), before, after, strict=False):
            rows.append((name, f"{(now - then) / SECONDS * 100:.1f}", f"{rss_mib(pids):.0f}"))
    status = stage.status()
    both = rss_mib([*main, *child])
    rows.insert(2, ("Outpost, both processes", "", f"{both:.0f}"))
    stopped_s = time.monotonic()
    stage.stop("agent")
    stopped_s = time.monotonic() - stopped_s
    camera = status["cameras"][0]
    done = (
        f"Start of the command to the first packet: {first_packet_s:.2f} s; stop: {stopped_s:.2f}"
        f" s; {camera['frames']} pictures decoded, {camera['inferences']} inferences,"
        f" {status['events_closed']} events, {status['clips_receipted']} clips receipted."
    )
    return markdown(["process", "% of a core", "RSS MiB"], rows) + f"\n\n{done}"


def until_streaming(stage: Stage) -> float:
    """Wait for the agent's first picture, and give the monotonic time."""
    log = stage.folder / "agent.log"
    while "camera streaming" not in log.read_text():
        if stage.processes["agent"].poll() is not None:
            raise SystemExit(f"the agent ended: {log.read_text()}")
        time.sleep(0.01)
    return time.monotonic()


class _Ffmpeg:
    """Records the same stream beside the agent."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> list[int]:
        program = shutil.which("ffmpeg")
        if program is None:
            return []
        url = f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{self._stage.rtsp_port}/main"
        argv = [program, "-v", "error", "-rtsp_transport", "tcp", "-i", url, "-c", "copy"]
        argv += ["-f", "segment", "-segment_time", "10", str(self._stage.folder / "peer%03d.mp4")]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        time.sleep(3)
        return [self._process.pid]

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def cpu_s(pids: Iterable[int]) -> float:
    """Give the CPU time that processes have used."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(found[11]) + int(found[12]) for found in fields) / TICKS_PER_S


def rss_mib(pids: Iterable[int]) -> float:
    """Give the memory that processes hold."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in texts) / KIB
