"""Keeps track of how right the clock is: for every envelope, and for what was stamped wrongly.

Sources, best first: chrony's own bound, the kernel's (ntpd, systemd-timesyncd and chrony keep it),
a satellite receiver on a serial port. Nothing here sets the clock: that is chrony's business.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Protocol

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.config import Doc, Pattern, Range
from agent.core.errors import StorageError
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.delivery.clockstate import UNKNOWN, kernel_clock
from agent.device import chrony
from agent.device.adjust import RIGHT_NS, Adjuster, Adjustment, Known
from agent.device.proc import kernel_boot_id

LOOK_S = 1.0
ASK_CHRONY_NS = 16 * NS_PER_S
GOOD_FOR_NS = 64 * NS_PER_S  # what chrony said
FIX_GOOD_FOR_NS = 10 * NS_PER_S
FIX_ERROR_MS = 500  # a sentence may come so late after the second it names
STARTS_KEY = "time/unsynced"  # starts of the agent whose messages wait for an adjustment
MOST_STARTS = 50
MOST_PENDING = 100

_log = log.get(__name__)

ClockState = Callable[[], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class TimeConfig:
    """Where true time comes from, besides NTP."""

    gps_port: Annotated[
        str,
        Doc("Serial port of a GPS receiver that speaks NMEA 0183; empty: none"),
        Pattern(r"(/dev/[A-Za-z0-9/._:+-]{1,200})?", "a path below /dev, or nothing"),
    ] = ""
    gps_baud: Annotated[int, Doc("Its speed, bits a second"), Range(1200, 921_600)] = 9600
    position_s: Annotated[
        float,
        Doc("Seconds between two reports of the box's position; 0: it is not told"),
        Range(0, 86_400),
    ] = 0.0


class Fix(Protocol):
    """What a satellite receiver said last."""

    @property
    def utc_ns(self) -> int:
        """True time."""
        ...

    @property
    def mono_ns(self) -> int:
        """When it came."""
        ...

    @property
    def position(self) -> Mapping[str, object] | None:
        """Body of a `position` message, if it knows."""
        ...


def _no_fix() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Sources:
    """Who is asked for the time, each at any moment."""

    kernel: ClockState = kernel_clock
    chrony: Callable[[], Mapping[str, object] | None] = chrony.tracking
    fix: Callable[[], Fix | None] = _no_fix
    kernel_boot: Callable[[], str] = kernel_boot_id


class Timekeeper:
    """Worker that looks at the clock once a second.

    Args of the constructor: `put_in` is the outbox's; `position_s` is how often the position is
    told, 0 never.
    """

    name = "time"

    def __init__(
        self,
        store: Store,
        put_in: Callable[[sqlite3.Connection, Message], object],
        clock: Clock,
        boot: int,
        sources: Sources,
        position_s: float = 0.0,
    ) -> None:
        self._store = store
        self._put_in = put_in
        self._clock = clock
        self._boot = boot
        self._sources = sources
        self._every_ns = int(position_s * NS_PER_S)
        self._adjuster = Adjuster()
        self._chrony: tuple[int, Mapping[str, object]] | None = None
        self._asked_ns: int | None = None
        self._told_ns: int | None = None
        self._pending: list[Adjustment] = []
        self._is_noted = False
        self._is_settled = False

    def state(self) -> Mapping[str, object]:
        """Give the envelope's clock field for a message that is being made; from any thread."""
        mono_ns = self._clock.mono_ns()
        known = self._known(mono_ns, self._clock.utc_ns() - mono_ns)
        if known is None or abs(self._clock.utc_ns() - mono_ns - known.offset_ns) > RIGHT_NS:
            self._adjuster.doubt()
            return UNKNOWN
        return {"source": known.source, "error_ms": known.error_ms}

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Look until `stop`."""
        while not self._clock.wait(stop, LOOK_S):
            self.look()
            progress()

    def look(self) -> None:
        """Take one look; what could not be stored is tried again with the next."""
        mono_ns, utc_ns = self._clock.mono_ns(), self._clock.utc_ns()
        if self._asked_ns is None or mono_ns - self._asked_ns >= ASK_CHRONY_NS:
            self._asked_ns = mono_ns
            answer = self._sources.chrony()
            self._chrony = None if answer is None else (mono_ns, answer)
        known = self._known(mono_ns, utc_ns - mono_ns)
        due = self._adjuster.look(mono_ns, utc_ns - mono_ns, known)
        if due is not None:
            self._pending = [*self._pending, due][-MOST_PENDING:]
        try:
            if known is None and not self._is_noted:
                self._store.write(self._note_start)
                self._is_noted = True
            if self._pending or (known is not None and not self._is_settled):
                self._store.write(lambda connection: self._send(connection, mono_ns, known))
                self._pending.clear()
                self._is_settled = True
            self._tell_position(mono_ns)
        except StorageError as error:
            _log.error("adjustment of time not stored yet", reason=error)

    def _known(self, mono_ns: int, wall_ns: int) -> Known | None:
        kernel = self._sources.kernel()
        if kernel["source"] != "none":
            best = kernel
            if self._chrony is not None and mono_ns - self._chrony[0] <= GOOD_FOR_NS:
                best = self._chrony[1]
            return Known(wall_ns, int(str(best["error_ms"])), str(best["source"]))
        fix = self._sources.fix()
        if fix is None or mono_ns - fix.mono_ns > FIX_GOOD_FOR_NS:
            return None
        off_ms = abs(wall_ns - (fix.utc_ns - fix.mono_ns)) // NS_PER_MS
        # As an error of the wall clock it holds while that is nearly right; else it is not used.
        is_near = off_ms * NS_PER_MS <= RIGHT_NS
        error_ms = FIX_ERROR_MS + (off_ms if is_near else 0)
        return Known(fix.utc_ns - fix.mono_ns, int(error_ms), "gps")

    def _note_start(self, connection: sqlite3.Connection) -> None:
        """Note that this start has not known the time yet."""
        starts = [*_starts(connection), (self._boot, self._sources.kernel_boot())]
        _keep_starts(connection, starts[-MOST_STARTS:])

    def _send(self, connection: sqlite3.Connection, mono_ns: int, known: Known | None) -> None:
        for item in self._pending:
            self._put(connection, item, self._boot)
        starts = _starts(connection)
        if not starts or known is None:
            return
        # The monotonic clock goes on over restarts of the agent, though not of the kernel.
        here = self._sources.kernel_boot()
        for boot, kernel in starts:
            if here and kernel == here and boot != self._boot:
                self._put(connection, Adjustment(0, mono_ns, known, "first sync"), boot)
        _keep_starts(connection, [])

    def _put(self, connection: sqlite3.Connection, item: Adjustment, boot: int) -> None:
        body = _body(item, boot)
        self._put_in(connection, Message(Lane.STATE, "time", body, needs_receipt=True))
        _log.info("time of messages adjusted", **body)

    def _tell_position(self, mono_ns: int) -> None:
        is_told = self._told_ns is not None and mono_ns - self._told_ns < self._every_ns
        if not self._every_ns or is_told:
            return
        fix = self._sources.fix()
        if fix is None or fix.position is None or mono_ns - fix.mono_ns > FIX_GOOD_FOR_NS:
            return
        message = Message(Lane.TELEMETRY, "position", fix.position)
        self._store.write(lambda connection: self._put_in(connection, message))
        self._told_ns = mono_ns


def _body(item: Adjustment, boot: int) -> dict[str, object]:
    return {
        "boot": boot,
        "from_mono_ms": item.from_mono_ns // NS_PER_MS,
        "to_mono_ms": -(-item.to_mono_ns // NS_PER_MS),
        "offset_ms": item.known.offset_ns // NS_PER_MS,
        "error_ms": item.known.error_ms + 1,
        "source": item.known.source,
        "why": item.why,
    }


def _starts(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (STARTS_KEY,)).fetchone()
    with suppress(TypeError, ValueError):  # the disk may have changed it
        return [(int(boot), str(kernel)) for boot, kernel in json.loads(row["value"])]
    return []


def _keep_starts(connection: sqlite3.Connection, starts: list[tuple[int, str]]) -> None:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (STARTS_KEY, json.dumps(starts)),
    )
