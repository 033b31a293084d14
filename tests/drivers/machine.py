"""What a dock's machine does around the driver: systemd's socket, loop devices, kernel events."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_sim.usb_tree import Disk, UsbThing

STORAGE = "080650"
SECTORS = 1 << 14  # 8 MiB


def needs_mounting() -> str:
    """Why nothing can be mounted here; empty: it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not Path("/dev/loop-control").exists():
        return "no loop devices (/dev/loop-control)"
    if shutil.which("mkfs.ext4") is None:
        return "mkfs.ext4 is not installed (e2fsprogs)"
    return ""


class SocketUnit:
    """Plays systemd: holds the socket, starts the program anew for each connection."""

    def __init__(self, path: Path, *words: str) -> None:
        self.path = path
        self.program = [sys.executable, "-m", "drivers._mount_service", *words]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen()
        self._running: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        for process in self._running:
            process.wait(timeout=60)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                started = subprocess.Popen(
                    self.program, stdin=connection, stderr=subprocess.DEVNULL
                )
            self._running = [process for process in self._running if process.poll() is None]
            self._running.append(started)


@contextlib.contextmanager
def loop(image: Path, *words: str) -> Iterator[Path]:
    """Give a loop device of an image."""
    made = subprocess.run(
        ["losetup", "--find", "--show", *words, str(image)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["blockdev", "--setrw", str(device)], check=True)  # the number is used again
        subprocess.run(["losetup", "--detach", str(device)], check=True)


def ext4(
    image: Path, content: Path | None = None, label: str = "BODYCAM", mebibytes: int = 8
) -> Path:
    """Make an image with a file system that this kernel certainly has."""
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    words = ["mkfs.ext4", "-q", "-O", "^has_journal", "-L", label]
    words += ["-d", str(content)] if content else []
    subprocess.run([*words, str(image)], check=True)
    return image


def disk(device: Path, sectors: int = SECTORS) -> Disk:
    """Give a loop device as a disk of a USB device."""
    number = device.stat().st_rdev
    return Disk(device.name, (os.major(number), os.minor(number)), sectors)


def camera(*disks: Disk, serial: str = "BC0001") -> UsbThing:
    """Give a camera as storage."""
    return UsbThing("4255:0002", (STORAGE,), disks=disks, serial=serial)
