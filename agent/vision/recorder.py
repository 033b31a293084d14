"""The recorder: opens the camera once, never decodes, gives every packet to ring and segments.

The thread of `run` only reads, stamps and queues; a writer thread of its own does all that may
wait for the disk. When the disk is too slow whole groups of pictures are left out, and a gap row
says so.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import AgentError, AuthRefused, SourceLost, StorageError, Unsupported
from agent.core.model import Packet, StreamInfo
from agent.vision.config import RecordConfig
from agent.vision.remux import Template, parameter_sets
from agent.vision.ring import Ring
from agent.vision.segment import Place, SegmentWriter
from agent.vision.timeline import Timeline

GAP_LEAST_NS = NS_PER_S
DISK_PAUSE_NS = 5 * NS_PER_S
POLL_S = 0.5
MOST_REFUSALS = 2  # a camera locks accounts: do not try a wrong password for ever

_log = log.get(__name__)


class Source(Protocol):
    """The part of a driver that the recorder needs."""

    def open(self) -> StreamInfo:
        """Connect."""
        ...

    def packets(self) -> Iterator[Packet]:
        """Give packets."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """State of one camera for beats and people."""

    state: str  # connecting, streaming, lost, auth_failed, unsupported, stopped
    since_utc_ns: int
    detail: str = ""
    lag_ms: int | None = None  # arrival minus the camera's own time
    packets: int = 0
    dropped: int = 0
    ring_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Gap:
    from_utc_ns: int
    to_utc_ns: int
    packets: int
    reason: str


class Recorder:
    """Worker that keeps one camera recorded."""

    def __init__(
        self,
        place: Place,
        source: Source,
        ring: Ring,
        clock: Clock,
        config: RecordConfig,
        boot: int,
    ) -> None:
        self.name = f"recorder-{place.camera}"
        self._place = place
        self._source = source
        self._ring = ring
        self._clock = clock
        self._config = config
        self._boot = boot
        self._runs = 0
        self._refusals = 0
        self._health = CameraHealth("connecting", clock.utc_ns())
        self._lost_reason = "the agent was not running"

    def health(self) -> CameraHealth:
        """Give the camera's state now; safe from any thread."""
        return replace(self._health, ring_bytes=self._ring.size_bytes)

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Record one session of the camera.

        Raises:
            SourceLost: it went away; call again.
            AuthRefused, Unsupported: a person must look.
        """
        closer = _CloseOnStop(self._source, stop)
        try:
            closer.start()
            self._record(self._open(), stop, progress)
        except AgentError as error:
            self._lost_reason = str(error)
            self._become(_state_of(error), str(error))
            if isinstance(error, AuthRefused) and self._refusals < MOST_REFUSALS:
                raise SourceLost(str(error)) from error
            raise
        finally:
            closer.end()
        self._become("stopped", "")
        self._lost_reason = "the agent was stopped"

    def _open(self) -> StreamInfo:
        try:
            info = self._source.open()
        except AuthRefused:
            self._refusals += 1
            raise
        self._refusals = 0
        return info

    def _record(
        self, info: StreamInfo, stop: threading.Event, progress: Callable[[], None]
    ) -> None:
        writer = _Writer(self._place, info, self._clock, self._config)
        writer.start(self._lost_reason)
        feed = _Feed(writer.queue)
        timeline = Timeline()
        run = self._next_run()
        try:
            for packet in self._source.packets():
                if stop.is_set() or not writer.is_working:
                    break
                media_ns = int(packet.dts * packet.time_base * NS_PER_S)
                stamp = timeline.stamp(media_ns, packet.arrival_mono_ns, packet.utc_ns)
                if stamp.is_break:
                    run = self._next_run()
                stamped = replace(packet, run=run, utc_ns=stamp.utc_ns)
                self._ring.put(stamped)
                feed.put(stamped)
                self._note(packet, feed)
                progress()
            if not writer.is_working:
                raise SourceLost(f"camera {self._place.camera}: the writer thread ended")
            if not stop.is_set():
                raise SourceLost(f"camera {self._place.camera}: the stream ended")
        finally:
            self._source.close()
            writer.end(feed.take_gap())

    def _next_run(self) -> str:
        self._runs += 1
        return f"{self._boot}-{self._runs}-{self._clock.new_id()[-8:]}"

    def _note(self, packet: Packet, feed: "_Feed") -> None:
        if self._health.state != "streaming":
            self._become("streaming", "")
        lag_ms = None
        if packet.camera_utc_ns is not None:
            lag_ms = (self._clock.utc_ns() - packet.camera_utc_ns) // NS_PER_MS
        health = self._health
        self._health = replace(
            health,
            lag_ms=lag_ms,
            packets=health.packets + 1,
            dropped=health.dropped + feed.take_dropped(),
        )

    def _become(self, state: str, detail: str) -> None:
        if (state, detail) == (self._health.state, self._health.detail):
            return
        self._health = replace(
            self._health, state=state, detail=detail, since_utc_ns=self._clock.utc_ns(), lag_ms=None
        )
        _log.info(f"camera {state}", camera=self._place.camera, detail=detail)


class _CloseOnStop:
    """Closes the source when the agent is told to stop, so that a silent camera holds nobody up."""

    def __init__(self, source: Source, stop: threading.Event) -> None:
        self._source = source
        self._stop = stop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="close-on-stop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _wait(self) -> None:
        while not self._ended.wait(POLL_S):
            if self._stop.is_set():
                self._source.close()
                return


class _Feed:
    """Puts packets into the writer's queue, whole groups of pictures or none."""

    def __init__(self, target: "queue.Queue[Packet | _Gap | None]") -> None:
        self._queue = target
        self._first_left_out: Packet | None = None
        self._last_left_out: Packet | None = None
        self._gap_packets = 0
        self._dropped = 0

    def put(self, packet: Packet) -> None:
        """Queue a packet, or leave out its whole group when there is no room."""
        if self._first_left_out is not None and not (packet.is_key and self._close_gap(packet)):
            self._leave_out(packet)
            return
        try:
            self._queue.put_nowait(packet)
        except queue.Full:
            self._leave_out(packet)

    def take_dropped(self) -> int:
        """Give how many packets were left out since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def take_gap(self) -> _Gap | None:
        """Give the gap that the session ends in, if it does."""
        return None if self._last_left_out is None else self._gap_to(self._last_left_out)

    def _leave_out(self, packet: Packet) -> None:
        self._dropped += 1
        self._gap_packets += 1
        self._first_left_out = self._first_left_out or packet
        self._last_left_out = packet

    def _close_gap(self, packet: Packet) -> bool:
        gap = self._gap_to(packet)
        try:
            self._queue.put_nowait(gap)
        except queue.Full:
            return False
        self._first_left_out = self._last_left_out = None
        self._gap_packets = 0
        return True

    def _gap_to(self, packet: Packet) -> _Gap:
        first = self._first_left_out or packet
        return _Gap(first.utc_ns, packet.utc_ns, self._gap_packets, "the disk is too slow")


class _Writer:
    """The writer thread of one session."""

    def __init__(self, place: Place, info: StreamInfo, clock: Clock, config: RecordConfig) -> None:
        self.queue: queue.Queue[Packet | _Gap | None] = queue.Queue(config.queue_packets)
        self._place = place
        self._info = info
        self._clock = clock
        self._config = config
        self._segment: SegmentWriter | None = None
        self._template: Template | None = None
        self._run = ""
        self._retry_ns = 0
        self._lost_reason = ""
        self._has_begun = False
        self._thread = threading.Thread(target=self._work, name=f"write-{place.camera}")

    def start(self, lost_reason: str) -> None:
        """Begin; `lost_reason` explains the time since the last segment."""
        self._lost_reason = lost_reason
        self._thread.start()

    @property
    def is_working(self) -> bool:
        """Whether somebody takes from the queue."""
        return self._thread.is_alive()

    def end(self, gap: _Gap | None) -> None:
        """Write what is queued, and a last gap, close the segment, stop."""
        for item in (None,) if gap is None else (gap, None):
            self._hand_over(item)
        self._thread.join()

    def _hand_over(self, item: _Gap | None) -> None:
        while self.is_working:
            with contextlib.suppress(queue.Full):
                self.queue.put(item, timeout=POLL_S)
                return

    def _work(self) -> None:
        while (item := self.queue.get()) is not None:
            self._guarded(item)
        self._guarded(None)
        if self._template is not None:
            self._template.close()

    def _guarded(self, item: Packet | _Gap | None) -> None:
        try:
            self._take(item)
        except (StorageError, OSError) as error:
            self._give_up(error)
        except Unsupported as error:
            _log.warning("key frame not understood", camera=self._place.camera, reason=error)

    def _take(self, item: Packet | _Gap | None) -> None:
        if item is None:
            self._cut()
        elif isinstance(item, _Gap):
            self._cut()
            self._write_gap(item)
        else:
            self._take_packet(item)

    def _take_packet(self, packet: Packet) -> None:
        if packet.is_key and self._must_cut(packet):
            self._cut()
        if self._segment is not None and packet.run == self._run:
            self._segment.add(packet)
        elif packet.is_key and self._clock.mono_ns() >= self._retry_ns:
            self._begin(packet)

    def _must_cut(self, packet: Packet) -> bool:
        if self._segment is None:
            return False
        return (
            packet.run != self._run
            or self._segment.age_s(packet) >= self._config.segment_s
            or parameter_sets(self._info.codec, packet.payload)
            not in (b"", self._segment.parameter_sets)
        )

    def _begin(self, packet: Packet) -> None:
        if not self._has_begun:
            self._note_lost_time(packet)
            self._has_begun = True
        segment = SegmentWriter(self._place, self._template_for(packet), packet)
        segment.open()
        self._segment, self._run = segment, packet.run
        segment.add(packet)

    def _template_for(self, packet: Packet) -> Template:
        found = parameter_sets(self._info.codec, packet.payload)
        if self._template is not None and found == self._template.parameter_sets:
            return self._template
        payload = packet.payload if found else self._info.extradata + packet.payload
        if self._template is not None:
            self._template.close()
        self._template = Template(self._info.codec, payload)
        return self._template

    def _cut(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()

    def _note_lost_time(self, packet: Packet) -> None:
        with self._place.store.reading() as connection:
            row = connection.execute(
                "SELECT max(end_utc_ns) FROM segment WHERE camera = ?", (self._place.camera,)
            ).fetchone()
        if row[0] is not None and packet.utc_ns - row[0] >= GAP_LEAST_NS:
            self._write_gap(_Gap(row[0], packet.utc_ns, 0, self._lost_reason))

    def _write_gap(self, gap: _Gap) -> None:
        values = (self._place.camera, gap.from_utc_ns, gap.to_utc_ns, gap.packets, gap.reason)
        self._place.store.write(
            lambda connection: (
                connection.execute(
                    "INSERT INTO gap (camera, from_utc_ns, to_utc_ns, packets, reason)"
                    " VALUES (?, ?, ?, ?, ?)",
                    values,
                ).rowcount
            )
        )

    def _give_up(self, error: Exception) -> None:
        _log.error("recording interrupted", camera=self._place.camera, reason=error)
        segment, self._segment = self._segment, None
        self._retry_ns = self._clock.mono_ns() + DISK_PAUSE_NS
        self._has_begun = False
        self._lost_reason = f"the disk refused: {error}"
        if segment is not None:
            with contextlib.suppress(OSError):  # the same disk may refuse the close as well
                segment.abandon()


def _state_of(error: AgentError) -> str:
    if isinstance(error, AuthRefused):
        return "auth_failed"
    return "unsupported" if isinstance(error, Unsupported) else "lost"
