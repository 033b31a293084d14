"""Large files by way of an S3 server: parts go there by presigned URLs, the whole is checked here.

Nothing is believed of what a device or the server says: which parts are there is asked of the
server, and what it has put together is read back and compared with the signed manifest before
anything is signed. All of it in threads of its own, for it waits for the server; the caller gets
outcomes and answers the device.
"""

import json
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import AgentError, ConfigError, HashMismatch, UplinkDown
from agent.core.store import Store
from agent.evidence import manifest
from agent.evidence.hashing import LeafHasher
from agent.receiver.config import BulkConfig
from agent.receiver.offered import Offered
from agent.receiver.s3 import MOST_PARTS, Bucket, NoSuchUpload, PartKept, Upload
from agent.receiver.sigv4 import Credentials

WORKERS: Final = 4  # reading a large file back must not keep the others waiting
MOST_UPLOADS: Final = 64  # of one device; beyond, the longest untouched begins anew later
PARTS_AT_ONCE: Final = 16  # in one need
EXPIRY_S: Final = 3600
STALE_MS: Final = 7 * 86_400_000
SWEEP_NS: Final = 6 * 3600 * NS_PER_S
_ISO_LETTERS: Final = 19  # to the second, as servers write it, whatever follows
KEY_ID, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question: parts to ask for, a place where the whole is, or what is wrong."""

    offered: Offered
    parts: tuple[wire.Json, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    place: str = ""
    wrong: AgentError | None = None


class Bulk:
    """The multipart uploads of a receiver; used by one thread."""

    def __init__(self, store: Store, config: BulkConfig, site: str, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._site = site
        self._clock = clock
        self._credentials = _credentials(config)
        self._of_thread = threading.local()
        self._begins = threading.Lock()
        self._buckets: list[Bucket] = []
        self._pool: ThreadPoolExecutor | None = None
        self._stop = threading.Event()
        self._running: dict[tuple[str, str], tuple[Offered, Future[Outcome]]] = {}
        self._swept: Future[None] | None = None
        self._sweep_ns = 0

    @property
    def is_busy(self) -> bool:
        """Whether an outcome is due."""
        return bool(self._running)

    def takes(self, offer: wire.Json) -> bool:
        """Whether a file comes this way: large enough, and its device can."""
        return bool(offer.get("bulk")) and offer["size_bytes"] > self._config.over_bytes

    def known(self, device: str, fid: str) -> wire.Json | None:
        """Give the offer of an upload under way."""
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT offer FROM bulk WHERE device = ? AND fid = ?", (device, fid)
            ).fetchone()
        return None if row is None else dict(json.loads(row["offer"]))

    def ask(self, offered: Offered) -> None:
        """Find out what is there of a file; a question that is still open is not asked twice."""
        if offered.ids not in self._running:
            work = self._workers.submit(self._look, offered)
            self._running[offered.ids] = (offered, work)

    def ended(self) -> list[Outcome]:
        """Give the outcomes that are there; begins a sweep when one is due."""
        self._sweep_due()
        over = [ids for ids, (_, work) in self._running.items() if work.done()]
        return [_outcome(*self._running.pop(ids)) for ids in over]

    def forget(self, device: str, fid: str) -> None:
        """Drop the row of an upload that has ended."""
        self._write("DELETE FROM bulk WHERE device = ? AND fid = ?", device, fid)

    def close(self) -> None:
        """End what runs; devices ask again."""
        pool, self._pool = self._pool, None
        self._stop.set()
        for bucket in self._buckets:
            bucket.cut()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        self._running.clear()

    @property
    def _bucket(self) -> Bucket:
        """The bucket as this worker speaks to it."""
        found: Bucket | None = getattr(self._of_thread, "bucket", None)
        if found is None:
            config = self._config
            found = Bucket(config.endpoint, config.bucket, self._credentials, self._clock)
            self._of_thread.bucket = found
            self._buckets.append(found)
        return found

    @property
    def _workers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="receiver-bulk")
        return self._pool

    def _look(self, offered: Offered) -> Outcome:
        """Runs in the pool: the state of an upload, and on to the end of it if all is there."""
        upload = self._upload(offered)
        if upload is None:
            if self._is_there(offered):
                return self._checked(offered)
            upload = self._begun(offered)
        try:
            kept = self._bucket.parts(upload)
        except NoSuchUpload:
            if self._is_there(offered):  # killed between its completion and the receipt
                return self._checked(offered)
            upload, kept = self._begun(offered), []
        missing = _missing(int(offered.offer["size_bytes"]), self._part_bytes(offered), kept)
        if missing:
            return self._asking(offered, upload, missing)
        self._bucket.complete(upload, self._wanted(offered, kept))
        return self._checked(offered)

    def _wanted(self, offered: Offered, kept: list[PartKept]) -> list[PartKept]:
        """Give the parts to put together; there may be more, of a time with smaller ones."""
        count = -(-int(offered.offer["size_bytes"]) // self._part_bytes(offered))
        return sorted((part for part in kept if part.number <= count), key=lambda part: part.number)

    def _asking(
        self, offered: Offered, upload: Upload, missing: list[tuple[int, int, int]]
    ) -> Outcome:
        expires_utc_ms = self._clock.utc_ns() // NS_PER_MS + EXPIRY_S * 1000
        parts = tuple(
            {
                "part": number,
                "from": start,
                "to": end,
                "url": self._bucket.part_url(upload, number, EXPIRY_S),
                "expires_utc_ms": expires_utc_ms,
            }
            for number, start, end in missing[:PARTS_AT_ONCE]
        )
        self._write(
            "UPDATE bulk SET updated_utc_ms = ? WHERE device = ? AND fid = ?",
            *(self._clock.utc_ns() // NS_PER_MS, *offered.ids),
        )
        return Outcome(offered, parts, _joined(missing))

    def _checked(self, offered: Offered) -> Outcome:
        """Read back what the server has; bytes that are not the file's are deleted there."""
        key = self._key(offered)
        hasher = LeafHasher()
        for block in self._bucket.read(key):
            if self._stop.is_set():
                raise UplinkDown("stopped")
            hasher.update(block)
        try:
            manifest.check_file(hasher.finish(), offered.entry)
        except HashMismatch as error:
            self._bucket.delete(key)
            self.forget(*offered.ids)
            return Outcome(offered, wrong=error)
        return Outcome(offered, place=self._bucket.place(key))

    def _is_there(self, offered: Offered) -> bool:
        return self._bucket.size_bytes(self._key(offered)) == int(offered.offer["size_bytes"])

    def _upload(self, offered: Offered) -> Upload | None:
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT key, upload_id FROM bulk WHERE device = ? AND fid = ?", offered.ids
            ).fetchone()
        return None if row is None else Upload(row["key"], row["upload_id"])

    def _begun(self, offered: Offered) -> Upload:
        with self._begins:  # or two workers would find the same room
            self._make_room(offered)
            upload = self._bucket.begin(self._key(offered))
            self._write(
                "INSERT OR REPLACE INTO bulk (device, fid, key, upload_id, offer, updated_utc_ms)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                *(*offered.ids, upload.key, upload.upload_id, json.dumps(offered.offer)),
                self._clock.utc_ns() // NS_PER_MS,
            )
        return upload

    def _make_room(self, offered: Offered) -> None:
        device, _ = offered.ids
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM bulk WHERE device = ? ORDER BY updated_utc_ms DESC", (device,)
            ).fetchall()
        for row in rows[MOST_UPLOADS - 1 :]:
            self._abort(Upload(row["key"], row["upload_id"]))
            self.forget(device, row["fid"])

    def _key(self, offered: Offered) -> str:
        """Name the object: no two transfers share one, so none spoils what another signed for."""
        device, fid = offered.ids
        return f"{self._site}/{device}/{offered.clip_id}/{fid}/{offered.offer['name']}"

    def _part_bytes(self, offered: Offered) -> int:
        """Give the size of a part; parts of another size count as missing."""
        size_bytes = int(offered.offer["size_bytes"])
        return max(self._config.part_bytes, -(-size_bytes // MOST_PARTS))

    def _sweep_due(self) -> None:
        now_ns = self._clock.mono_ns()
        if self._swept is not None and self._swept.done():
            if (error := self._swept.exception()) is not None:
                _log.warning("stale uploads not swept", reason=error)
            self._swept = None
        if self._swept is None and now_ns >= self._sweep_ns:
            self._sweep_ns = now_ns + SWEEP_NS
            self._swept = self._workers.submit(self._sweep)

    def _sweep(self) -> None:
        """Abort uploads of this site that nobody has added to for a week: their parts cost room."""
        before_ms = self._clock.utc_ns() // NS_PER_MS - STALE_MS
        with self._store.reading() as connection:
            rows = connection.execute("SELECT * FROM bulk").fetchall()
        fresh = {row["upload_id"] for row in rows if row["updated_utc_ms"] >= before_ms}
        for row in rows:
            if row["upload_id"] not in fresh:
                self._abort(Upload(row["key"], row["upload_id"]))
                self.forget(row["device"], row["fid"])
        before = datetime.fromtimestamp(before_ms / 1000, UTC).isoformat()[:_ISO_LETTERS]
        for upload in self._bucket.uploads(f"{self._site}/"):
            if upload.upload_id not in fresh and "" < upload.begun < before:
                self._abort(upload)

    def _abort(self, upload: Upload) -> None:
        self._bucket.abort(upload)
        _log.warning("stale upload aborted", place=self._bucket.place(upload.key))

    def _write(self, statement: str, *values: object) -> None:
        self._store.write(lambda connection: connection.execute(statement, values).rowcount)


def _outcome(offered: Offered, work: "Future[Outcome]") -> Outcome:
    try:
        return work.result()
    except AgentError as error:
        return Outcome(offered, wrong=error)
    except NoSuchUpload:  # aborted while it was looked at
        return Outcome(offered, wrong=UplinkDown("upload is gone; begun anew when asked again"))


def _missing(size_bytes: int, part_bytes: int, kept: list[PartKept]) -> list[tuple[int, int, int]]:
    """Give number, start and end of every part that is not there in its right size."""
    sizes = {part.number: part.size_bytes for part in kept}
    wanted = (
        (number, start, min(start + part_bytes, size_bytes))
        for number, start in enumerate(range(0, size_bytes, part_bytes), 1)
    )
    return [item for item in wanted if sizes.get(item[0]) != item[2] - item[1]]


def _joined(missing: list[tuple[int, int, int]]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for _, start, end in missing:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return tuple(found)


def _credentials(config: BulkConfig) -> Credentials:
    """Read the key from its file, two lines, or from the environment as every S3 tool does."""
    if config.key_path is not None:
        try:
            lines = config.key_path.read_text("ascii").split()
        except (OSError, ValueError) as error:
            raise ConfigError(f"s3-key: {config.key_path}: {error}") from error
    else:
        lines = [os.environ.get(KEY_ID, ""), os.environ.get(SECRET, "")]
    if len(lines) != 2 or not all(lines):  # noqa: PLR2004 - the key's id and its secret
        raise ConfigError(
            f"s3 key: {config.key_path or 'environment'}; allowed: a file of two lines, id and"
            f" secret, or {KEY_ID} and {SECRET}"
        )
    return Credentials(lines[0], lines[1], config.region)
