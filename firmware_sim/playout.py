"""A video file as an endless live stream: access units when they are due, times that only rise."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av

from firmware_sim.rtp import CLOCK_HZ


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded picture: NAL units without start codes, time in seconds of the stream."""

    time_s: float
    is_key: bool
    nals: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole file in memory."""

    units: tuple[AccessUnit, ...]
    parameter_sets: tuple[bytes, ...]  # SPS and PPS
    length_s: float
    frames_per_s: float


def read(path: Path) -> Recording:
    """Read an H.264 MP4 without B-frames.

    Raises:
        ValueError: it holds something else.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError(f"{path}: no video")
        stream = container.streams.video[0]
        if stream.codec_context.name != "h264":
            raise ValueError(f"{path}: codec {stream.codec_context.name}; allowed: h264")
        extradata = bytes(stream.codec_context.extradata or b"")
        rate = float(stream.average_rate or 25)
        units = []
        for packet in container.demux(stream):
            if packet.size == 0 or packet.pts is None or packet.time_base is None:
                continue
            if packet.pts != packet.dts:
                raise ValueError(f"{path}: B-frames; allowed: pictures in the order they are shown")
            time_s = float(packet.pts * packet.time_base)
            units.append(AccessUnit(time_s, packet.is_keyframe, _split(bytes(packet))))
    if not units or not units[0].is_key:
        raise ValueError(f"{path}: does not begin with a key frame")
    first_s = units[0].time_s
    shifted = tuple(AccessUnit(unit.time_s - first_s, unit.is_key, unit.nals) for unit in units)
    return Recording(shifted, _parameter_sets(extradata), shifted[-1].time_s + 1 / rate, rate)


class Playout:
    """Plays a recording for ever and tells every listener each unit when it is due."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.gop: list[AccessUnit] = []
        self.listeners: set[Callable[[AccessUnit], None]] = set()
        self._begun_s = time.monotonic()

    def now_ticks(self) -> int:
        """Give RTP time of this instant."""
        return round((time.monotonic() - self._begun_s) * CLOCK_HZ)

    async def play(self) -> None:
        """Run until cancelled."""
        loop_number = 0
        while True:
            for unit in self.recording.units:
                time_s = unit.time_s + loop_number * self.recording.length_s
                wait_s = self._begun_s + time_s - time.monotonic()
                await asyncio.sleep(max(0.0, wait_s))
                self._tell(AccessUnit(time_s, unit.is_key, unit.nals))
            loop_number += 1

    def _tell(self, unit: AccessUnit) -> None:
        if unit.is_key:
            self.gop.clear()
        self.gop.append(unit)
        for listener in tuple(self.listeners):
            listener(unit)


def _split(packet: bytes) -> tuple[bytes, ...]:
    nals, at = [], 0
    while at + 4 <= len(packet):
        size = int.from_bytes(packet[at : at + 4], "big")
        nals.append(packet[at + 4 : at + 4 + size])
        at += 4 + size
    return tuple(nal for nal in nals if nal)


def _parameter_sets(avcc: bytes) -> tuple[bytes, ...]:
    sets, at = [], 6
    for count in (avcc[5] & 0x1F, None):
        number = count
        if number is None:
            number, at = avcc[at], at + 1
        for _ in range(number):
            size = int.from_bytes(avcc[at : at + 2], "big")
            sets.append(avcc[at + 2 : at + 2 + size])
            at += 2 + size
    return tuple(sets)
