"""A day at quota: what lies on the disk, minute by minute, and whether what must stay stays.

Twenty-four simulated hours of one camera of 2 Mbit/s and an event every three minutes, on a share
of 4 GB that a day's recordings alone fill five times. Files have their real sizes; the intake,
the recording loop and the keeper are the agent's own, and only the clock is simulated.
"""

import json
import logging
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.core.clock import NS_PER_S, SimClock
from agent.core.model import Event, EventState, Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.config import RetentionConfig
from agent.delivery.outbox import Outbox
from agent.evidence import custody
from agent.vision import lines
from agent.vision.config import RecordConfig
from agent.vision.disks import Disks
from agent.vision.footage import Span
from agent.vision.hold import Keepsakes, Word
from agent.vision.intake import Admission, Intake
from agent.vision.keeper import Box, Keeper
from agent.vision.loop import RecordingLoop
from benchmarks._table import markdown

HOURS = 24
SHARE_GB = 4.0
STEP_S = 10
SEGMENT_BYTES = 2_500_000  # 10 s at 2 Mbit/s
CLIP_S, EVENT_EVERY_S = 30, 180
CLIP_BYTES, PICTURE_BYTES = 7_500_000, 60_000
STRAY_EVERY_S, STRAY_BYTES = 7200, 2_000_000  # what a crash leaves in quarantine
SEVERITIES = (
    "info",
    "warning",
    "info",
    "warning",
    "info",
    "alarm",
    "info",
    "warning",
    "info",
    "info",
)
HOUR_S, MINUTE_S = 3600, 60
SHARE_BYTES = round(SHARE_GB * 1_000_000_000)
GAUGED_S = MINUTE_S
NEVER_SHARE = 0.02  # of clips that the centre never signs for


@dataclass
class Day:
    """What happened and what was seen."""

    used: list[tuple[int, int]] = field(default_factory=list)  # second, bytes on the disk
    unsigned: dict[str, dict[Path, int]] = field(default_factory=dict)  # by clip: file, size
    due_s: dict[str, float] = field(default_factory=dict)  # when the centre signs for a clip
    guarded: dict[Path, int] = field(default_factory=dict)  # held and pinned
    lost: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)


