"""A camera on USB or in a slot, through Video4Linux.

Cameras that give H.264 are recorded as they come. MJPEG and raw pictures, which browsers do not
play from a file, are coded here, on one thread: at 720 lines and 15 pictures a second that costs
about twenty times what recording does, at 1080 lines forty times.
"""

import contextlib
import errno
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import av
import av.error
from av.video.frame import PictureType
from av.video.stream import VideoStream

from agent.core import log
from agent.core.clock import Clock
from agent.core.config import Doc, Range
from agent.core.errors import AgentError, SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from drivers import _demux
from drivers._opening import Opened, Opening

STABLE: Final = Path("/dev/v4l/by-id")
KEY_EVERY_S: Final = 2
QUEUE_PACKETS: Final = 64
POLL_S: Final = 0.25
JOIN_S: Final = 1.5
_INPUTS: Final = {"mjpeg": "mjpeg", "raw": "yuyv422", "h264": "h264"}
_CODER: Final = {"tune": "zerolatency", "bf": "0", "forced-idr": "1"}

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a camera on USB."""

    path: Annotated[
        Path, Doc("Device; /dev/v4l/by-id/… stays the same when the camera is plugged in elsewhere")
    ]
    format: Annotated[
        Literal["mjpeg", "raw", "h264"], Doc("What the camera gives; many do 1080p as mjpeg only")
    ] = "mjpeg"
    width_px: Annotated[int, Doc("Width of the picture"), Range(64, 8192)] = 1280
    height_px: Annotated[int, Doc("Height of the picture"), Range(64, 8192)] = 720
    rate_per_s: Annotated[int, Doc("Pictures a second"), Range(1, 120)] = 15
    kbit_per_s: Annotated[
        int, Doc("Bit rate of what is coded here, in kbit/s"), Range(100, 50_000)
    ] = 2500
    preset: Annotated[
        Literal["veryfast", "ultrafast"],
        Doc("What coding costs here; ultrafast takes half the time and gives a softer picture"),
    ] = "veryfast"
    open_timeout_s: Annotated[float, Doc("Longest wait for the camera"), Range(1, 60)] = 10.0
    stall_s: Annotated[
        float, Doc("Silence after which the camera counts as lost"), Range(1, 60)
    ] = 4.0


Opener: TypeAlias = Callable[[Config], av.container.InputContainer]
"""Opens the device; raises what PyAV raises."""


def build(config: Config, clock: Clock) -> "V4l2Source":
    """Make the source; nothing is opened yet."""
    return V4l2Source(config, clock, open_device)


def open_device(config: Config) -> av.container.InputContainer:
    """Open a real device."""
    options = {
        "input_format": _INPUTS[config.format],
        "video_size": f"{config.width_px}x{config.height_px}",
        "framerate": str(config.rate_per_s),
    }
    return av.open(str(config.path), format="v4l2", options=options)


class V4l2Source:
    """Gives the packets of a local camera."""

    def __init__(self, config: Config, clock: Clock, opener: Opener) -> None:
        self._config = config
        self._clock = clock
        self._opener = opener
        self._lock = threading.Lock()
        self._container: av.container.InputContainer | None = None
        self._info: StreamInfo | None = None
        self._closed = threading.Event()
        if config.path.parent == Path("/dev") and STABLE.is_dir():
            _log.warning("a number may become another camera's", path=config.path, better=STABLE)

    def open(self) -> StreamInfo:
        """See `Source.open`; `close` from another thread ends it."""
        self.close()
        closed = threading.Event()  # a new one: what still ends from before must not come alive
        with self._lock:
            self._closed = closed
        av.logging.set_level(None)
        path = str(self._config.path)
        container = Opening(self._opened, path).wait(closed, self._config.open_timeout_s)
        if isinstance(container, AgentError):
            raise container
        try:
            info = self._describe(self._video(container))
        except AgentError:
            container.close()
            raise
        with self._lock:
            self._container, self._info = container, info
        return info

    def packets(self) -> Iterator[Packet]:
        """See `Source.packets`."""
        with self._lock:
            container, self._container = self._container, None
        info, closed = self._info, self._closed
        if container is None or info is None:
            raise SourceLost(f"{self._config.path}: not open")
        reader = _Reader(container, self._packets_of(container, info), closed)
        reader.start(str(self._config.path))
        try:
            yield from self._watched(reader, closed)
        finally:
            closed.set()
            reader.end()

    def close(self) -> None:
        """See `Source.close`."""
        self._closed.set()
        with self._lock:
            container, self._container = self._container, None
        if container is not None:
            container.close()

    def _opened(self) -> Opened:
        path = self._config.path
        try:
            return self._opener(self._config)
        except (FileNotFoundError, av.error.FileNotFoundError):
            return SourceLost(f"{path}: no such device; is the camera plugged in?")
        except PermissionError:
            return SourceLost(f"{path}: permission denied; allowed: a user in the group video")
        except (av.error.FFmpegError, OSError) as error:
            reason = error.strerror or type(error).__name__
            if error.errno == errno.EBUSY:
                reason = "another program uses it"
            elif error.errno == errno.EINVAL:
                reason = (
                    f"it gives no {self._config.format}; allowed: what `v4l2-ctl -d {path}"
                    " --list-formats-ext` shows"
                )
            return SourceLost(f"{path}: {reason}")

    def _video(self, container: av.container.InputContainer) -> VideoStream:
        if not container.streams.video:
            raise Unsupported(f"{self._config.path}: no video; allowed: a camera")
        return container.streams.video[0]

    def _describe(self, stream: VideoStream) -> StreamInfo:
        if stream.codec_context.name == "h264":
            return _demux.info_of(stream)
        context = stream.codec_context
        return StreamInfo(
            codec="h264",
            width_px=context.width // 2 * 2,
            height_px=context.height // 2 * 2,
            time_base=Fraction(1, 90_000),
            extradata=b"",
            fps_nominal=float(stream.average_rate or self._config.rate_per_s),
        )

    def _packets_of(
        self, container: av.container.InputContainer, info: StreamInfo
    ) -> Iterator[Packet]:
        stream = container.streams.video[0]
        name = str(self._config.path)
        if stream.codec_context.name == "h264":
            yield from _demux.packets_of(container.demux(stream), info, self._clock, name)
            return
        found = _coded(container, stream, info, self._config)
        yield from _demux.packets_of(found, info, self._clock, name)

    def _watched(self, reader: "_Reader", closed: threading.Event) -> Iterator[Packet]:
        silent_s = 0.0
        while not closed.is_set():
            try:
                item = reader.packets.get(timeout=POLL_S)
            except queue.Empty:
                silent_s += POLL_S
                if silent_s >= self._config.stall_s:
                    path = self._config.path
                    raise SourceLost(f"{path}: no picture for {silent_s:.1f} s") from None
                continue
            if isinstance(item, AgentError):
                if closed.is_set():
                    return
                raise item
            silent_s = 0.0
            yield item


class _Reader:
    """Reads the device on its own thread, and closes it there."""

    def __init__(
        self,
        container: av.container.InputContainer,
        found: Iterator[Packet],
        closed: threading.Event,
    ) -> None:
        self.packets: queue.Queue[Packet | AgentError] = queue.Queue(QUEUE_PACKETS)
        self._container = container
        self._found = found
        self._closed = closed
        self._name = ""
        self._thread = threading.Thread(target=self._read, name="v4l2", daemon=True)

    def start(self, name: str) -> None:
        """Begin to read."""
        self._name = name
        self._thread.start()

    def end(self) -> None:
        """Wait a little for the thread."""
        self._thread.join(JOIN_S)

    def _read(self) -> None:
        end: AgentError = SourceLost(f"{self._name}: the camera ended the stream")
        try:
            for packet in self._found:
                if not self._put(packet):
                    break
        except (av.error.FFmpegError, OSError) as error:
            reason = error.strerror or type(error).__name__
            end = SourceLost(f"{self._name}: {reason}; was it unplugged?")
        except AgentError as error:
            end = error
        finally:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.close()
        self._put(end)

    def _put(self, item: Packet | AgentError) -> bool:
        while not self._closed.is_set():
            try:
                self.packets.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False


def _coded(
    container: av.container.InputContainer, stream: VideoStream, info: StreamInfo, config: Config
) -> Iterator[Any]:
    """Decode the camera's pictures and code them as H.264, times as they came."""
    coder = av.CodecContext.create("libx264", "w")
    coder.width, coder.height, coder.pix_fmt = info.width_px, info.height_px, "yuv420p"
    coder.time_base = info.time_base
    coder.framerate = Fraction(config.rate_per_s)
    coder.bit_rate = config.kbit_per_s * 1000
    coder.gop_size = config.rate_per_s * KEY_EVERY_S * 2
    coder.thread_count = 1
    coder.options = {**_CODER, "preset": config.preset}
    last_pts = -1
    key_pts: int | None = None
    for frame in container.decode(stream):
        picture = frame.reformat(info.width_px, info.height_px, "yuv420p")
        if frame.pts is not None and frame.time_base is not None:
            pts = round(frame.pts * frame.time_base / info.time_base)
        else:
            pts = last_pts + round(1 / (config.rate_per_s * info.time_base))
        last_pts = max(pts, last_pts + 1)
        picture.pts, picture.time_base = last_pts, info.time_base
        # By time, not by count: in the dark many cameras give a third of their pictures.
        is_due = key_pts is None or (last_pts - key_pts) * info.time_base >= KEY_EVERY_S
        picture.pict_type = PictureType.I if is_due else PictureType.NONE
        for packet in coder.encode(picture):
            packet.time_base = info.time_base
            if packet.is_keyframe:
                key_pts = packet.pts
            yield packet
