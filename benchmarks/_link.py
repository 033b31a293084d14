"""Two hosts with a slow link between them, for benchmarks: root, iproute2 and gcc.

The link is the emulator of `../shared/tools`: its delay, loss and rate need no kernel module.
Each process of a benchmark runs in the network namespace of the host that it plays.
"""

import array
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent
EMULATOR: Final = ROOT.parent / "shared" / "tools" / "linkemu.c"
DEVICE_HOST, CENTRE_HOST = "10.99.0.1", "10.99.0.2"
QUEUE_PACKETS: Final = 200
SETTLE_S: Final = 0.3
SIOCETHTOOL: Final = 0x8946
OFFLOADS: Final = (
    0x1F,
    0x24,
    0x2C,
    0x19,
    0x17,
    0x15,
)  # ETHTOOL_S: TSO, GSO, GRO, SG, TXCSUM, RXCSUM


def missing() -> str:
    """Say what keeps a link from being made here; empty: nothing."""
    if os.geteuid() != 0:
        return "root is needed to make network namespaces"
    absent = [name for name in ("ip", "gcc") if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if not EMULATOR.is_file():
        return "../shared/tools/linkemu.c is absent"
    if subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode:
        return "this kernel has no network namespaces"
    return ""


class Link:
    """The two hosts `device` and `centre`; `shape` starts the link anew."""

    def __init__(self) -> None:
        self._names = {host: f"bench-{host}-{os.getpid()}" for host in ("device", "mid", "centre")}
        self._folder = Path(tempfile.mkdtemp(prefix="outpost-link-"))
        self._emulator: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = self._folder / "linkemu"
        _run("gcc", "-O2", "-o", str(program), str(EMULATOR))
        for name in self._names.values():
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        self._join("device", "left", DEVICE_HOST)
        self._join("centre", "right", CENTRE_HOST)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def argv(self, host: str, argv: Sequence[str]) -> list[str]:
        """Give the command that runs another one on a host."""
        return ["ip", "netns", "exec", self._names[host], *argv]

    def shape(self, delay_ms: int, loss_pct: float, mbit: int) -> None:
        """Give the link a one-way delay, random loss and a rate, both ways alike."""
        self._stop()
        settings = [str(value) for value in (delay_ms, loss_pct, mbit, QUEUE_PACKETS)]
        program = [str(self._folder / "linkemu"), "left", "right", *settings]
        self._emulator = subprocess.Popen(self.argv("mid", program))
        time.sleep(SETTLE_S)

    def _stop(self) -> None:
        emulator, self._emulator = self._emulator, None
        if emulator is not None:
            emulator.kill()
            emulator.wait()

    def _join(self, host: str, end: str, address: str) -> None:
        """Join a host to the middle; without offloads, or packets would be larger than real."""
        name, mid = self._names[host], self._names["mid"]
        pair = ("link", "add", "eth", "netns", name, "type", "veth", "peer", "name", end)
        _run("ip", *pair, "netns", mid)
        _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth")
        for where, card in ((name, "eth"), (mid, end)):
            _run("ip", "netns", "exec", where, sys.executable, "-m", "benchmarks._link", card)
            _run("ip", "-n", where, "link", "set", card, "up")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, cwd=ROOT)


def _switch_offloads_off(card: str) -> None:
    """Do what `ethtool -K` does, which not every machine has; see linux/ethtool.h."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in OFFLOADS:
            value = array.array("I", [command, 0])
            request = struct.pack("16sP", card.encode(), value.buffer_info()[0])
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)


if __name__ == "__main__":
    _switch_offloads_off(sys.argv[1])