class Camera:
    """The rest of the box: records, sees, seals and is signed for, as files and rows."""

    def __init__(self, folder: Path, store: Store, *, is_centre_away: bool) -> None:
        self.clock = SimClock(1_790_000_000 * NS_PER_S)
        self.day = Day()
        self._folder, self._store, self._away = folder, store, is_centre_away
        self._random = random.Random(7)
        clock = self.clock
        self._outbox = Outbox(store, Topics("yard", "cam-1"), clock, boot=1)
        disks = Disks(folder, store, clock)
        config = RetentionConfig(
            max_gb=SHARE_GB,
            recordings_min_gb=0.5,
            receipted_hours=2.0,
            quarantine_max_gb=0.01,
            clips_share=0.1,
        )
        record = RecordConfig(keep_max_gb=100.0, quarantine_days=7)
        box = Box(folder, store, disks, clock, self._note, self._outbox.put_in)
        self.keeper = Keeper(box, config, record, ("gate",))
        self.loop = RecordingLoop(store, disks, clock, record, self._note, self.keeper.allowance)
        self._intake = Intake(
            store, self._outbox, clock, Admission(self.keeper.refusal, self._note)
        )
        self._holds = Keepsakes(store, clock, self._note, ("gate",))
        self._begun_ns = clock.utc_ns()

    def run(self) -> Day:
        """Live through the day."""
        for second in range(0, HOURS * HOUR_S, STEP_S):
            self.clock.advance(STEP_S)
            self._record()
            if second % EVENT_EVERY_S == 0:
                self._event(second // EVENT_EVERY_S)
            if second % STRAY_EVERY_S == 0:
                self._file(f"quarantine/gate-{second}.mp4", STRAY_BYTES)
            self._sign(second)
            self._keep_some(second)
            self.keeper.tidy()
            if second % (3 * STEP_S) == 0:
                self._beat()
                self.loop.tidy()
            if second % GAUGED_S == 0:
                self._gauge(second)
        return self.day

    def _record(self) -> None:
        end_ns = self.clock.utc_ns()
        path = f"segments/gate/{end_ns // 1_000_000}.mp4"
        self._file(path, SEGMENT_BYTES)
        values = (path, end_ns - STEP_S * NS_PER_S, end_ns - 1, SEGMENT_BYTES)
        self._store.write(
            lambda connection: (
                connection.execute(
                    "INSERT INTO segment (camera, run, path, state, start_utc_ns, end_utc_ns,"
                    " size_bytes, first_dts, last_dts, time_base_num, time_base_den, codec,"
                    " width_px, height_px, extradata) VALUES ('gate', 'r', ?, 'closed', ?, ?, ?,"
                    " 0, 1, 1, 90000, 'h264', 1280, 720, x'')",
                    values,
                ).rowcount
            )
        )

    def _event(self, number: int) -> None:
        severity = SEVERITIES[number % len(SEVERITIES)]
        now_ns = self.clock.utc_ns()
        event = Event(
            event_id=self.clock.new_id(),
            camera="gate",
            kind="zone_enter",
            rule="in",
            state=EventState.CLOSED,
            start_utc_ns=now_ns - (CLIP_S - 10) * NS_PER_S,
            end_utc_ns=now_ns,
            label="person",
            score=0.8,
            track_ids=(number,),
            measured={},
            model="ssd@0",
            severity=severity,
        )
        self._intake.line(lines.to_line(event))
        self._outbox.accept_receipt([row.message_id for row in self._outbox.take(10)])
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT id, refused FROM clip WHERE event_id = ?", (event.event_id,)
            ).fetchone()
        day = self.day
        day.events[severity] = day.events.get(severity, 0) + 1
        day.refused[severity] = day.refused.get(severity, 0) + bool(row["refused"])
        self._seal(row["id"], has_video=not row["refused"])
        if not self._away and self._random.random() > NEVER_SHARE:
            day.due_s[row["id"]] = self._seconds() + self._random.uniform(30, 1200)

    def _seal(self, clip_id: str, *, has_video: bool) -> None:
        sizes = {"snapshot.jpg": PICTURE_BYTES, "path.json": 4000, "manifest.json": 4000}
        if has_video:
            sizes["clip-1.mp4"] = CLIP_BYTES
        files = {self._file(f"clips/{clip_id}/{name}", size): size for name, size in sizes.items()}
        self.day.unsigned[clip_id] = files
        now_ns = self.clock.utc_ns()

        def change(connection: object) -> None:
            connection.execute(  # type: ignore[attr-defined]
                "UPDATE clip SET state = 'sealed', path = ? WHERE id = ?",
                (f"clips/{clip_id}", clip_id),
            )
            for name, size in sizes.items():
                if name == "manifest.json":
                    continue
                connection.execute(  # type: ignore[attr-defined]
                    "INSERT INTO transfer (fid, clip_id, path, name, size_bytes, sha256, leaf_root,"
                    " manifest, event_ids, state, created_utc_ns)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'r', ?, '[]', 'waiting', ?)",
                    (
                        *(self.clock.new_id(), clip_id, f"clips/{clip_id}/{name}", name, size),
                        *(self.clock.new_id() * 2, "{}" + " " * 4000, now_ns),
                    ),
                )

        self._store.write(change)

    def _sign(self, second: int) -> None:
        """The centre signs, but for six hours in which it is away."""
        if self._is_outage(second):
            return
        due = [clip_id for clip_id, at_s in self.day.due_s.items() if at_s <= self._seconds()]
        for clip_id in due:
            del self.day.due_s[clip_id]
            del self.day.unsigned[clip_id]
            receipt = "json_object('sha256', sha256, 'size_bytes', size_bytes, 'keyid', 'k')"

            def change(connection: object, clip_id: str = clip_id, receipt: str = receipt) -> None:
                connection.execute(  # type: ignore[attr-defined]
                    f"UPDATE transfer SET state = 'receipted', receipt = {receipt}"
                    " WHERE clip_id = ?",
                    (clip_id,),
                )
                connection.execute(  # type: ignore[attr-defined]
                    "UPDATE clip SET state = 'receipted' WHERE id = ?", (clip_id,)
                )

            self._store.write(change)

    def _is_outage(self, second: int) -> bool:
        return 6 * HOUR_S <= second < 12 * HOUR_S

    def _keep_some(self, second: int) -> None:
        """A hold over ten minutes in the fourth hour, and a pin."""
        if second != 4 * HOUR_S:
            return
        now_ns = self.clock.utc_ns()
        span = Span("gate", now_ns - 600 * NS_PER_S, now_ns)
        self._holds.place(span, Word("case 7", "A. Weber"))
        with self._store.reading() as connection:
            overlapping = "camera = 'gate' AND start_utc_ns <= ? AND end_utc_ns >= ?"
            bounds = (span.end_utc_ns, span.start_utc_ns)
            held = connection.execute(f"SELECT path FROM segment WHERE {overlapping}", bounds)
            paths = [self._folder / row[0] for row in held]
            clips = connection.execute(f"SELECT path FROM clip WHERE {overlapping}", bounds)
            paths += [path for row in clips for path in (self._folder / row[0]).iterdir()]
            pinned = connection.execute("SELECT id, path FROM clip LIMIT 1").fetchone()
        if (self._folder / pinned["path"]).is_dir():
            self._holds.pin(pinned["id"], Word("case 8", "A. Weber"))
            paths += list((self._folder / pinned["path"]).iterdir())
        self.day.guarded = {path: path.stat().st_size for path in paths}

    def _beat(self) -> None:
        body = {"state": "ok", "since_utc_ms": 1, "detail": ""}
        self._outbox.put(Message(Lane.TELEMETRY, "state/x", body))
        self._outbox.accept([row.row_id for row in self._outbox.take(10)])

    def _gauge(self, second: int) -> None:
        self.day.used.append((second, _on_disk(self._folder)))
        kept = [self.day.guarded, *self.day.unsigned.values()]
        for path, size in (pair for files in kept for pair in files.items()):
            if not path.is_file() or path.stat().st_size != size:
                self.day.lost.add(str(path))

    def _file(self, name: str, size_bytes: int) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size_bytes)
        return path

    def _seconds(self) -> float:
        return (self.clock.utc_ns() - self._begun_ns) / NS_PER_S

    def _note(self, connection: object, kind: str, subject: str, detail: object) -> object:
        return custody.append(connection, self.clock, kind, subject, detail)  # type: ignore[arg-type]


