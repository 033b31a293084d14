"""The writer thread of one camera session: packets become segments, and what is lost a gap row.

It alone waits for the disk. When the disk refuses, the segment is given up (what is on the disk
of it stays and gets its row), and a new one is tried at a key frame, with growing pauses.
"""

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import StorageError, Unsupported
from agent.core.model import Packet, StreamInfo
from agent.evidence import custody
from agent.vision import recovery
from agent.vision.config import RecordConfig
from agent.vision.feed import Inbox, Item
from agent.vision.remux import Template, parameter_sets
from agent.vision.segment import Gap, Place, SegmentWriter, note_gap

GAP_LEAST_NS = NS_PER_S
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
SLOT_SLACK_NS = 50 * NS_PER_MS  # a key frame that comes so early is the one that was due
JUMPED = "the stream or the clock jumped"

_LAST_UTC_NS = """
    SELECT end_utc_ns FROM segment WHERE camera = ? ORDER BY id DESC LIMIT 1
"""
_LAST_GAP_UTC_NS = "SELECT to_utc_ns FROM gap WHERE camera = ? ORDER BY id DESC LIMIT 1"

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why nothing is written."""

    reason: str
    since_utc_ns: int


class Writer:
    """Takes what comes into `inbox` to the disk, on a thread of its own.

    Args:
        place: where segments go.
        info: of the stream.
        clock: time.
        config: of the recording.
        kept: told the run and the dts up to which a closed file holds it.
    """

    def __init__(
        self,
        place: Place,
        info: StreamInfo,
        clock: Clock,
        config: RecordConfig,
        kept: Callable[[str, int], None],
    ) -> None:
        self._kept = kept
        self.inbox = Inbox(config.queue_packets)
        self.trouble: Trouble | None = None
        self._place = place
        self._info = info
        self._clock = clock
        self._config = config
        self._segment: SegmentWriter | None = None
        self._template: Template | None = None
        self._run = ""
        self._retry_ns = 0
        self._pause_s = FIRST_PAUSE_S
        self._lost_reason = ""
        self._is_resuming = True  # a session begins, or the disk has refused
        self._thread = threading.Thread(target=self._work, name=f"write-{place.camera}")

    @property
    def is_working(self) -> bool:
        """Whether somebody takes from the queue."""
        return self._thread.is_alive()

    def start(self, lost_reason: str) -> None:
        """Begin; `lost_reason` explains the time since the last segment."""
        self._lost_reason = lost_reason
        self._thread.start()

    def end(self, rest: Sequence[Packet | Gap]) -> None:
        """Write what waits, and the rest of the session, close the segment, stop."""
        self.inbox.end(rest)
        self._thread.join()

    def _work(self) -> None:
        is_over = False
        while not is_over:
            for item in self.inbox.take():
                self._guarded(item)
                is_over = item is None
        if self._template is not None:
            self._template.close()

    def _guarded(self, item: Item) -> None:
        try:
            self._take(item)
        except (StorageError, OSError) as error:
            self._give_up(f"the disk refused: {error}")
            self._retry_ns = self._clock.mono_ns() + round(self._pause_s * NS_PER_S)
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        except Unsupported as error:
            self._give_up(str(error))

    def _take(self, item: Item) -> None:
        if item is None:
            self._cut()
        elif isinstance(item, Gap):
            self._cut()
            gap = item
            self._place.store.write(
                lambda connection: note_gap(connection, self._place.camera, gap)
            )
        else:
            self._take_packet(item)

    def _take_packet(self, packet: Packet) -> None:
        try:
            if self._is_added(packet):
                return
        except (StorageError, OSError) as error:
            # Only what was being written is lost: this group of pictures may go to another disk.
            self._give_up(f"the disk refused: {error}")
        if packet.is_key and self._clock.mono_ns() >= self._retry_ns:
            self._begin(packet)

    def _is_added(self, packet: Packet) -> bool:
        if packet.is_key and self._must_cut(packet):
            self._cut()
        if self._segment is None or packet.run != self._run:
            return False
        self._segment.add(packet)
        if packet.is_key and self.trouble is not None:  # a group of pictures is on the disk
            self._recover()
        return True

    def _must_cut(self, packet: Packet) -> bool:
        if self._segment is None:
            return False
        return (
            packet.run != self._run
            or self._slot(packet.utc_ns) != self._slot(self._segment.start_utc_ns)
            or parameter_sets(self._info.codec, packet.payload)
            not in (b"", self._segment.parameter_sets)
        )

    def _slot(self, utc_ns: int) -> int:
        """Number the spans of time that a file each is written of; every camera has its own."""
        length_ns = round(self._config.segment_s * NS_PER_S)
        shift_ns = round(self._place.turn * length_ns)
        return (utc_ns + SLOT_SLACK_NS - shift_ns) // length_ns

    def _begin(self, packet: Packet) -> None:
        template = self._template_for(packet)
        place = self._place
        if self._is_resuming:
            recovery.settle(place.store, place.disks, place.camera, self._note)
        gap = self._lost_time(packet)
        last: Exception | None = None
        for folder in place.disks.in_turn(place.camera):
            segment = SegmentWriter(place, folder, template, packet)
            try:
                segment.open(gap)
                segment.add(packet)
            except (StorageError, OSError) as error:
                segment.abandon()
                place.disks.refused(folder, str(error))
                gap = None if segment.has_row else gap
                last = error
                continue
            self._segment, self._run, self._is_resuming = segment, packet.run, False
            return
        if last is not None:
            raise last

    def _cut(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.close()
        except (StorageError, OSError) as error:
            self._place.disks.refused(segment.folder, str(error))
            raise
        self._place.disks.accepted(segment.folder)
        self._kept(self._run, segment.last_dts)
        if self.trouble is not None:
            self._recover()

    def _recover(self) -> None:
        _log.info("recording goes on", camera=self._place.camera)
        self.trouble, self._pause_s = None, FIRST_PAUSE_S

    def _template_for(self, packet: Packet) -> Template:
        found = parameter_sets(self._info.codec, packet.payload)
        if self._template is not None and found == self._template.parameter_sets:
            return self._template
        payload = packet.payload if found else self._info.extradata + packet.payload
        template = Template(self._info.codec, payload)
        if self._template is not None:
            self._template.close()
        self._template = template
        return template

    def _lost_time(self, packet: Packet) -> Gap | None:
        """Say what is missing before the first packet of a session, or of another run."""
        if not self._is_resuming and packet.run == self._run:
            return None
        camera = (self._place.camera,)
        with self._place.store.reading() as connection:
            found = (
                connection.execute(_LAST_UTC_NS, camera).fetchone(),
                connection.execute(_LAST_GAP_UTC_NS, camera).fetchone(),
            )
        reached_ns = max((row[0] for row in found if row is not None), default=packet.utc_ns)
        if packet.utc_ns - reached_ns < GAP_LEAST_NS:
            return None
        reason = self._lost_reason if self._is_resuming else JUMPED
        return Gap(reached_ns, packet.utc_ns, 0, reason)

    def _give_up(self, reason: str) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.abandon()
            self._place.disks.refused(segment.folder, reason)
        self._lost_reason = reason
        self._is_resuming = True
        if self.trouble is None:
            _log.error("recording interrupted", camera=self._place.camera, reason=reason)
            self.trouble = Trouble(reason, self._clock.utc_ns())

    def _note(
        self, connection: sqlite3.Connection, kind: str, subject: str, detail: Mapping[str, object]
    ) -> object:
        return custody.append(connection, self._clock, kind, subject, detail)
