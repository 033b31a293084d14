"""A video file as a camera: for trying things by hand, and for tests."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import av
import av.error

from agent.core.clock import NS_PER_S, Clock
from agent.core.config import Doc, ReadableFile
from agent.core.errors import SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from drivers import _demux


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a video file played as a camera."""

    path: Annotated[Path, Doc("Video file with H.264 or H.265"), ReadableFile()]
    is_looped: Annotated[bool, Doc("Begin again at the end, with times that go on")] = False
    is_realtime: Annotated[bool, Doc("Give packets when they are due instead of at once")] = False


def build(config: Config, clock: Clock) -> "FileSource":
    """Make the source; nothing is opened yet."""
    return FileSource(config, clock)


class FileSource:
    """Gives the packets of a file."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._info: StreamInfo | None = None
        self._closed = threading.Event()

    def open(self) -> StreamInfo:
        """See `Source.open`."""
        self._closed.clear()
        with self._container() as container:
            self._info = _demux.info_of(_demux.video_of(container, str(self._config.path)))
        return self._info

    def packets(self) -> Iterator[Packet]:
        """See `Source.packets`."""
        if self._info is None:
            raise SourceLost(f"{self._config.path}: not open")
        begun_ns = self._clock.mono_ns()
        first_dts: int | None = None
        offset = 0
        while True:
            last = None
            for found in self._once(self._info):
                if first_dts is None:
                    first_dts = found.dts
                packet = replace(found, pts=found.pts + offset, dts=found.dts + offset)
                if not self._wait_for(packet, first_dts, begun_ns):
                    return
                last = packet
                yield replace(
                    packet, arrival_mono_ns=self._clock.mono_ns(), utc_ns=self._clock.utc_ns()
                )
            if last is None or first_dts is None or not self._config.is_looped:
                return
            offset = last.dts + self._step(self._info) - first_dts

    def close(self) -> None:
        """See `Source.close`."""
        self._closed.set()

    def _once(self, info: StreamInfo) -> Iterator[Packet]:
        with self._container() as container:
            stream = _demux.video_of(container, str(self._config.path))
            try:
                found = _demux.annex_b(container.demux(stream), stream)
                yield from _demux.packets_of(found, info, self._clock, str(self._config.path))
            except av.error.FFmpegError as error:
                raise SourceLost(f"{self._config.path}: {error.strerror}") from error

    def _container(self) -> av.container.InputContainer:
        try:
            return av.open(str(self._config.path))
        except av.error.FileNotFoundError as error:
            raise SourceLost(f"{self._config.path}: no such file") from error
        except (av.error.FFmpegError, OSError) as error:
            raise Unsupported(
                f"{self._config.path}: {error.strerror}; allowed: a video file"
            ) from error

    def _wait_for(self, packet: Packet, first_dts: int, begun_ns: int) -> bool:
        if self._config.is_realtime:
            due_s = float((packet.dts - first_dts) * packet.time_base)
            spent_s = (self._clock.mono_ns() - begun_ns) / NS_PER_S
            self._clock.wait(self._closed, due_s - spent_s)
        return not self._closed.is_set()

    def _step(self, info: StreamInfo) -> int:
        fps = info.fps_nominal or _demux.DEFAULT_FPS
        return max(1, round(1 / (fps * float(info.time_base))))