def table() -> str:
    """Measure, and give the table."""
    logging.disable(logging.ERROR)
    days = [_day(is_centre_away=False), _day(is_centre_away=True)]
    rows = [
        ("disk used once the share is reached, least", *(_share(min(_full(day))) for day in days)),
        ("the same, most", *(_share(max(_full(day))) for day in days)),
        ("growth from hour 12 to hour 24", *(f"{_growth(day):+.1%}" for day in days)),
        ("files without a receipt, held or pinned, that went", *(len(day.lost) for day in days)),
        *(
            (f"{name} events without video", *(_refused(day, name) for day in days))
            for name in ("info", "warning", "alarm")
        ),
    ]
    head = ["24 h, share 4 GB", "receipts late, six hours none", "centre away all day"]
    return markdown(head, rows)


def main(argv: list[str]) -> int:
    """Print the raw course of a day as JSON lines, for a plot."""
    for second, size_bytes in _day(is_centre_away="--away" in argv).used:
        print(json.dumps({"second": second, "bytes": size_bytes}))
    return 0


@contextmanager
def _box() -> Iterator[tuple[Path, Store]]:
    with tempfile.TemporaryDirectory(prefix="outpost-quota-") as name:
        store = Store(Path(name) / "outpost.db", DEVICE_MIGRATIONS, SimClock())
        store.open()
        try:
            yield Path(name), store
        finally:
            store.close()


def _day(*, is_centre_away: bool) -> Day:
    with _box() as (folder, store):
        day = Camera(folder, store, is_centre_away=is_centre_away).run()
        return replace(day)


def _full(day: Day) -> list[int]:
    """Give what was used from when the share was first reached."""
    first = next(number for number, (_, size) in enumerate(day.used) if size >= 0.97 * SHARE_BYTES)
    return [size for _, size in day.used[first:]]


def _growth(day: Day) -> float:
    """Compare the mean of the last hour with that of the hour from noon."""
    noon = [size for second, size in day.used if 12 * HOUR_S <= second < 13 * HOUR_S]
    last = [size for second, size in day.used if second >= 23 * HOUR_S]
    return sum(last) / len(last) / (sum(noon) / len(noon)) - 1


def _share(size_bytes: int) -> str:
    return f"{size_bytes / SHARE_BYTES:.1%}"


def _refused(day: Day, severity: str) -> str:
    return f"{day.refused.get(severity, 0)} of {day.events.get(severity, 0)}"


def _on_disk(folder: Path) -> int:
    return sum(
        (Path(root) / name).stat().st_blocks * 512
        for root, _, names in os.walk(folder)
        for name in names
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
