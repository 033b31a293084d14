"""From a PyAV demuxer to our packets: missing times filled in, libav's errors translated."""

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TypeAlias

import av
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream

from agent.core.clock import Clock
from agent.core.errors import Unsupported
from agent.core.model import Packet, StreamInfo

NS_PER_US = 1000
DEFAULT_FPS = 25
CODECS = ("h264", "hevc")
_AvPacket: TypeAlias = "av.Packet[VideoStream]"
_PRFT = struct.Struct("<qi")  # AVProducerReferenceTime: wall clock in us, flags


def video_of(container: av.container.InputContainer, name: str) -> VideoStream:
    """Give the first video stream.

    Raises:
        Unsupported: there is none, or of a codec that we cannot keep.
    """
    if not container.streams.video:
        raise Unsupported(f"{name}: no video stream; allowed: a stream with video")
    stream = container.streams.video[0]
    codec = stream.codec_context.name
    if codec not in CODECS:
        raise Unsupported(f"{name}: codec {codec}; allowed: {', '.join(CODECS)}")
    return stream


def info_of(stream: VideoStream) -> StreamInfo:
    """Describe an open stream; parameter sets are given as Annex B or, in band, not at all."""
    context = stream.codec_context
    extradata = bytes(context.extradata or b"")
    return StreamInfo(
        codec=context.name,
        width_px=context.width,
        height_px=context.height,
        time_base=stream.time_base or Fraction(1, 90_000),
        extradata=b"" if _is_length_prefixed(extradata) else extradata,
        fps_nominal=float(stream.average_rate) if stream.average_rate else None,
    )


def annex_b(found: "Iterable[_AvPacket]", stream: VideoStream) -> Iterator[_AvPacket]:
    """Turn a container's length-prefixed packets into Annex B with parameter sets in band."""
    if not _is_length_prefixed(bytes(stream.codec_context.extradata or b"")):
        yield from found
        return
    convert = BitStreamFilterContext(f"{stream.codec_context.name}_mp4toannexb", stream)
    for packet in found:
        if packet.size:
            yield from convert.filter(packet)


def packets_of(
    found: "Iterable[_AvPacket]", info: StreamInfo, clock: Clock, *, is_live: bool
) -> Iterator[Packet]:
    """Translate demuxed packets, from the first key frame on.

    A live stream's first packet comes without times: it is held until the next one shows
    where it belongs. A flush packet (no bytes) ends the stream.
    """
    held: _AvPacket | None = None
    has_key = False
    for packet in found:
        if packet.size == 0:
            break
        if not has_key and not packet.is_keyframe:
            continue
        has_key = True
        if packet.dts is None or packet.pts is None:
            if held is None and is_live:
                held = packet
            continue
        if held is not None:
            early = packet.dts - _step(held, packet, info)
            yield _translate(held, early, early, info, clock)
            held = None
        yield _translate(packet, packet.pts, packet.dts, info, clock)


def _is_length_prefixed(extradata: bytes) -> bool:
    return extradata[:1] == b"\x01"  # avcC and hvcC begin with their version


def _step(held: _AvPacket, following: _AvPacket, info: StreamInfo) -> int:
    for packet in (held, following):
        if packet.duration:
            return int(packet.duration)
    return max(1, round(1 / (Fraction(info.fps_nominal or DEFAULT_FPS) * info.time_base)))


def _translate(packet: _AvPacket, pts: int, dts: int, info: StreamInfo, clock: Clock) -> Packet:
    return Packet(
        run="",
        pts=pts,
        dts=dts,
        time_base=packet.time_base or info.time_base,
        is_key=packet.is_keyframe,
        is_corrupt=packet.is_corrupt,
        arrival_mono_ns=clock.mono_ns(),
        utc_ns=clock.utc_ns(),
        camera_utc_ns=_camera_utc_ns(packet),
        payload=bytes(packet),
    )


def _camera_utc_ns(packet: _AvPacket) -> int | None:
    for side in packet.iter_sidedata():
        if side.data_type == "prft":
            wall_us, _flags = _PRFT.unpack(bytes(side)[: _PRFT.size])
            return int(wall_us) * NS_PER_US
    return None
