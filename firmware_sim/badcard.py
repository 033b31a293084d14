"""A card on a mount: slow, unreadable in places, or telling other bytes at every reading.

    python -m firmware_sim.badcard ROOT MOUNT      root and /dev/fuse; nothing to install

Orders come as JSON lines on standard input: {"mb_s": 40} reads at that rate, {"eio": [[0, 4096]]}
answers reads that touch these bytes of any file with EIO, {"flips": [70000]} tells another byte
there at every other reading, {"flip_once": [70000]} at the first alone, {"gone": true} answers
everything with ENODEV, {"gone_after_bytes": 5000000} once so many were read; each line replaces the
one before. {"end": "cut"} ends it.
"""

import errno
import json
import os
import shutil
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from firmware_sim.faultfs import FaultFs, mount, unmount

ASYNC_READ = 1


class BadCard(FaultFs):
    """See the module."""

    def __init__(self, root: Path, work: Path, device: int) -> None:
        super().__init__(root, work, device)
        self.order: dict[str, Any] = {}
        self._readings = 0
        self._read_bytes = 0
        self._flipped: set[int] = set()

    def obey(self, order: dict[str, Any]) -> None:
        """Be as an order says from now on."""
        self.order, self._read_bytes, self._flipped = order, 0, set()

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if self.order.get("gone") and opcode not in (18, 26, 29):  # release, init, releasedir
            return errno.ENODEV, b""
        return super()._answer(opcode, node, body)

    def _init(self, node: int, body: bytes) -> bytes:
        """Have the kernel read ahead while a reader works, as it does of a card."""
        content = bytearray(super()._init(node, body))
        struct.pack_into("<I", content, 12, struct.unpack_from("<I", content, 12)[0] | ASYNC_READ)
        return bytes(content)

    def _read(self, _node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        content = bytearray(os.pread(handle, size, offset))
        end = offset + len(content)
        if any(first < end and offset < last for first, last in self.order.get("eio", ())):
            raise OSError(errno.EIO, "a bad place")
        if rate := self.order.get("mb_s"):
            time.sleep(len(content) / rate / 1e6)
        self._readings += 1
        self._read_bytes += len(content)
        if self._read_bytes > self.order.get("gone_after_bytes", 1 << 62):
            self.order = {"gone": True}
            raise OSError(errno.ENODEV, "pulled")
        for place in self.order.get("flip_once", ()):
            if offset <= place < end and place not in self._flipped:
                self._flipped.add(place)
                content[place - offset] ^= 1
        for place in self.order.get("flips", ()):
            if offset <= place < end:
                content[place - offset] ^= self._readings & 1
        return bytes(content)


def main() -> int:
    """Serve ROOT on MOUNT until an order ends it; prints a line once it can be used."""
    root, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    work = Path(tempfile.mkdtemp(prefix="badcard-", dir="/dev/shm"))
    card = BadCard(root, work, mount(target))
    server = threading.Thread(target=card.serve, daemon=True)
    server.start()
    print("mounted", flush=True)
    try:
        for line in sys.stdin:
            order = json.loads(line)
            if "end" in order:
                break
            with card.lock:
                card.obey(order)
            print("done", flush=True)
    finally:
        unmount(target)
        server.join(5.0)
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
