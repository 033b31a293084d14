"""A card that is worn, slow, false or pulled out: `firmware_sim.faultfs`, in reading.

    python -m firmware_sim.cardfs ROOT MOUNT      root and /dev/fuse; nothing to install

An order is a line of JSON; each replaces the one before, and `{}` is a good card:

    bad               [[name, start, end], …]: these bytes answer with EIO
    gone_after_bytes  so many are read, then the card is gone (ENODEV) for good
    flip_once         [[name, place], …]: that byte is wrong the first time it is read
    bytes_per_s       no faster than this
    end               take it away
"""

import errno
import json
import shutil
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from firmware_sim.faultfs import FaultFs, mount, unmount

DIRECT_IO = 1  # FOPEN_DIRECT_IO: nothing is answered out of the page cache
FLIP = 0x10


class CardFs(FaultFs):
    """Answers the kernel as a card would."""

    def __init__(self, root: Path, work: Path, device: int) -> None:
        super().__init__(root, work, device)
        self.order: dict[str, Any] = {}
        self.is_gone = False
        self._read_bytes = 0
        self._flipped: set[tuple[str, int]] = set()

    def obey(self, order: dict[str, Any]) -> None:
        """Be as an order says from now on."""
        self.order = order
        self.is_gone = False
        self._read_bytes = 0
        self._flipped = set()

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if self.is_gone:
            return errno.ENODEV, b""
        return super()._answer(opcode, node, body)

    def _open(self, node: int, body: bytes) -> bytes:
        handle, _, _ = struct.unpack("<QII", super()._open(node, body))
        return struct.pack("<QII", handle, DIRECT_IO, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        name = str(Path(f"/proc/self/fd/{handle}").readlink()).removeprefix(f"{self._work}/")
        if any(
            name == bad and start < offset + size and end > offset
            for bad, start, end in self.order.get("bad", ())
        ):
            raise OSError(errno.EIO, "bad sector")
        content = super()._read(node, body)
        self._read_bytes += len(content)
        if self._read_bytes > self.order.get("gone_after_bytes", 1 << 62):
            self.is_gone = True
            raise OSError(errno.ENODEV, "pulled")
        if pace := self.order.get("bytes_per_s", 0):
            time.sleep(len(content) / pace)
        return self._flip(name, offset, content)

    def _flip(self, name: str, offset: int, content: bytes) -> bytes:
        for which, place in self.order.get("flip_once", ()):
            at = place - offset
            if which == name and 0 <= at < len(content) and (which, place) not in self._flipped:
                self._flipped.add((which, place))
                content = content[:at] + bytes([content[at] ^ FLIP]) + content[at + 1 :]
        return content


def main() -> int:
    """Serve ROOT on MOUNT until an order ends it; prints a line once it can be used."""
    root, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    work = Path(tempfile.mkdtemp(prefix="cardfs-", dir="/dev/shm"))
    fs = CardFs(root, work, mount(target))
    server = threading.Thread(target=fs.serve, daemon=True)
    server.start()
    print("mounted", flush=True)
    try:
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            with fs.lock:
                if "end" in order:
                    break
                fs.obey(order)
            print("done", flush=True)
    finally:
        unmount(target)
        server.join(5.0)
        shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
