"""Uploads the parts of a large file to presigned URLs, in a thread of its own, one file at a time.

What has arrived is never remembered here: after a restart, an expired URL or trouble that lasts
the file is offered again, and the centre's next `need` names the parts that it still lacks. So an
interruption costs at most the part that was under way.
"""

import base64
import hashlib
import os
import random
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import AgentError, Transient, UplinkDown
from agent.core.web import Reply, Web
from agent.delivery.meter import Meter
from agent.delivery.parts import Part
from agent.delivery.sending import Harmed, Sending

BLOCK_BYTES = 256 * 1024
MOST_TRIES = 6  # of one part in a row
FIRST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
JOIN_S = 5.0
STEP_S = 0.05  # how often a wait for room in the schedule's caps looks up

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be uploaded of one file."""

    fid: str
    path: Path
    size_bytes: int
    parts: Sequence[Part]
    rate_bytes_per_s: int  # 0: no limit
    meter: Meter


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job; without an error all of its parts were taken."""

    uploaded: int  # parts
    error: AgentError | None = None


class AskAgain(Transient):
    """The URL is of no use any more: the centre gives another."""


class Uploads:
    """Uploads one job at a time; owned by one thread, which takes the outcomes."""

    def __init__(self, ca_path: Path | None, clock: Clock) -> None:
        self._ca_path = ca_path
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._web: Web | None = None
        self._fid = ""
        self._outcome: Outcome | None = None
        self.sent_bytes = 0

    def turn(self, sending: Sending, path: Path, meter: Meter) -> Outcome | None:
        """Begin with a file's parts unless another's go up; give the outcome once they have ended.

        Their URLs have been checked.
        """
        if not self._fid:
            transfer = sending.transfer
            rate = sending.rate_bytes_per_s
            job = Job(transfer.fid, path, transfer.size_bytes, sending.parts, rate, meter)
            try:
                self._start(job)
            except OSError as error:
                return Outcome(0, UplinkDown(f"{self._ca_path}: {error.strerror}"))
        is_over = self._thread is not None and not self._thread.is_alive()
        if self._fid != sending.transfer.fid or not is_over:
            return None
        outcome = self._outcome or Outcome(0, UplinkDown("upload ended unexpectedly"))
        self._fid, self._thread, self._outcome = "", None, None
        return outcome

    def drop(self, fid: str) -> None:
        """End a job whose file is wanted no more; another file's goes on."""
        if fid == self._fid:
            self.close()

    def close(self) -> None:
        """End what runs, at once."""
        thread, self._thread = self._thread, None
        self._fid, self._outcome = "", None
        self._stop.set()
        if self._web is not None:
            self._web.cut()
        if thread is not None:
            thread.join(JOIN_S)

    def _start(self, job: Job) -> None:
        self._web = Web(ssl.create_default_context(cafile=self._ca_path))
        self._fid, self._outcome = job.fid, None
        self._stop = threading.Event()
        work = (job, self._web, self._stop)
        self._thread = threading.Thread(target=self._run, args=work, name="bulk", daemon=True)
        self._thread.start()

    def _run(self, job: Job, web: Web, stop: threading.Event) -> None:
        done = 0
        try:
            with job.path.open("rb") as file:
                for part in job.parts:
                    if not job.meter.lets_file(job.size_bytes):
                        raise AskAgain("its time is over")
                    self._bring(_Reading(file.fileno(), part), job, web, stop)
                    done += 1
            outcome = Outcome(done)
        except AgentError as error:
            outcome = Outcome(done, error)
        except OSError as error:
            harm = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
            outcome = Outcome(done, Harmed(harm, f"{job.path.name}: {error.strerror}"))
        if not stop.is_set():
            self._outcome = outcome

    def _bring(self, reading: "_Reading", job: Job, web: Web, stop: threading.Event) -> None:
        """Upload one part, again while the server is busy or out of reach."""
        for tries in range(1, MOST_TRIES + 1):
            try:
                _check(self._put(reading, job, web, stop), reading.part)
            except UplinkDown as error:
                if tries == MOST_TRIES or stop.is_set():
                    raise
                wait_s = min(MOST_WAIT_S, FIRST_WAIT_S * 2.0 ** (tries - 1))
                _log.info("part again", part=reading.part.number, tries=tries, reason=error)
                self._clock.wait(stop, random.uniform(wait_s / 2, wait_s))  # noqa: S311
            else:
                return

    def _put(self, reading: "_Reading", job: Job, web: Web, stop: threading.Event) -> Reply:
        part = reading.part
        headers = {"content-length": str(part.end - part.start), "content-md5": reading.md5()}
        return web.send("PUT", part.url, headers, self._paced(reading, job, stop))

    def _paced(self, reading: "_Reading", job: Job, stop: threading.Event) -> Iterator[bytes]:
        """Give the bytes as fast as the centre and the site's schedule let them go."""
        next_ns = self._clock.mono_ns()
        for block in reading.blocks(min(BLOCK_BYTES, job.meter.chunk_bytes)):
            now_ns = self._clock.mono_ns()
            self._clock.wait(stop, max(0, next_ns - now_ns) / NS_PER_S)
            while not job.meter.may_chunk(len(block)) and not stop.is_set():
                self._clock.wait(stop, STEP_S)
            if stop.is_set():
                raise UplinkDown("stopped")
            yield block
            self.sent_bytes += len(block)
            job.meter.sent_chunk(len(block))
            if job.rate_bytes_per_s:
                next_ns = max(now_ns, next_ns) + len(block) * NS_PER_S // job.rate_bytes_per_s


class _Reading:
    """A part's bytes, from the disk each time they are asked for."""

    def __init__(self, descriptor: int, part: Part) -> None:
        self._descriptor = descriptor
        self.part = part

    def blocks(self, most_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
        """Give them piece by piece.

        Raises:
            Harmed: the file is shorter than it was.
        """
        at = self.part.start
        while at < self.part.end:
            block = os.pread(self._descriptor, min(most_bytes, self.part.end - at), at)
            if not block:
                raise Harmed("truncated", f"shorter than sealed; read to {at}")
            yield block
            at += len(block)

    def md5(self) -> str:
        """Give the header by which the server notices bytes that changed on the way."""
        found = hashlib.md5(usedforsecurity=False)
        for block in self.blocks():
            found.update(block)
        return base64.b64encode(found.digest()).decode()


def _check(answer: Reply, part: Part) -> None:
    """Judge an answer: UplinkDown is worth another try with this URL, AskAgain is not."""
    status = answer.status
    if status == HTTPStatus.OK:
        return
    code = answer.body[:4096].decode(errors="replace").partition("<Code>")[2].partition("</Code>")
    said = f"part {part.number}: status {status} {code[0][:40]}".strip()
    is_busy = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    if is_busy or code[0] in ("BadDigest", "RequestTimeout"):
        raise UplinkDown(said)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise AskAgain(f"{said}, a redirect; allowed: an answer of the host that is asked")
    raise AskAgain(said)
