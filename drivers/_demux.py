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
MOST_HELD = 32  # H.264 and H.265 reorder at most 16 pictures
START_CODE = b"\x00\x00\x01"
HEAD_BYTES = 4096  # parameter sets stand at the front of a key frame
H264_SPS, HEVC_SPS = 7, 33
LAST_HEVC_PICTURE = 21  # of the types that H.265 gives to coded pictures
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
        sound=_sound(stream),
    )


def _sound(stream: VideoStream) -> str:
    found = stream.container.streams.audio
    return getattr(found[0].codec_context, "name", "unknown") if found else ""


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
    found: "Iterable[_AvPacket]", info: StreamInfo, clock: Clock, name: str
) -> Iterator[Packet]:
    """Translate demuxed packets, from the first key frame on.

    A live stream's first packets come without times, as many as libav thinks that pictures may
    be reordered: they are held until one shows where they belong. A flush packet (no bytes)
    ends the stream.

    Raises:
        Unsupported: the stream carries no times.
    """
    held: list[_AvPacket] = []
    has_key = False
    for packet in found:
        if packet.size == 0:
            break
        if not has_key and not packet.is_keyframe:
            continue
        has_key = True
        if packet.dts is None or packet.pts is None:
            held.append(packet)
            if len(held) > MOST_HELD:
                raise Unsupported(
                    f"{name}: {info.codec} stream without times; allowed: pts and dts"
                )
            continue
        if held:
            yield from _timed(held, packet, info, clock)
            held = []
        yield _translate(packet, packet.pts, packet.dts, info, clock)


def _is_length_prefixed(extradata: bytes) -> bool:
    return extradata[:1] == b"\x01"  # avcC and hvcC begin with their version


def _timed(
    held: list[_AvPacket], following: _AvPacket, info: StreamInfo, clock: Clock
) -> Iterator[Packet]:
    """Give held packets the times that lead up to the one that follows them."""
    step = _step([*held, following], info)
    known = [packet.pts for packet in (*held, following) if packet.pts is not None]
    first_pts = min(known) - step
    is_shown_as_coded = following.pts == following.dts and known == sorted(set(known))
    for place, packet in enumerate(held):
        pts = first_pts if packet.pts is None else packet.pts
        dts = (following.dts or 0) - (len(held) - place) * step
        if is_shown_as_coded and (place == 0 or packet.pts is not None):
            dts = pts
        yield _translate(packet, max(pts, dts), dts, info, clock)


def _step(packets: list[_AvPacket], info: StreamInfo) -> int:
    for packet in packets:
        if packet.duration:
            return int(packet.duration)
    return max(1, round(1 / (Fraction(info.fps_nominal or DEFAULT_FPS) * info.time_base)))


def _translate(packet: _AvPacket, pts: int, dts: int, info: StreamInfo, clock: Clock) -> Packet:
    payload = bytes(packet)
    if packet.is_keyframe and not _has_parameter_sets(info.codec, payload):
        payload = info.extradata + payload  # a camera may send them in its SDP alone
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
        payload=payload,
    )


def _has_parameter_sets(codec: str, payload: bytes) -> bool:
    heads = (nal[0] for nal in payload[:HEAD_BYTES].split(START_CODE)[1:] if nal)
    if codec == "h264":
        return any(head & 0x1F == H264_SPS for head in heads)
    return any(head >> 1 & 0x3F == HEVC_SPS for head in heads)


def is_of_other_codec(codec: str, payload: bytes) -> bool:
    """Whether a packet (Annex B) shows no coded picture of the codec that it should be of."""
    heads = (nal[0] for nal in payload[:HEAD_BYTES].split(START_CODE)[1:] if nal)
    if codec == "h264":
        return not any(head & 0x9F in (1, 5) for head in heads)
    return not any(head >> 7 == 0 and head >> 1 & 0x3F <= LAST_HEVC_PICTURE for head in heads)


def _camera_utc_ns(packet: _AvPacket) -> int | None:
    for side in packet.iter_sidedata():
        if side.data_type == "prft":
            wall_us, _flags = _PRFT.unpack(bytes(side)[: _PRFT.size])
            return int(wall_us) * NS_PER_US
    return None
