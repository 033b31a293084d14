"""The one place of the dock that knows PyAV: reading whole files, writing rescued ones."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from agent.core.errors import StorageError, Unsupported

# The format is never guessed: a play list under an MP4's name would have others opened.
_OPTIONS = {"skip_frame": "all", "format_whitelist": "mov", "protocol_whitelist": "file"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A packet of a file: of its first video stream, or of a sound stream."""

    stream: int
    is_video: bool
    place: int  # byte of the file it begins at; -1 unknown
    dts: int
    pts: int
    duration: int
    is_key: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class Sound:
    """What a file says of its sound."""

    codec: str
    rate_hz: int
    channels: int


class Clip:
    """A file that can be opened as it is.

    Raises, from every method:
        StorageError: it cannot be opened, or has no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        try:
            self._container: InputContainer = av.open(
                str(self.path), options=_OPTIONS, metadata_errors="replace"
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise StorageError(f"{self.path}: {error}") from error
        streams: list[Any] = list(self._container.streams)
        known = [one for one in streams if one.codec_context is not None]  # by the decoders here
        videos = [one for one in known if isinstance(one, VideoStream)]
        if not videos:
            self._container.close()
            raise StorageError(f"{self.path}: no video")
        self.video = videos[0]
        self.sounds = [one for one in known if isinstance(one, AudioStream)]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    @property
    def time_base(self) -> Fraction:
        """Seconds a tick of the video stream."""
        return self.video.time_base or Fraction(1, 90000)

    @property
    def told_pictures(self) -> int:
        """How many pictures the index speaks of; 0 unknown."""
        return self.video.frames

    def sound(self) -> Sound | None:
        """Give what is said of the first sound stream."""
        if not self.sounds:
            return None
        one = self.sounds[0].codec_context
        return Sound(one.name, one.sample_rate or 0, one.layout.nb_channels)

    def samples(self, *, with_sound: bool = False) -> Iterator[Sample]:
        """Give what can be read, in the file's order; damage ends it without an error."""
        streams: list[Any] = [self.video, *(self.sounds if with_sound else [])]
        try:
            for packet in self._container.demux(streams):
                if packet.dts is None or packet.size == 0:
                    continue
                yield Sample(
                    packet.stream.index,
                    packet.stream.index == self.video.index,
                    -1 if packet.pos is None else packet.pos,
                    packet.dts,
                    packet.dts if packet.pts is None else packet.pts,
                    packet.duration or 0,
                    packet.is_keyframe,
                    bytes(packet),
                )
        except (av.error.FFmpegError, OSError):
            return


class Writer:
    """Writes packets into an MP4 as they are.

    Raises, from every method:
        StorageError: the disk refuses, or the muxer does.
    """

    def __init__(self, target: Path, metadata: dict[str, str]) -> None:
        self._target = target
        self._metadata = metadata
        self._streams: dict[int, Any] = {}
        self._last_dts: dict[int, int] = {}
        self.refused = 0

    def __enter__(self) -> Self:
        with _refusals():
            self._container: OutputContainer = av.open(
                str(self._target), "w", format="mp4", options={"movflags": "use_metadata_tags"}
            )
        self._container.metadata.update(self._metadata)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            with _refusals():
                self._container.close()
            return
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()

    def add_stream(self, number: int, template: Any) -> None:
        """Declare a stream as another one is; before the first packet."""
        with _refusals():
            made = self._container.add_stream_from_template(template, opaque=True)
        made.time_base = template.time_base
        self._streams[number] = (made, template.time_base)

    def add(self, sample: Sample) -> bool:
        """Write a packet; one whose time does not come after the last is counted, left out."""
        stream, time_base = self._streams[sample.stream]
        last = self._last_dts.get(sample.stream)
        if last is not None and sample.dts <= last:
            self.refused += 1
            return False
        packet = av.Packet(sample.payload)
        packet.dts, packet.pts = sample.dts, max(sample.pts, sample.dts)
        packet.time_base, packet.is_keyframe = time_base, sample.is_key
        if sample.duration > 0:
            packet.duration = sample.duration
        packet.stream = stream
        with _refusals():
            try:
                self._container.mux(packet)
            except av.error.ArgumentError:
                self.refused += 1
                return False
        self._last_dts[sample.stream] = sample.dts
        return True


@contextlib.contextmanager
def template(empty_mp4: bytes) -> Iterator[Any]:
    """Open an MP4 without pictures, for its video stream.

    Raises:
        Unsupported: FFmpeg makes nothing of it.
    """
    try:
        container = av.open(io.BytesIO(empty_mp4), "r", format="mp4", options={"skip_frame": "all"})
    except (av.error.FFmpegError, ValueError) as error:
        raise Unsupported(f"model header: {error}") from error
    with container:
        if not container.streams.video:
            raise Unsupported("model header: tells of no video")
        yield container.streams.video[0]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except av.error.FFmpegError as error:
        raise StorageError(f"MP4 not written: {error.strerror or os.strerror(5)}") from error
