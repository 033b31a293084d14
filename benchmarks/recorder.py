"""Recording: CPU and memory of many cameras, cutting against `cp`, and what a kill costs.

The process that is measured only records (`benchmarks/_recording.py`): every camera is an RTSP
session of its own with a simulated camera in another process, 1080p15 at 3 Mb/s, a key frame
every 2 s. CPU is user and system time of that process as the kernel counts it.
"""

import contextlib
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av

from agent.core.clock import RealClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.vision import cut, recovery
from agent.vision.disks import Disks
from agent.vision.remux import Muxer, Template, demux
from agent.vision.segment import MOVFLAGS
from benchmarks._table import markdown
from benchmarks.agent import cpu_s, rss_mib
from drivers import file

ROOT = Path(__file__).parent.parent
PLAZA = ROOT / "firmware_sim" / "media" / "plaza.mp4"
FPS, GOP, PICTURES = 15, 30, 300
MANY = 16
SETTLE_S, SECONDS, ROUNDS = 12.0, 25.0, 2
CAMERAS_A_PROCESS = 4
KILLS, KILLED_CAMERAS = 20, 4
COPIES = 40
_OPTIONS = {"preset": "veryfast", "bf": "0", "profile": "main", "x264-params": "scenecut=0"}


def table() -> str:
    """Measure, and give the tables."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        footage = folder / "footage.mp4"
        _make(footage)
        parts = [_cpu(folder, footage), _remux(folder, footage), _kills(folder, footage)]
    return "\n\n".join(parts)


def _make(target: Path) -> None:
    """Encode people walking as a 1080p15 camera sends them."""
    with av.open(str(PLAZA)) as inside, av.open(str(target), "w") as outside:
        stream = outside.add_stream("libx264", rate=FPS, options=_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.gop_size, stream.bit_rate = GOP, 3_000_000
        for number, frame in enumerate(inside.decode(video=0)):
            if number == PICTURES:
                break
            picture = frame.reformat(1920, 1080, "yuv420p")
            picture.pts, picture.time_base = number, 1 / stream.codec_context.rate
            picture.pict_type = av.video.frame.PictureType.NONE
            outside.mux(stream.encode(picture))
        outside.mux(stream.encode(None))


class _Recording:
    """The measured process."""

    def __init__(self, folder: Path, boot: int, sources: list[str]) -> None:
        folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._recording", str(folder), str(boot), *sources],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pids = [self._process.pid]

    def ask(self) -> dict[str, Any]:
        """Give what it counts now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def kill(self) -> None:
        """End it as a power cut ends a process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.communicate()


@contextlib.contextmanager
def _cameras(footage: Path, count: int) -> Iterator[list[str]]:
    """Start simulated cameras; gives the address of each."""
    processes, addresses = [], []
    argv = [sys.executable, "-m", "firmware_sim.camera", "--port", "0", "--control-port", "0"]
    try:
        for _ in range(-(-count // CAMERAS_A_PROCESS)):
            process = subprocess.Popen(
                [*argv, "--main", str(footage)], cwd=ROOT, stdout=subprocess.PIPE
            )
            processes.append(process)
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 30)[0]
            port = json.loads(process.stdout.readline())["rtsp_port"]
            addresses += [f"rtsp://127.0.0.1:{port}/main"] * CAMERAS_A_PROCESS
        yield addresses[:count]
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def _cpu(folder: Path, footage: Path) -> str:
    rows = []
    for count in (1, MANY):
        best: tuple[float, ...] | None = None
        for number in range(ROUNDS):
            found = _measure(folder / f"cpu-{count}-{number}", footage, count)
            best = found if best is None or found[0] < best[0] else best
            shutil.rmtree(folder / f"cpu-{count}-{number}")
        assert best is not None
        pct, rss_mib, packets, dropped, written = best
        rows.append(
            (
                f"Outpost, {count} x 1080p15",
                f"{pct:.1f}",
                f"{pct / count:.2f}",
                f"{rss_mib:.0f}",
                f"{packets:.0f}",
                f"{dropped:.0f}",
                f"{written:.2f}",
            )
        )
    peer = _peer(folder, footage)
    if peer is not None:
        rows.append(
            (
                "ffmpeg -c copy -f segment, 1",
                f"{peer[0]:.1f}",
                f"{peer[0]:.2f}",
                f"{peer[1]:.0f}",
                "",
                "",
                "",
            )
        )
    head = ["recording", "% of a core", "% a camera", "RSS MiB", "packets", "dropped", "MB/s"]
    return markdown(head, rows)


def _measure(folder: Path, footage: Path, count: int) -> tuple[float, ...]:
    with _cameras(footage, count) as addresses, _Recording(folder, 1, addresses) as recording:
        deadline = time.monotonic() + 30
        while recording.ask()["streaming"] < count:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        time.sleep(SETTLE_S)
        before, told = cpu_s(recording.pids), recording.ask()
        size = _size_bytes(folder)
        time.sleep(SECONDS)
        after, now = cpu_s(recording.pids), recording.ask()
        packets = sum(now["packets"]) - sum(told["packets"])
        written = (_size_bytes(folder) - size) / SECONDS / 1e6
        pct = (after - before) / SECONDS * 100
        return pct, rss_mib(recording.pids), packets, now["dropped"], written


def _peer(folder: Path, footage: Path) -> tuple[float, float] | None:
    program = shutil.which("ffmpeg")
    if program is None:
        return None
    with _cameras(footage, 1) as addresses:
        argv = [program, "-v", "error", "-rtsp_transport", "tcp", "-i", addresses[0], "-c", "copy"]
        argv += ["-f", "segment", "-segment_time", "10", str(folder / "peer%03d.mp4")]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            time.sleep(SETTLE_S)
            before = cpu_s([process.pid])
            time.sleep(SECONDS)
            pct = (cpu_s([process.pid]) - before) / SECONDS * 100
            return pct, rss_mib([process.pid])
        finally:
            process.terminate()
            process.wait()


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.mp4"))


def _remux(folder: Path, footage: Path) -> str:
    """Compare with `cp` on one file in the page cache, in turn."""
    long = folder / "long.mp4"
    _lengthen(footage, long)
    size_mb = long.stat().st_size / 1e6
    ways: dict[str, Callable[[], object]] = {
        "cp": lambda: subprocess.run(["cp", str(long), str(folder / "out.mp4")], check=True),
        "Outpost: demux and mux": lambda: _copy(long, folder / "out.mp4"),
        "Outpost: a clip (faststart, hashed, synced)": lambda: _clip(long, folder),
        "ffmpeg -c copy": lambda: subprocess.run(
            [
                *("ffmpeg", "-v", "error", "-y", "-i", str(long), "-c", "copy"),
                *("-movflags", "+frag_keyframe+empty_moov", str(folder / "out.mp4")),
            ],
            check=True,
        ),
    }
    if shutil.which("ffmpeg") is None:
        del ways["ffmpeg -c copy"]
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(4):
        for name, way in ways.items():
            (folder / "out.mp4").unlink(missing_ok=True)
            os.sync()
            begun_s = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - begun_s)
    long.unlink()
    rows = [(name, f"{took_s:.2f}", f"{took_s / best['cp']:.2f}x") for name, took_s in best.items()]
    return markdown([f"{size_mb:.0f} MB, {PICTURES * COPIES} packets", "s", "of cp"], rows)


def _lengthen(footage: Path, target: Path) -> None:
    source = file.build(file.Config(footage), RealClock())
    source.open()
    packets = list(source.packets())
    template = Template("h264", packets[0].payload)
    step = packets[1].dts - packets[0].dts
    muxer = Muxer(str(target), template, packets[0], MOVFLAGS)
    for copy in range(COPIES):
        for packet in packets:
            shift = copy * len(packets) * step
            muxer.add(_shifted(packet, shift))
    muxer.close()
    template.close()


def _shifted(packet: Any, shift: int) -> Any:
    from dataclasses import replace

    return replace(packet, dts=packet.dts + shift, pts=packet.pts + shift)


def _recording_of(path: Path) -> cut.Recording:
    first = next(iter(demux(path)))
    return cut.Recording(path, "r", "h264", b"", 0, 1 << 62, 0, 0, first.time_base, "")


def _copy(source: Path, target: Path) -> None:
    packets = cut.packets_of(_recording_of(source))
    first = next(packets)
    template = Template("h264", first.payload)
    muxer = Muxer(str(target), template, first, MOVFLAGS)
    muxer.add(first)
    for packet in packets:
        muxer.add(packet)
    muxer.close()
    template.close()


def _clip(source: Path, folder: Path) -> None:
    part = cut.Part("h264", cut.packets_of(_recording_of(source)))
    assert cut.write(part, folder / "out.mp4", folder / "work.mp4", {}) is not None


def _kills(folder: Path, footage: Path) -> str:
    dice = random.Random(3)
    place = folder / "kills"
    lost: list[int] = []
    for boot in range(1, KILLS + 1):
        with _Recording(place, boot, [str(footage)] * KILLED_CAMERAS) as recording:
            while min(recording.ask()["packets"]) == 0:
                time.sleep(0.05)
            fed = recording.ask()["packets"]
            until = time.monotonic() + dice.uniform(0.5, 7.0)
            while time.monotonic() < until:
                fed = recording.ask()["packets"]
                time.sleep(0.002)
            recording.kill()
        lost += _lost(place, boot, fed)
    worst = max(lost)
    head = ["kill -9", "files judged", "packets lost, median", "most", "of a group of pictures"]
    middle = sorted(lost)[len(lost) // 2]
    row = (KILLS, len(lost), middle, worst, f"{worst / GOP:.2f}")
    return markdown(head, [row])


def _lost(folder: Path, boot: int, fed: list[int]) -> list[int]:
    clock = RealClock()
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    recovery.recover(store, Disks(folder, store, clock), lambda *_: None)
    query = "SELECT * FROM segment WHERE run LIKE ? AND camera = ? AND state != 'damaged'"
    lost = []
    for number, count in enumerate(fed):
        with store.reading() as connection:
            rows = connection.execute(query, (f"{boot}-%", f"camera-{number}")).fetchall()
        playable = sum(len(list(demux(folder / row["path"]))) for row in rows)
        lost.append(count - playable)
    store.close()
    return lost
