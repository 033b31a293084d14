"""The recorder: opens the camera once, never decodes, gives every packet to ring and segments.

The thread of `run` only reads, stamps and queues; a writer thread of its own does all that may
wait for the disk. When the disk is too slow whole groups of pictures are left out, and a gap row
says so.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import AgentError, AuthRefused, Permanent, SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from agent.vision.config import RecordConfig
from agent.vision.feed import Feed
from agent.vision.keys import KeyWatch, NoKeyFrame
from agent.vision.ring import Ring
from agent.vision.segment import Place
from agent.vision.timeline import Timeline
from agent.vision.writer import Writer

POLL_S = 0.5
REFUSED_PAUSE_S = 900.0

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

    # connecting, streaming, not_recording, no_keyframe, lost, auth_failed, unsupported, stopped
    state: str
    since_utc_ns: int
    detail: str = ""
    lag_ms: int | None = None  # arrival minus the camera's own time
    packets: int = 0
    dropped: int = 0
    ring_bytes: int = 0


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
        self._info: StreamInfo | None = None
        self._writer: Writer | None = None
        self._runs = 0
        self._packets = 0
        self._dropped = 0
        self._lag_ms: int | None = None
        self._refusals = 0
        self._keys = KeyWatch()
        self._health = CameraHealth("connecting", clock.utc_ns())
        self._lost_reason = "the agent was not running"

    def health(self) -> CameraHealth:
        """Give the camera's state now; safe from any thread."""
        health = replace(
            self._health,
            lag_ms=self._lag_ms,
            packets=self._packets,
            dropped=self._dropped,
            ring_bytes=self._ring.size_bytes,
        )
        trouble = None if self._writer is None else self._writer.trouble
        if trouble is None or health.state != "streaming":
            return health
        return replace(
            health,
            state="not_recording",
            since_utc_ns=trouble.since_utc_ns,
            detail=trouble.reason,
        )

    def info(self) -> StreamInfo | None:
        """Give what the source said of its stream when it was last open."""
        return self._info

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Record one session of the camera.

        A camera that refuses us, or sends what we cannot keep, is asked again after a quarter of
        an hour: cameras lock accounts, but one that was mended must not stay unrecorded.

        Raises:
            SourceLost: it went away; call again.
        """
        closer = _CloseOnStop(self._source, stop)
        try:
            closer.start()
            self._record(self._open(), stop, progress)
        except AgentError as error:
            self._lost_reason = str(error)
            self._become(_state_of(error), str(error))
            if not isinstance(error, Permanent):
                raise
            if self._refusals != 1:  # a first refusal may be a camera that is starting
                self._wait(stop, progress)
            if not stop.is_set():
                raise SourceLost(str(error)) from error
            return
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
        self._info = info
        return info

    def _wait(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        until_ns = self._clock.mono_ns() + round(REFUSED_PAUSE_S * NS_PER_S)
        while self._clock.mono_ns() < until_ns and not self._clock.wait(stop, 1.0):
            progress()

    def _record(
        self, info: StreamInfo, stop: threading.Event, progress: Callable[[], None]
    ) -> None:
        writer = Writer(self._place, info, self._clock, self._config, self._ring.kept)
        self._writer = writer
        writer.start(self._lost_reason)
        feed = Feed(writer.inbox)
        timeline = Timeline()
        run = self._next_run()
        self._keys.restart()
        try:
            for packet in _apart(self._source.packets()):
                if stop.is_set() or not writer.is_working:
                    break
                tick = packet.time_base
                media_ns = packet.dts * tick.numerator * NS_PER_S // tick.denominator
                stamp = timeline.stamp(
                    media_ns, packet.arrival_mono_ns, packet.utc_ns, is_key=packet.is_key
                )
                if stamp.is_break:
                    run = self._next_run()
                stamped = replace(packet, run=run, utc_ns=stamp.utc_ns)
                self._ring.put(stamped)
                feed.put(stamped)
                self._note(packet, feed)
                progress()
                if self._keys.is_overdue(packet):
                    raise NoKeyFrame(f"camera {self._place.camera}: it sends no key frame")
            if not writer.is_working:
                raise SourceLost(f"camera {self._place.camera}: the writer thread ended")
            if not stop.is_set():
                raise SourceLost(f"camera {self._place.camera}: the stream ended")
        finally:
            self._source.close()
            writer.end(feed.rest())

    def _next_run(self) -> str:
        self._runs += 1
        return f"{self._boot}-{self._runs}-{self._clock.new_id()[-8:]}"

    def _note(self, packet: Packet, feed: Feed) -> None:
        is_waiting = self._health.state == "no_keyframe" and not self._keys.has_gop
        if self._health.state != "streaming" and not is_waiting:
            self._become("streaming", "")
        self._packets += 1
        self._dropped += feed.take_dropped()
        self._lag_ms = None
        if packet.camera_utc_ns is not None:
            self._lag_ms = (self._clock.utc_ns() - packet.camera_utc_ns) // NS_PER_MS

    def _become(self, state: str, detail: str) -> None:
        if (state, detail) == (self._health.state, self._health.detail):
            return
        self._lag_ms = None
        self._health = replace(
            self._health, state=state, detail=detail, since_utc_ns=self._clock.utc_ns()
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


def _apart(packets: Iterator[Packet]) -> Iterator[Packet]:
    """Push pictures of one time a tick apart: MP4 takes none twice, and each would end a run."""
    told = given = None
    for packet in packets:
        if packet.dts == told and given is not None:
            given += 1
        else:
            told = given = packet.dts
        is_same = packet.dts == given
        yield packet if is_same else replace(packet, dts=given, pts=max(packet.pts, given))


def _state_of(error: AgentError) -> str:
    if isinstance(error, NoKeyFrame):
        return "no_keyframe"
    if isinstance(error, AuthRefused):
        return "auth_failed"
    return "unsupported" if isinstance(error, Unsupported) else "lost"
