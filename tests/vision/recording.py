"""A recorder over a real store, run to a wanted number of packets."""

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.clock import Clock, SimClock
from agent.core.store import Store
from agent.vision.config import RecordConfig
from agent.vision.disks import Disks
from agent.vision.recorder import Recorder
from agent.vision.ring import Ring
from agent.vision.segment import Place
from drivers import file as file_driver

CAMERA = "gate"
TMPFS_MB = 100


def rows(store: Store, query: str, *values: object) -> list[dict[str, Any]]:
    with store.reading() as connection:
        return [dict(row) for row in connection.execute(query, values)]


def segments(store: Store) -> list[dict[str, Any]]:
    return rows(store, "SELECT * FROM segment ORDER BY id")


def gaps(store: Store) -> list[dict[str, Any]]:
    return rows(store, "SELECT * FROM gap ORDER BY id")


def looped(path: Path, clock: Clock) -> file_driver.FileSource:
    """A file for ever, at its pace on the clock: on a simulated one as fast as it is read."""
    config = file_driver.Config(path, is_looped=True, is_realtime=True)
    return file_driver.build(config, clock)


class Desk:
    """One recorder and what it needs."""

    def __init__(
        self,
        store: Store,
        state_dir: Path,
        source: object,
        clock: Clock | None = None,
        camera: str = CAMERA,
        **config,
    ) -> None:
        self.store = store
        self.state_dir = state_dir
        self.clock = clock or SimClock()
        self.disks = config.pop("disks", None) or Disks(state_dir, store, self.clock)
        place = Place(camera, store, self.disks, config.pop("turn", 0.0))
        self.config = RecordConfig(**({"segment_s": 2.0, "queue_packets": 3000} | config))
        self.ring = Ring(self.config.ring_s, 16 << 20)
        self.recorder = Recorder(place, source, self.ring, self.clock, self.config, 7)
        self.packets = 0

    def record(self, packets: int, each: Callable[[int], None] | None = None) -> None:
        """Run until so many packets more were taken; `each` hears the count."""
        stop = threading.Event()
        self.packets = 0

        def progress() -> None:
            self.packets += 1
            if each is not None:
                each(self.packets)
            if self.packets >= packets:
                stop.set()

        self.recorder.run(stop, progress)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 100 MB; a fixture of the modules that fill one."""
    place = tmp_path / "disk"
    mount_tmpfs(place)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def mount_tmpfs(place: Path, options: str = f"size={TMPFS_MB}m") -> None:
    """Mount a new, empty disk at a place; skips where that cannot be."""
    place.mkdir(exist_ok=True)
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root and mount")
    argv = [mount, "-t", "tmpfs", "-o", options, "outpost-test", str(place)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"tmpfs cannot be mounted here: {done.stderr.strip()}")


def ext4(tmp_path: Path) -> Iterator[Path]:
    """Give a small disk that can be frozen; a fixture of the modules that hang one."""
    place = tmp_path / "disk"
    if shutil.which("fsfreeze") is None:
        pytest.skip("freezing a file system needs fsfreeze")
    mount_ext4(place)
    yield place
    subprocess.run(["fsfreeze", "-u", str(place)], check=False, capture_output=True)
    subprocess.run(["umount", str(place)], check=True)


def mount_ext4(place: Path) -> None:
    """Mount a new disk of 64 MB that lies in a file beside it; skips where that cannot be."""
    place.mkdir(exist_ok=True)
    if os.geteuid() != 0 or not all(map(shutil.which, ("mount", "mkfs.ext4"))):
        pytest.skip("mounting a file as a disk needs root, mount and mkfs.ext4")
    image = place.with_suffix(".img")
    with image.open("wb") as stream:
        stream.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-qF", str(image)], check=True)
    argv = ["mount", "-o", "loop", str(image), str(place)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a file cannot be mounted here: {done.stderr.strip()}")
