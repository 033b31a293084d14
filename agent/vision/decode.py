"""Packets into pictures: one thread, no picture converted before somebody asks for it.

The side data of a picture is never touched: in PyAV 18 that makes a reference cycle that keeps
pictures alive until the cyclic collector runs. The deblocking filter is left out except for cameras
of which only key frames are decoded: a tenth to a sixth less work, and the detector sees as well
(average precision on the plaza in five encodings: 0.65 both ways); what the pictures lose until the
next key frame is 36 to 50 dB below them.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol, cast

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from agent.core import log
from agent.core.errors import SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo

LUMA_WIDTH_PX: Final = 320
LUMA_HEIGHT_PX: Final = 180
JPEG_QUALITY: Final = 85

_MAX_IN_FLIGHT: Final = 64  # packets whose picture has not come out yet
MAX_PIXELS: Final = 40_000_000  # 8K has 33 million; what claims more would take the memory of all
_MAX_BAD_PACKETS: Final = 30  # in a row: another codec or no key frame; a reconnect gives a new SDP
_JUMP_US: Final = 10_000_000  # more than that between two packets is a jump, not a slow camera
_TICK_US: Final = 1_000

_log = log.get(__name__)

Image = NDArray[np.uint8]


Veil = Callable[[VideoFrame], VideoFrame]
"""Gives a copy of a picture in which something is covered."""


class Source(Protocol):
    """A camera or file, as the drivers give it (structural: no driver is imported)."""

    def open(self) -> StreamInfo:
        """Connect; SourceLost, AuthRefused or Unsupported."""
        ...

    def packets(self) -> Iterator[Packet]:
        """Give packets in decode order, from a key frame on."""
        ...

    def close(self) -> None:
        """Idempotent; from any thread."""
        ...


class Times(NamedTuple):
    """When a picture was: stream time, arrival, and by the camera's own clock if it tells."""

    t_us: int
    utc_ns: int
    camera_utc_ns: int | None


