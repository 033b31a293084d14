"""What a clip is made of: segments on the disk, then the ring; a part is one unbroken run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

from agent.core.clock import NS_PER_MS, NS_PER_S
from agent.core.errors import StorageError
from agent.core.files import atomic
from agent.core.model import Packet
from agent.evidence.hashing import FileHash, copy_hashed
from agent.vision.remux import Muxer, Template, demux, parameter_sets

MOVFLAGS = "faststart+use_metadata_tags"
LEAST_END_NS = NS_PER_S // 100
HOLE_NS = 2 * NS_PER_S  # a longer step between two pictures is time that was not recorded
TOLERANCE_NS = 50 * NS_PER_MS  # rows and packets are timed by the same slewed clock


@dataclass(frozen=True, slots=True)
class Recording:
    """A segment's row, as far as cutting needs it."""

    path: Path
    run: str
    codec: str
    shape: bytes  # parameter sets
    start_utc_ns: int
    end_utc_ns: int
    first_dts: int
    last_dts: int
    time_base: Fraction
    sha256: str


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of footage that plays without a break."""

    codec: str
    packets: Iterator[Packet]


@dataclass(frozen=True, slots=True)
class CutPart:
    """A part as it was written."""

    hash: FileHash
    start_utc_ns: int
    end_utc_ns: int
    hole_ns: int  # of that span, without pictures
    packets: int


def packets_of(recording: Recording) -> Iterator[Packet]:
    """Give a segment's packets with the times of the stream they were cut from.

    A segment that the recording loop has deleted meanwhile gives none.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    tick_ns = recording.time_base * NS_PER_S
    try:
        for found in demux(recording.path):
            if found.dts is None or found.pts is None or found.time_base is None:
                continue
            past, shown = found.dts, found.pts
            if found.time_base != recording.time_base:
                scale = found.time_base / recording.time_base
                past, shown = round(past * scale), round(shown * scale)
            yield Packet(
                run=recording.run,
                pts=recording.first_dts + shown,
                dts=recording.first_dts + past,
                time_base=recording.time_base,
                is_key=found.is_keyframe,
                is_corrupt=found.is_corrupt,
                arrival_mono_ns=0,
                utc_ns=recording.start_utc_ns + past * tick_ns.numerator // tick_ns.denominator,
                camera_utc_ns=None,
                payload=bytes(found),
            )
    except StorageError:
        if recording.path.exists():
            raise


def parts(
    recordings: Iterable[Recording],
    tail: Sequence[Packet],
    codec: str,
    gaps: Sequence[tuple[int, int]] = (),
) -> list[Part]:
    """Arrange recordings, oldest first, and the ring's tail into parts.

    Args:
        recordings: of one camera, in order.
        tail: packets of one run that come after the last recording of that run.
        codec: of the tail.
        gaps: spans of wall time that were not recorded: footage around one is not joined.
    """
    groups: list[list[Recording]] = []
    for recording in recordings:
        if groups and _is_continued(groups[-1][-1], recording, gaps):
            groups[-1].append(recording)
        else:
            groups.append([recording])
    rests = _by_shape(tail, codec)
    found = []
    for group in groups:
        last = group[-1]
        is_joined = group is groups[-1] and bool(rests) and _continues(last, rests[0])
        found.append(Part(group[0].codec, _chain(group, rests.pop(0)[1] if is_joined else ())))
    found += [Part(codec, iter(packets)) for _, packets in rests]
    return found


def between(packets: Iterable[Packet], start_utc_ns: int, end_utc_ns: int) -> Iterator[Packet]:
    """Give the packets from the key frame at or before the start up to the end.

    Holds one group of pictures in memory: which key frame is the one is known at the next.
    """
    group: list[Packet] = []
    is_running = False
    for packet in packets:
        if packet.utc_ns >= end_utc_ns:
            break
        if is_running:
            yield packet
        elif group and packet.utc_ns > start_utc_ns:
            yield from group
            yield packet
            is_running = True
        elif packet.is_key:
            group = [packet]
        elif group:
            group.append(packet)
    if not is_running and group and group[-1].utc_ns >= start_utc_ns:
        yield from group


def write(part: Part, target: Path, work: Path, metadata: dict[str, str]) -> CutPart | None:
    """Write a part as an MP4 that browsers play at once; None if there is nothing in it.

    The muxer writes into `work` (it has to go back to put the index first); what is kept is
    hashed on its way to `target`.

    Raises:
        StorageError, OSError: the disk refuses.
    """
    first = next(part.packets, None)
    if first is None:
        return None
    template = Template(part.codec, first.payload)
    last, shown_ns, hole_ns = first, LEAST_END_NS, 0
    try:
        muxer = Muxer(str(work), template, first, MOVFLAGS)
        try:
            muxer.metadata(metadata)
            muxer.add(first)
            for packet in part.packets:
                if not muxer.add(packet):
                    continue
                step_ns, last = packet.utc_ns - last.utc_ns, packet
                if step_ns > HOLE_NS:
                    hole_ns += step_ns
                else:
                    shown_ns = max(LEAST_END_NS, step_ns)
        finally:
            muxer.close()
        with atomic(target) as stream:
            found = copy_hashed(work, stream)
    finally:
        template.close()
        work.unlink(missing_ok=True)
    return CutPart(found, first.utc_ns, last.utc_ns + shown_ns, hole_ns, muxer.packets)


_Stretch: TypeAlias = tuple[bytes, tuple[Packet, ...]]  # parameter sets, packets


def _is_continued(before: Recording, after: Recording, gaps: Sequence[tuple[int, int]]) -> bool:
    if (before.run, before.codec, before.shape) != (after.run, after.codec, after.shape):
        return False
    if (after.first_dts - before.last_dts) * after.time_base * NS_PER_S > HOLE_NS:
        return False
    earliest, latest = before.end_utc_ns - TOLERANCE_NS, after.start_utc_ns + TOLERANCE_NS
    return not any(earliest <= begin and end <= latest for begin, end in gaps)


def _by_shape(tail: Sequence[Packet], codec: str) -> list[_Stretch]:
    found: list[tuple[bytes, list[Packet]]] = []
    for packet in tail:
        shape = parameter_sets(codec, packet.payload) if packet.is_key else b""
        if not found or (shape and shape != found[-1][0]):
            found.append((shape, []))
        found[-1][1].append(packet)
    return [(shape, tuple(packets)) for shape, packets in found]


def _continues(before: Recording, rest: _Stretch) -> bool:
    shape, packets = rest
    return packets[0].run == before.run and shape in (b"", before.shape)


def _chain(group: Iterable[Recording], tail: Iterable[Packet]) -> Iterator[Packet]:
    for recording in group:
        yield from packets_of(recording)
    yield from tail
