"""Packets into MP4 and back, without decoding."""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import av
import av.error
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from agent.core.errors import StorageError, Unsupported
from agent.core.model import Packet

_AvPacket: TypeAlias = "av.Packet[Any]"

_UNDECODED = {"skip_frame": "all"}  # opening a file would decode its first picture, 28 ms at 1080p
FRAGMENT_S = 5  # longest piece of a growing file, should key frames stay away
_LENGTH_BYTES = 4
_START_CODE = b"\x00\x00\x01"
_HEAD_BYTES = 64  # a start code stands within them
_SETS_BYTES = 4096  # parameter sets stand at the front of a key frame
_H264_SPS, _H264_PPS = 7, 8
_HEVC_VPS, _HEVC_PPS = 32, 34


class Template:
    """What a muxer must know of a stream, read from one of its key frames.

    Raises:
        Unsupported: the key frame tells no size of a picture.
    """

    def __init__(self, codec: str, key_payload: bytes) -> None:
        self.parameter_sets = parameter_sets(codec, key_payload)
        told = f"key frame of {len(key_payload)} bytes is no {codec} with parameter sets"
        try:
            self._container = _open_raw(key_payload, codec)
        except av.error.FFmpegError as error:
            raise Unsupported(told) from error
        streams = self._container.streams.video
        if not streams or streams[0].codec_context.width <= 0:
            self._container.close()
            raise Unsupported(told)
        self.stream: VideoStream = streams[0]
        self.width_px = self.stream.codec_context.width
        self.height_px = self.stream.codec_context.height
        self.codec = codec

    def close(self) -> None:
        """Let go of the demuxer."""
        self._container.close()


class Muxer:
    """Writes packets of one run into an MP4 that begins at time 0.

    Raises, from every method:
        StorageError, OSError: the disk refuses.
    """

    def __init__(self, target: Any, template: Template, first: Packet, movflags: str) -> None:
        options = {"movflags": movflags, "flush_packets": "1"}
        if "frag" in movflags:
            options["frag_duration"] = str(FRAGMENT_S * 1_000_000)
        with _refusals():
            self._container: OutputContainer = av.open(target, "w", format="mp4", options=options)
            self._stream = self._container.add_stream_from_template(template.stream)
        self._stream.time_base = first.time_base
        if template.codec == "hevc":
            self._stream.codec_context.codec_tag = "hvc1"  # what players other than FFmpeg expect
        self._first_dts = first.dts
        self._last_dts: int | None = None
        self.packets = 0
        self.skipped = 0

    def metadata(self, values: dict[str, str]) -> None:
        """Set texts of the file's head; before the first packet."""
        self._container.metadata.update(values)

    def add(self, packet: Packet) -> bool:
        """Write a packet; one that the container cannot take is counted and left out."""
        is_late = self._last_dts is not None and packet.dts <= self._last_dts
        if is_late or packet.payload.find(_START_CODE, 0, _HEAD_BYTES) < 0:
            self.skipped += 1
            return False
        coded = av.Packet(packet.payload)
        coded.dts = packet.dts - self._first_dts
        coded.pts = max(packet.pts - self._first_dts, coded.dts)
        coded.time_base = packet.time_base
        coded.is_keyframe = packet.is_key
        coded.stream = self._stream
        with _refusals():
            try:
                self._container.mux(coded)
            except av.error.ArgumentError:
                self.skipped += 1
                return False
        self._last_dts = packet.dts
        self.packets += 1
        return True

    def close(self) -> None:
        """Write the end of the file."""
        with _refusals():
            self._container.close()


class GopFile:
    """A file for the muxer that takes what it is given to the disk in one write a flush.

    When a file is finished its head is written over. Before that happens all the rest is on the
    disk: a head that speaks of an index which a power cut took away would make the whole file
    unreadable.
    """

    def __init__(self, stream: BinaryIO, sync: Callable[[], object] = lambda: None) -> None:
        self._stream = stream
        self._sync = sync
        self._pending = bytearray()

    @property
    def pending_bytes(self) -> int:
        """How much a flush would write."""
        return len(self._pending)

    def write(self, data: bytes) -> int:
        """Take bytes into memory."""
        self._pending += data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; what was pending goes to where it belongs first, and is synced."""
        self.flush()
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Give the place of the next byte."""
        return self._stream.tell() + len(self._pending)

    def forget(self) -> None:
        """Take what still comes to nowhere: the disk has refused, the muxer wants to finish."""
        self._stream = io.BytesIO()
        self._sync = lambda: None
        self._pending.clear()

    def flush(self) -> None:
        """Write and sync what is pending."""
        if not self._pending:
            return
        pending, self._pending = self._pending, bytearray()
        left = memoryview(pending)
        while left:  # a disk that is nearly full takes a part
            left = left[self._stream.write(left) :]
        self._sync()


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except av.error.FFmpegError as error:
        raise StorageError(f"MP4 not written: {error.strerror}") from error


def _open_raw(payload: bytes, codec: str) -> InputContainer:
    return av.open(io.BytesIO(payload), "r", format=codec, options=_UNDECODED)


def demux(path: Path) -> Iterator[_AvPacket]:
    """Give the packets of a file as Annex B, as far as it can be read.

    The remains of a killed recorder end in the middle of a packet, and those of a power cut in
    zeros: what is no chain of NAL units any more ends the reading.

    Raises:
        StorageError: nothing of the file can be read.
    """
    try:
        size_bytes = path.stat().st_size
        container = av.open(str(path), options=_UNDECODED)
    except (av.error.FFmpegError, OSError) as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    with container:
        if not container.streams.video:
            raise StorageError(f"{path}: no video stream")
        stream = container.streams.video[0]
        name = f"{stream.codec_context.name}_mp4toannexb"
        try:
            convert = BitStreamFilterContext(name, stream)
            for packet in container.demux(stream):
                is_whole = packet.pos is None or packet.pos + packet.size <= size_bytes
                if packet.size == 0 or packet.dts is None or not is_whole:
                    continue
                if not _is_chain(memoryview(packet)):
                    return
                yield from convert.filter(packet)
        except (av.error.FFmpegError, OSError):
            return  # the damaged tail: what came before it was read


def _is_chain(payload: "bytes | memoryview[int]") -> bool:
    """Whether NAL units with four bytes of length each fill the payload exactly."""
    place = 0
    while place + _LENGTH_BYTES <= len(payload):
        size = int.from_bytes(payload[place : place + _LENGTH_BYTES], "big")
        if size == 0:
            return False
        place += _LENGTH_BYTES + size
    return place == len(payload)


def parameter_sets(codec: str, payload: bytes) -> bytes:
    """Give the parameter sets of an Annex B key frame, to see when the picture's shape changes."""
    found = []
    for nal in filter(None, payload[:_SETS_BYTES].split(_START_CODE)[1:]):
        kind = nal[0] & 0x1F if codec == "h264" else nal[0] >> 1 & 0x3F
        is_wanted = (
            kind in (_H264_SPS, _H264_PPS) if codec == "h264" else _HEVC_VPS <= kind <= _HEVC_PPS
        )
        if is_wanted:
            found.append(nal.rstrip(b"\x00"))
    return _START_CODE.join(found)
