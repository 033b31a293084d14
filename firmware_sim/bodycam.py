"""A simulated body camera on a real pseudo-terminal, with a card of real recordings.

    python -m firmware_sim.bodycam --pty LINK --storage DIR --scenario FILE

It hangs nowhere by itself: LINK leads to its serial line and DIR is its card. In a dock of folders
(`BodyCam.plug`) it behaves as cameras do: spoken to first, gone for a moment once it is told to,
back as storage, and back on its line when the storage is let go of.

A scenario is a JSON object; every key may be missing:

    seed, files, clip_s, pad_mb, card  see bodycam_card.fill
    dialect                          line, a, b
    serial, model, firmware, officer, password, marks, percent, zone
    clock_offset_s                   how far its clock is ahead; 1970: "epoch"
    phase_s                          how long it is gone between its two forms
    volume_serial                    what the storage tells, if that is another one
    faults                           list of names, see FAULTS
    garbled, late                    share of answers with a wrong byte, or too late
"""

import argparse
import json
import os
import random
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

from firmware_sim import bodycam_card
from firmware_sim.bodycam_words import words_of
from firmware_sim.dock import FolderSlot
from firmware_sim.usb_slot import UsbSlot

POLL_S = 0.02
LATE_S = 1.5
CHARGE_PERCENT_PER_S = 2.0
FULL = 100
NS_PER_S = 1_000_000_000
HOUR_NS = 3600 * NS_PER_S
FAULTS = frozenset(
    {
        "never_enters_storage",
        "wipe_lies",
        "ro_media",
        "file_grows",
        "battery_dies",
        "dst_jump",
        "silent",
    }
)


