"""Puts a side's folder on another file system for a round, and back onto the disk afterwards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from firmware_sim.demo import ROOT
from firmware_sim.faultfs import unmount

MIB = 1 << 20


class Ground:
    """A side of the scene, agent or receiver, that is stopped, moved and started again."""

    def __init__(self, scene, side: str) -> None:
        self.scene, self.side = scene, side
        self.folder: Path = scene.state if side == "agent" else scene.store
        self.aside = self.folder.with_name(f"{self.folder.name}.disk")

    def enter(self, mount) -> None:
        """Stop the side, let `mount` make its folder anew, start it."""
        self._stop()
        self.folder.rename(self.aside)
        self.folder.mkdir()
        mount()
        self._start()

    def leave(self, take_away) -> None:
        """Stop the side, let `take_away` unmount the folder, go on from `aside`."""
        self._stop()
        take_away()
        self.folder.rmdir()
        self.aside.rename(self.folder)
        self._start()

    def _stop(self) -> None:
        if self.side in self.scene.processes:
            self.scene.stop(self.side, 20.0)

    def _start(self) -> None:
        if self.side == "agent":
            self.scene.start_agent()
        else:
            self.scene.start_receiver()


class Tmpfs(Ground):
    """A small file system in memory, with so much room and so many names left."""

    def __init__(self, scene, side: str, room_bytes: int, names: int) -> None:
        super().__init__(scene, side)
        self._room_bytes, self._names = room_bytes, names

    def enter(self) -> None:
        super().enter(self._mount)

    def leave(self) -> None:
        def take_away() -> None:
            shutil.rmtree(self.aside)
            shutil.copytree(self.folder, self.aside, symlinks=True)
            unmount(self.folder)

        super().leave(take_away)

    def fill(self) -> None:
        """Take all the room that is left."""
        with (self.folder / "ballast").open("wb") as ballast:
            for size in (MIB, 4096):
                try:
                    while True:
                        os.write(ballast.fileno(), bytes(size))
                except OSError:
                    continue

    def fill_names(self) -> None:
        """Take all the names that are left."""
        (self.folder / "names").mkdir()
        try:
            for number in range(10 * self._names):
                (self.folder / "names" / str(number)).touch()
        except OSError:
            return

    def free(self) -> None:
        """Give both back."""
        (self.folder / "ballast").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "names", ignore_errors=True)

    def _mount(self) -> None:
        files = [path.stat().st_size for path in self.aside.rglob("*")]
        size = sum(files) + self._room_bytes + 4096 * len(files)
        limits = f"size={size},nr_inodes={len(files) + self._names}"
        _run("mount", "-t", "tmpfs", "-o", limits, "tmpfs", str(self.folder))
        shutil.copytree(self.aside, self.folder, symlinks=True, dirs_exist_ok=True)


class Faulty(Ground):
    """The file system that fails on request: `firmware_sim.faultfs`."""

    def __init__(self, scene, side: str) -> None:
        super().__init__(scene, side)
        self._process: subprocess.Popen = None

    def enter(self) -> None:
        super().enter(self._mount)

    def order(self, **words: object) -> None:
        """Say what is to go wrong from now on."""
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        if "end" in words:
            self._process.wait(60)
        else:
            self._process.stdout.readline()

    def leave(self) -> None:
        super().leave(lambda: self.order(end="sync"))

    def cut(self) -> None:
        """Cut the power: the process is gone, and so is what was not durable."""
        self.order(fail=["all"])
        self.scene.kill(self.side)
        self.order(end="cut")

    def back(self) -> None:
        """Go on from what the disk still has."""
        super().leave(lambda: None)

    def _mount(self) -> None:
        with (self.scene.folder / "faultfs.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "firmware_sim.faultfs", str(self.aside), str(self.folder)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if self._process.stdout.readline() != "mounted\n":
            raise RuntimeError("faultfs did not mount: see faultfs.log")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True)
