"""A camera's file copied and hashed, beside `cp` and beside `cp` then `sha256sum`.

Ways take turns within each round. From memory to disk: what the work itself costs. From a mount
that gives 40 MB/s, as a camera on USB 2: what is felt. Ours is told twice: when all is copied and
hashed, and when it is also synced, compared with the camera in seven places and read back from our
own disk, which neither of the others does. Last, eight copies at once in one process.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from agent.docking import copying
from benchmarks._table import markdown

ROUNDS = 5
FAST_BYTES, SLOW_BYTES = 512 << 20, 128 << 20
SLOW_MB_S = 40
SLOTS, SLOT_BYTES = 8, 64 << 20
NAME = "MOV_0001.mp4"
EIGHT = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from benchmarks.ingest import copied
root, out = Path(sys.argv[1]), Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(int(sys.argv[3])) as pool:
    list(pool.map(lambda n: copied(root, out, str(n)), range(int(sys.argv[3]))))
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def table() -> str:
    """Measure, and give the tables."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        rows = [_row("memory", _fast(folder), FAST_BYTES)]
        with _camera(folder / "slow") as root:
            rows.append(_row(f"a mount at {SLOW_MB_S} MB/s", _rounds(root, folder), SLOW_BYTES))
        eight = _eight(folder)
    head = [
        *("from", "`cp`, s", "`cp`, `sha256sum`, s", "copied and hashed, s"),
        *("and compared and read back, s", "rate beside `cp`", "beside `cp`, `sha256sum`"),
    ]
    return f"{markdown(head, rows)}\n\n{eight}"


def copied(root: Path, out: Path, part_id: str = "0") -> tuple[float, float]:
    """Copy a file of a camera; gives the seconds until all is copied and hashed, and in all."""
    status = (root / NAME).stat()
    source = copying.Source(root, NAME, status.st_size, status.st_mtime_ns)
    done, at_s, begun_s = 0, 0.0, time.perf_counter()

    def tick(count: int) -> None:
        nonlocal done, at_s
        done += count
        if count:
            at_s = time.perf_counter() - begun_s

    copying.copy(source, out / "parts", part_id, lambda: None, tick)
    took_s = time.perf_counter() - begun_s
    copying.discard(out / "parts", part_id)
    return at_s, took_s


def _fast(folder: Path) -> list[tuple[float, ...]]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        _film(Path(name), FAST_BYTES)
        return _rounds(Path(name), folder)


def _rounds(root: Path, folder: Path) -> list[tuple[float, ...]]:
    found: list[tuple[float, ...]] = []
    for _ in range(ROUNDS):
        cp_s = _timed(folder, lambda: _cp(root, folder))
        both_s = _timed(folder, lambda: _cp_and_hash(root, folder))
        _settle(folder)
        found.append((cp_s, both_s, *copied(root, folder)))
    return found


def _row(what: str, rounds: list[tuple[float, ...]], size: int) -> tuple[object, ...]:
    cells = [f"{median(values):.2f}" for values in zip(*rounds, strict=True)]
    beside_cp = [median(cp_s / ours[n] for cp_s, _, *ours in rounds) for n in (0, 1)]
    beside_both = [median(both_s / ours[n] for _, both_s, *ours in rounds) for n in (0, 1)]
    return (
        f"{what}, {size >> 20} MiB",
        *cells,
        "{:.2f} ({:.2f} with all)".format(*beside_cp),
        "{:.2f} ({:.2f} with all)".format(*beside_both),
    )


def _timed(folder: Path, work: Callable[[], None]) -> float:
    _settle(folder)
    begun_s = time.perf_counter()
    work()
    took_s = time.perf_counter() - begun_s
    (folder / "copy").unlink()
    return took_s


def _settle(folder: Path) -> None:
    """Have nothing of what was before wait for the disk."""
    subprocess.run(["sync", "-f", folder], check=True)


def _cp(root: Path, folder: Path) -> None:
    subprocess.run(["cp", root / NAME, folder / "copy"], check=True)


def _cp_and_hash(root: Path, folder: Path) -> None:
    _cp(root, folder)
    subprocess.run(["sha256sum", folder / "copy"], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _camera(folder: Path) -> Iterator[Path]:
    (folder / "card").mkdir(parents=True)
    place = folder / "mount"
    place.mkdir()
    _film(folder / "card", SLOW_BYTES)
    argv = [sys.executable, "-m", "firmware_sim.badcard", str(folder / "card"), str(place)]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, text=True) as card:
        assert card.stdin is not None
        assert card.stdout is not None
        card.stdout.readline()
        print(json.dumps({"mb_s": SLOW_MB_S}), file=card.stdin, flush=True)
        card.stdout.readline()
        yield place
        card.stdin.close()


def _film(folder: Path, size: int) -> None:
    with Path("/dev/urandom").open("rb") as noise, (folder / NAME).open("wb") as stream:
        for _ in range(size >> 20):
            stream.write(noise.read(1 << 20))


def _eight(folder: Path) -> str:
    (folder / "card").mkdir()
    _film(folder / "card", SLOT_BYTES)
    argv = [sys.executable, "-c", EIGHT, str(folder / "card"), str(folder), str(SLOTS)]
    told = subprocess.run(argv, check=True, capture_output=True, text=True)
    shutil.rmtree(folder / "card")
    before, most = (int(word) / 1024 for word in told.stdout.split())
    return f"{SLOTS} at once in one process: {most:.0f} MiB RSS at most, {before:.0f} before."