class BodyCam:
    """One camera; its line is served by a thread of its own."""

    def __init__(self, folder: Path, scenario: Mapping[str, Any], card: Path | None = None) -> None:
        self.scenario = dict(scenario)
        self.serial = str(scenario.get("serial", "BC0001"))
        self.model = str(scenario.get("model", "OP-BC1"))
        self.firmware = str(scenario.get("firmware", "1.4"))
        self.officer = str(scenario.get("officer", ""))
        self.password = str(scenario.get("password", ""))
        self.marks = list(scenario.get("marks", ()))
        self.settings: dict[str, str] = {}
        self.orders: list[str] = []
        self.faults = frozenset(scenario.get("faults", ()))
        if unknown := self.faults - FAULTS:
            raise ValueError(f"faults {sorted(unknown)}; allowed: {', '.join(sorted(FAULTS))}")
        self._dice = random.Random(str(scenario.get("seed", 1)))
        self._percent = float(scenario.get("percent", 55))
        self._percent_at_s = time.monotonic()
        self._zone = ZoneInfo(str(scenario.get("zone", "UTC")))
        self._offset_ns = self._first_offset_ns(scenario.get("clock_offset_s", 0))
        self._local = ""
        self.card = card or folder / f"card-{self.serial}"
        if not self.card.exists():
            self.card.mkdir(parents=True)
            bodycam_card.fill(self.card, {"serial": self.serial, **scenario})
        self.slot: FolderSlot | UsbSlot | None = None
        self._is_storage = False
        self._next: tuple[float, str] | None = None  # when which form comes
        self._before_wipe: dict[str, bytes] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._master, self._slave = _terminal()
        self.port = Path(os.ttyname(self._slave))
        self._words = words_of(self, str(scenario.get("dialect", "line")))
        self._thread = threading.Thread(target=self._serve, daemon=True, name="bodycam")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off."""
        self.pull()
        self._stop.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)

    def plug(self, slot: FolderSlot | UsbSlot) -> None:
        """Hang it into a slot."""
        with self._lock:
            self.slot = slot
            self._is_storage = False
            self._fresh_words()
            slot.put_link(self.port)

    def pull(self) -> None:
        """Take it out, at once."""
        with self._lock:
            if self.slot is not None:
                self.slot.take()
            self.slot, self._next, self._is_storage = None, None, False

    @property
    def root(self) -> Path:
        """Where its files are now."""
        with self._lock:
            if self.slot is not None and self._is_storage:
                return self.slot.path / "storage"
            return self.card

    @property
    def percent(self) -> int:
        """Its charge: more with every second in a dock."""
        now_s = time.monotonic()
        if self.slot is not None and "battery_dies" not in self.faults:
            self._percent += CHARGE_PERCENT_PER_S * (now_s - self._percent_at_s)
        self._percent_at_s = now_s
        self._percent = min(self._percent, FULL)
        return int(self._percent)

    def utc_ns(self) -> int:
        """Its own clock."""
        return time.time_ns() + self._offset_ns

    def set_utc_ns(self, utc_ns: int) -> None:
        """Set its clock."""
        self._offset_ns = utc_ns - time.time_ns()

    def set_local(self, text: str) -> None:
        """Set its clock in local time; a date and then a time, or both at once."""
        self._local = (self._local + text)[-14:]
        with suppress(ValueError):
            told = datetime.strptime(self._local, "%Y%m%d%H%M%S").replace(tzinfo=self._zone)
            self.set_utc_ns(int(told.astimezone(UTC).timestamp()) * NS_PER_S)

    def become_storage(self) -> None:
        """Leave the line, and come back as storage after a while."""
        if "never_enters_storage" not in self.faults:
            self._go("storage")

    # Its two forms.

    def _go(self, form: str) -> None:
        with self._lock:
            self._next = (time.monotonic() + float(self.scenario.get("phase_s", 0.5)), form)

    def _change(self) -> None:
        """Do what is due: leave a form, come back in the other one."""
        with self._lock:
            slot = self.slot
            if slot is None:
                return
            if self._is_storage and slot.is_let_go:
                self._lie()
                slot.take()
                self._is_storage = False
                self._go("link")
            if self._next is None:
                return
            at_s, form = self._next
            if form == "storage" and not self._is_storage:
                slot.take()
            if time.monotonic() < at_s:
                return
            self._next = None
            if form == "storage":
                self._appear(slot)
            else:
                self._fresh_words()
                slot.put_link(self.port)

    def _appear(self, slot: FolderSlot | UsbSlot) -> None:
        if "wipe_lies" in self.faults:
            paths = [path for path in self.card.rglob("*") if path.is_file()]
            self._before_wipe |= {str(p.relative_to(self.card)): p.read_bytes() for p in paths}
        if "dst_jump" in self.faults:  # summer time begins while nobody speaks to it
            self._offset_ns += HOUR_NS
        if "ro_media" in self.faults:
            self.card.chmod(0o555)
        serial = str(self.scenario.get("volume_serial", self.serial))
        slot.put_storage(self.card, {"serial": serial, "capacity_bytes": 32 << 30})
        self._is_storage = True

    def _lie(self) -> None:
        """Bring back what was deleted: the card had only said that it was."""
        for name, content in self._before_wipe.items():
            path = self.root / name
            if not path.exists():
                path.write_bytes(content)

    def _grow(self) -> None:
        if "file_grows" in self.faults and self._is_storage:
            newest = max(self.root.rglob("*.mp4"), default=None)
            if newest is not None:
                with newest.open("ab") as stream:
                    stream.write(self._dice.randbytes(1000))

    # Its line.

    def _serve(self) -> None:
        rest = b""
        while not self._stop.is_set():
            self._change()
            self._grow()
            if not select.select([self._master], [], [], POLL_S)[0]:
                continue
            with suppress(OSError):
                rest += os.read(self._master, 4096)
            if "silent" in self.faults:
                rest = b""
                continue
            answers, rest = self._words.take(rest)
            for answer in answers:
                self._answer(answer)

    def _answer(self, answer: bytes) -> None:
        if self._dice.random() < float(self.scenario.get("late", 0)):
            self._stop.wait(LATE_S)
        if self._dice.random() < float(self.scenario.get("garbled", 0)):
            place = self._dice.randrange(len(answer))
            wrong = bytes([answer[place] ^ (1 << self._dice.randrange(8))])
            answer = answer[:place] + wrong + answer[place + 1 :]
        os.write(self._master, answer)

    def _fresh_words(self) -> None:
        """Forget who was logged in, and what nobody has read."""
        termios.tcflush(self._master, termios.TCIOFLUSH)
        self._words = words_of(self, str(self.scenario.get("dialect", "line")))

    def _first_offset_ns(self, offset: object) -> int:
        if offset == "epoch":
            return -time.time_ns()
        return int(float(str(offset)) * NS_PER_S)


def _terminal() -> tuple[int, int]:
    """Give both ends of a pseudo-terminal that changes nothing on the way."""
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    return master, slave


def main(argv: list[str] | None = None) -> int:
    """Run a camera until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m firmware_sim.bodycam", description=__doc__)
    parser.add_argument("--pty", type=Path, required=True, metavar="LINK")
    parser.add_argument("--storage", type=Path, required=True, metavar="DIR")
    parser.add_argument("--scenario", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    scenario = json.loads(options.scenario.read_text()) if options.scenario else {}
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with BodyCam(options.storage.parent, scenario, options.storage) as camera:
        options.pty.unlink(missing_ok=True)
        options.pty.symlink_to(camera.port)
        print(json.dumps({"pty": str(options.pty), "storage": str(camera.card)}), flush=True)
        stop.wait()
        options.pty.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
