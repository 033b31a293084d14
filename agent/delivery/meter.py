"""Counts the day's bytes and holds the schedule's caps, for the live link and the file link.

Alarms and states never wait, but they count: what they take, the others get later. Telemetry and
backfill share the total with files, half and half while both wait. Counted are MQTT packets; the
5 to 10 % of TCP, IP and TLS beside them are not. The day's count is written once a minute, and
oftener while files use up a daily amount: a crash forgets at most that.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import StorageError
from agent.core.store import Store
from agent.delivery.buckets import PATIENCE_NS, ByteBucket
from agent.delivery.clockstate import kernel_clock
from agent.delivery.ledger import ANY_SIZE
from agent.delivery.patience import Complaints
from agent.delivery.schedule import (
    BYTES_PER_KBIT,
    BYTES_PER_MB,
    Allowed,
    ScheduleConfig,
    allowed,
    local_day,
)

DAY_KEY = "uplink/day"
LOOK_NS = NS_PER_S // 2
SAVE_NS = 60 * NS_PER_S
WAITS_NS = NS_PER_S // 2  # who was turned away so long ago does not wait any more
STEP_NS = 60 * NS_PER_S  # a clock once right that nobody set since by more than this
LEAST_CHUNK_BYTES = 1024
LEAST_BATCH_BYTES = 8 * 1024
_READ = "SELECT value FROM meta WHERE key = ?"

_log = log.get(__name__)


@dataclass(slots=True)
class _Day:
    day: str = ""  # local date; empty: not yet known
    total: int = 0  # bytes
    files: int = 0
    metered: int = 0  # of files, outside the windows


class Meter:
    """Shared by the threads of both links; without a store the count lasts as long as it."""

    def __init__(
        self,
        config: ScheduleConfig,
        clock: Clock,
        store: Store | None = None,
        clock_state: Callable[[], Mapping[str, object]] = kernel_clock,
    ) -> None:
        self._config = config
        self._clock = clock
        self._store = store
        self._clock_state = clock_state
        self._lock = threading.Lock()
        self._total, self._files = ByteBucket(), ByteBucket()
        self._allowed = allowed(config, None, 0)
        self._today = _Day()
        self._is_loaded = store is None
        self._saved_bytes = 0  # of today's total
        self._saved_metered_bytes = 0
        self._saved_ns = 0
        self._look_ns = 0
        self._is_clock_right = False
        self._offset_ns: int | None = None  # of wall to monotonic when the clock was right
        self._rows_wait_ns = self._files_wait_ns = -WAITS_NS
        self._rows_since_ns: int | None = None  # none went although one waited
        self._largest_bytes = 0  # of the rows that wait
        self._owed_bytes = 0  # files had so much more than rows while both waited
        self._complaints = Complaints(_log)

    @property
    def is_set(self) -> bool:
        """Whether the site has a schedule."""
        return self._config.is_set

    def look(self) -> None:
        """Follow the clock and store the count when it is time; cheap, to be called often.

        A store that refuses is asked again in a minute.
        """
        now_ns = self._clock.mono_ns()
        if now_ns < self._look_ns:
            return
        self._look_ns = now_ns + LOOK_NS
        with self._lock:
            if not self._is_loaded and self._store is not None:
                self._load(self._store, now_ns)
            self._decide(now_ns)
            is_due = self._is_due(now_ns)
        if is_due:
            self.save()

    def save(self) -> None:
        """Store the count now if it has changed."""
        with self._lock:
            if not self._is_loaded or self._store is None:
                return
            if self._today.total == self._saved_bytes:
                return
            text = json.dumps(asdict(self._today))
            self._saved_bytes, self._saved_metered_bytes = self._today.total, self._today.metered
            self._saved_ns = self._clock.mono_ns()
        try:
            self._store.write(lambda connection: _keep(connection, text))
        except StorageError as error:
            self._saved_bytes = -1
            self._complaints.add("day's bytes not stored", self._saved_ns, reason=error)

    @property
    def has_cap(self) -> bool:
        """Whether there is a cap of everything now."""
        return self._allowed.total_bytes_per_s > 0

    def may_row(self, size_bytes: int) -> bool:
        """Say whether a row of telemetry or backfill may go now."""
        if not self.has_cap:
            return True
        now_ns = self._clock.mono_ns()
        with self._lock:
            files_wait = now_ns - self._files_wait_ns < WAITS_NS
            # What the largest needs is saved up for it, or small rows would take it away for ever.
            self._largest_bytes = max(self._largest_bytes, size_bytes)
            is_enough = self._total.may(self._largest_bytes, now_ns)
            if is_enough and (self._owed_bytes > 0 or not files_wait):
                return True
            self._rows_wait_ns = now_ns
            if self._rows_since_ns is None:
                self._rows_since_ns = now_ns
            return now_ns - self._rows_since_ns >= PATIENCE_NS

    def sent_row(self, size_bytes: int, *, is_urgent: bool) -> None:
        """Count a message of the live link."""
        with self._lock:
            self._today.total += size_bytes
            if not self._allowed.total_bytes_per_s:
                return
            now_ns = self._clock.mono_ns()
            self._total.spend(size_bytes, now_ns)
            if not is_urgent:
                self._rows_since_ns = None
                if size_bytes >= self._largest_bytes:
                    self._largest_bytes = 0
                files_wait = now_ns - self._files_wait_ns < WAITS_NS
                self._owed_bytes = self._owed_bytes - size_bytes if files_wait else 0

    def lets_file(self, size_bytes: int) -> bool:
        """Say whether a file of this size is to be sent at this time at all."""
        holds = self._allowed
        return holds.files_go or size_bytes <= holds.small_bytes

    @property
    def below_bytes(self) -> int:
        """Size from which files are not sent at this time."""
        holds = self._allowed
        return ANY_SIZE if holds.files_go else holds.small_bytes + 1

    @property
    def chunk_bytes(self) -> int:
        """The longest chunk that keeps bursts short: half of one, at least 1 KiB."""
        buckets = [
            bucket.depth_bytes
            for bucket, rate in (
                (self._total, self._allowed.total_bytes_per_s),
                (self._files, self._allowed.files_bytes_per_s),
            )
            if rate
        ]
        return max(LEAST_CHUNK_BYTES, int(min(buckets, default=ANY_SIZE) / 2))

    @property
    def batch_bytes(self) -> int:
        """The longest batch of rows: a burst, though no less than what makes a batch of use."""
        burst_bytes = int(self._total.depth_bytes) if self.has_cap else ANY_SIZE
        return max(LEAST_BATCH_BYTES, burst_bytes)

    def may_chunk(self, size_bytes: int) -> bool:
        """Say whether a packet of a file may go now."""
        if not (self._allowed.total_bytes_per_s or self._allowed.files_bytes_per_s):
            return True
        now_ns = self._clock.mono_ns()
        with self._lock:
            if not self._files.may(size_bytes, now_ns):
                self._files_wait_ns = now_ns - WAITS_NS  # for their own cap, not for rows
                return False
            rows_wait = now_ns - self._rows_wait_ns < WAITS_NS
            if self._total.may(size_bytes, now_ns) and (self._owed_bytes <= 0 or not rows_wait):
                return True
            self._files_wait_ns = now_ns
            return False

    def sent_chunk(self, size_bytes: int) -> None:
        """Count a packet of the file link."""
        with self._lock:
            today = self._today
            today.total += size_bytes
            today.files += size_bytes
            if self._config.metered and not self._allowed.window:
                today.metered += size_bytes
            now_ns = self._clock.mono_ns()
            self._files.spend(size_bytes, now_ns)
            self._total.spend(size_bytes, now_ns)
            rows_wait = now_ns - self._rows_wait_ns < WAITS_NS
            self._owed_bytes = self._owed_bytes + size_bytes if rows_wait else 0
            if self._is_used_up():
                self._decide(now_ns)

    def figures(self) -> dict[str, object]:
        """Give what holds now, as a beat has it; from any thread."""
        self.look()
        with self._lock:
            holds, today = self._allowed, self._today
            until_ns = holds.until_utc_ns
            return {
                "bytes_today": today.total,
                "file_bytes_today": today.files,
                "total_kbit_s": holds.total_bytes_per_s // BYTES_PER_KBIT,
                "files_kbit_s": holds.files_bytes_per_s // BYTES_PER_KBIT,
                "files": "go" if holds.files_go else "wait",
                "window": holds.window,
                "until_utc_ms": None if until_ns is None else until_ns // NS_PER_MS,
            }

    def words(self) -> str:
        """Say for a person what holds now, and until when; from any thread."""
        self.look()
        with self._lock:
            holds, today = self._allowed, self._today
        caps = [
            f"{what} {rate // BYTES_PER_KBIT} kbit/s"
            for what, rate in (
                ("all", holds.total_bytes_per_s),
                ("files", holds.files_bytes_per_s),
            )
            if rate
        ]
        window = [f"window {holds.window}"] if holds.window else []
        waits = [] if holds.files_go else ["files wait"]
        doubt = [] if self._is_clock_right or not self.is_set else ["the clock is not right yet"]
        said = ", ".join([*(caps or ["no cap"]), *window, *waits, *doubt])
        if holds.until_utc_ns is not None:
            until = datetime.fromtimestamp(holds.until_utc_ns / NS_PER_S, UTC)
            said = f"{said} until {until:%Y-%m-%d %H:%M} UTC"
        total_mb, files_mb = today.total / BYTES_PER_MB, today.files / BYTES_PER_MB
        return f"{said}; {total_mb:.1f} MB today, {files_mb:.1f} of files"

    def _decide(self, now_ns: int) -> None:
        utc_ns = self._right_utc_ns(now_ns)
        self._is_clock_right = utc_ns is not None
        today = self._today
        if utc_ns is not None:
            day = local_day(self._config, utc_ns)
            if day != today.day:
                # What was sent before the day was known is counted as today's.
                today = _Day(day) if today.day else _Day(day, today.total, today.files)
                self._saved_bytes = self._saved_metered_bytes = -1
            self._today = today
        holds = allowed(self._config, utc_ns, today.metered)
        if holds != self._allowed:
            self._tell(holds)
        self._allowed = holds
        self._total.set_rate(holds.total_bytes_per_s, now_ns)
        self._files.set_rate(holds.files_bytes_per_s, now_ns)

    def _right_utc_ns(self, now_ns: int) -> int | None:
        """Give the wall time if it is right: in step with a source, or not set since it was."""
        utc_ns = self._clock.utc_ns()
        if self._clock_state()["source"] != "none":
            self._offset_ns = utc_ns - now_ns
        if self._offset_ns is None or abs(utc_ns - now_ns - self._offset_ns) > STEP_NS:
            return None
        return utc_ns

    def _tell(self, holds: Allowed) -> None:
        _log.info(
            "schedule",
            window=holds.window or "none",
            total_kbit_s=holds.total_bytes_per_s // BYTES_PER_KBIT,
            files_kbit_s=holds.files_bytes_per_s // BYTES_PER_KBIT,
            files="go" if holds.files_go else "wait",
        )

    def _is_used_up(self) -> bool:
        today, holds, config = self._today, self._allowed, self._config
        if not config.metered or holds.window or not holds.files_go:
            return False
        return today.metered >= config.files_mb_per_day * BYTES_PER_MB

    def _is_due(self, now_ns: int) -> bool:
        today = self._today
        if today.total == self._saved_bytes:
            return False
        fresh_bytes = today.metered - self._saved_metered_bytes
        much_bytes = max(BYTES_PER_MB, self._config.files_mb_per_day * BYTES_PER_MB / 100)
        return now_ns - self._saved_ns >= SAVE_NS or fresh_bytes >= much_bytes

    def _load(self, store: Store, now_ns: int) -> None:
        """Take up the stored count; what was sent before is added to it."""
        try:
            with store.reading() as connection:
                row = connection.execute(_READ, (DAY_KEY,)).fetchone()
        except StorageError as error:
            self._complaints.add("day's bytes not read", now_ns, reason=error)
            return
        try:
            found = {} if row is None else json.loads(row["value"])
            stored = _Day(
                str(found.get("day", "")),
                *(int(found.get(name, 0)) for name in ("total", "files", "metered")),
            )
        except (AttributeError, TypeError, ValueError):  # the disk changed it
            stored = _Day()
        today = self._today
        stored.total += today.total
        stored.files += today.files
        stored.metered += today.metered
        self._today, self._is_loaded = stored, True


def _keep(connection: sqlite3.Connection, text: str) -> None:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (DAY_KEY, text),
    )