class Frame:
    """One decoded picture with its times; owned by whoever holds it, converted on demand.

    `index` counts decoded pictures of the session from 1, `t_us` is stream time, `utc_ns` the
    arrival of its packet, `camera_utc_ns` the camera's own time of it where it sends one. `luma`
    belongs to the thread that decodes until it was made once, `rgb` to the one that detects:
    each has a scaler of its own.
    """

    __slots__ = (
        "_luma",
        "_picture",
        "_scalers",
        "camera_utc_ns",
        "height_px",
        "index",
        "is_corrupt",
        "t_us",
        "utc_ns",
        "width_px",
    )

    def __init__(self, picture: VideoFrame, scalers: "Scalers", index: int, times: "Times") -> None:
        self._picture = picture
        self._scalers = scalers
        self._luma: Image | None = None
        self.index = index
        self.t_us, self.utc_ns, self.camera_utc_ns = times
        self.is_corrupt = picture.is_corrupt
        self.width_px = picture.width
        self.height_px = picture.height

    def luma(self) -> Image:
        """Give the small brightness plane for motion, 180x320; made at the first call."""
        if self._luma is None:
            small = self._scalers.luma.reformat(
                self._picture, LUMA_WIDTH_PX, LUMA_HEIGHT_PX, "gray", threads=1
            )
            self._luma = _array(small, "gray")
        return self._luma

    def rgb(self, width_px: int, height_px: int) -> Image:
        """Give the picture at another size, height x width x 3.

        Scaled as it was coded and coloured afterwards, which takes half as long as both in one.
        """
        is_same = (width_px, height_px) == (self.width_px, self.height_px)
        if is_same or width_px % 2 or height_px % 2:  # coded colours come in pairs
            scaled = self._scalers.rgb.reformat(
                self._picture, width_px, height_px, "rgb24", threads=1
            )
            return _array(scaled, "rgb24")
        scaled = self._scalers.rgb.reformat(
            self._picture,
            width_px,
            height_px,
            "yuv420p",
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        coloured = cv2.cvtColor(_array(scaled, "yuv420p"), cv2.COLOR_YUV2RGB_I420)
        return coloured.astype(np.uint8, copy=False)

    def hide(self, veil: Veil) -> None:
        """Cover parts of the picture for everybody; before anybody looks at it."""
        self._picture = veil(self._picture)
        self._luma = None

    def jpeg(self, veil: Veil | None = None) -> bytes:
        """Give the whole picture as JPEG, nothing drawn on it but the veil."""
        picture = self._picture if veil is None else veil(self._picture)
        whole = VideoReformatter().reformat(picture, format="bgr24", threads=1)
        is_done, coded = cv2.imencode(
            ".jpg", _array(whole, "bgr24"), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        if not is_done:
            raise Unsupported(f"{self.width_px}x{self.height_px} picture cannot be JPEG")
        return coded.tobytes()


class Scalers:
    """One swscale context a purpose: sharing one would rebuild it at every change of size."""

    __slots__ = ("luma", "rgb")

    def __init__(self) -> None:
        self.luma = VideoReformatter()
        self.rgb = VideoReformatter()


class StreamTime:
    """Stream time over the sessions of a source: never goes back, whatever its pts do.

    Within the first session it is the pts itself. After a reconnect or a jump of the pts it goes
    on by the time that passed between the arrivals.
    """

    def __init__(self) -> None:
        self._offset_us = 0
        self._last: tuple[int, int] | None = None  # dts_us, arrival_us
        self._run: str | None = None

    def of(self, packet: Packet) -> int:
        """Give the stream time of a packet's picture, microseconds; call in decode order."""
        dts_us = int(packet.dts * packet.time_base * 1_000_000)
        arrival_us = packet.arrival_mono_ns // 1000
        if self._last is not None:
            step_us, passed_us = dts_us - self._last[0], arrival_us - self._last[1]
            is_jump = step_us <= 0 or step_us - passed_us > _JUMP_US
            if is_jump or packet.run != self._run:
                self._offset_us += max(passed_us, _TICK_US) - step_us
        self._last, self._run = (dts_us, arrival_us), packet.run
        return packet.pts_us + self._offset_us

    def restart(self) -> None:
        """Take the next packet as the first of a new session."""
        self._run = None


class Decoder:
    """Decodes one session of a source, in the thread that reads it.

    Args:
        info: what the source said of its stream.
        times: stream time, shared by the sessions of a source.
        key_frames_only: decode key frames and pass over the rest: a tenth of the work, for
            cameras that have no small stream.
    """

    def __init__(
        self, info: StreamInfo, times: StreamTime | None = None, *, key_frames_only: bool = False
    ) -> None:
        self._info = info
        self._times = times or StreamTime()
        self._key_frames_only = key_frames_only
        self._scalers = Scalers()
        self._context: VideoCodecContext | None = None
        self._in_flight: OrderedDict[int, Times] = OrderedDict()
        self._count = 0
        self._bad_in_a_row = 0

    def decode(self, packet: Packet) -> list[Frame]:
        """Give the pictures that this packet completes, mostly one.

        Raises:
            Unsupported: the codec is none that we decode.
            SourceLost: nothing decodes any more; a new session may help.
        """
        t_us = self._times.of(packet)
        if self._key_frames_only and not packet.is_key:
            return []
        coded = av.Packet(packet.payload)
        coded.pts, coded.dts, coded.time_base = packet.pts, packet.dts, packet.time_base
        self._in_flight[packet.pts] = Times(t_us, packet.utc_ns, packet.camera_utc_ns)
        while len(self._in_flight) > _MAX_IN_FLIGHT:
            self._in_flight.popitem(last=False)
        return self._pictures(coded)

    def flush(self) -> list[Frame]:
        """Give the pictures still held back, at the end of a session."""
        return self._pictures(None) if self._context is not None else []

    def _pictures(self, coded: "av.Packet[Any] | None") -> list[Frame]:
        context = self._context or self._open()
        try:
            pictures = context.decode(coded)
        except FFmpegError as error:
            self._count_bad(error)
            return []
        self._bad_in_a_row = 0
        return [frame for picture in pictures if (frame := self._frame(picture)) is not None]

    def _frame(self, picture: VideoFrame) -> Frame | None:
        times = None if picture.pts is None else self._in_flight.pop(picture.pts, None)
        if times is None:
            return None  # of a packet that was lost long ago: its time is not known
        self._count += 1
        return Frame(picture, self._scalers, self._count, times)

    def _count_bad(self, error: FFmpegError) -> None:
        self._bad_in_a_row += 1
        if self._bad_in_a_row >= _MAX_BAD_PACKETS:
            raise SourceLost(
                f"{self._bad_in_a_row} packets in a row are no {self._info.codec}: {error.strerror}"
            ) from error

    def _open(self) -> VideoCodecContext:
        try:
            context = cast("VideoCodecContext", av.CodecContext.create(self._info.codec, "r"))
        except (ValueError, FFmpegError) as error:
            raise Unsupported(f"codec {self._info.codec!r}; allowed: h264, hevc, …") from error
        context.thread_count = 1
        context.extradata = self._info.extradata or None
        context.options = {"max_pixels": str(MAX_PIXELS)}
        if self._key_frames_only:
            context.skip_frame = "NONKEY"
            context.flags |= Flags.low_delay
        else:
            context.options = {**context.options, "skip_loop_filter": "all"}
        self._context = context
        return context


def _array(picture: VideoFrame, layout: str) -> Image:
    return picture.to_ndarray(format=layout).astype(np.uint8, copy=False)
