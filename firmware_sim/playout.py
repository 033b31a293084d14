"""A video file as an endless live stream: access units when they are due, times that only rise."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import av

from firmware_sim.rtp import CLOCK_HZ

CODECS = ("h264", "hevc")


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded picture: NAL units without start codes; times in seconds of the stream."""

    time_s: float  # when it is shown
    due_s: float  # when it is sent: in the order in which pictures are decoded
    is_key: bool
    nals: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole file in memory."""

    codec: str
    units: tuple[AccessUnit, ...]
    parameter_sets: tuple[bytes, ...]  # (VPS,) SPS and PPS
    length_s: float
    frames_per_s: float


def read(path: Path) -> Recording:
    """Read an MP4 with H.264 or H.265, with or without B-frames.

    Raises:
        ValueError: it holds something else.
    """
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError(f"{path}: no video")
        stream = container.streams.video[0]
        codec = stream.codec_context.name
        if codec not in CODECS:
            raise ValueError(f"{path}: codec {codec}; allowed: {', '.join(CODECS)}")
        extradata = bytes(stream.codec_context.extradata or b"")
        rate = float(stream.average_rate or 25)
        units = []
        for packet in container.demux(stream):
            if packet.size == 0 or packet.pts is None or packet.time_base is None:
                continue
            shown, sent = packet.pts * packet.time_base, (packet.dts or 0) * packet.time_base
            unit = AccessUnit(float(shown), float(sent), packet.is_keyframe, _split(bytes(packet)))
            units.append(unit)
    if not units or not units[0].is_key:
        raise ValueError(f"{path}: does not begin with a key frame")
    first = units[0]
    shifted = tuple(
        replace(unit, time_s=unit.time_s - first.time_s, due_s=unit.due_s - first.due_s)
        for unit in units
    )
    sets = _hevc_sets(extradata) if codec == "hevc" else _parameter_sets(extradata)
    return Recording(codec, shifted, sets, shifted[-1].due_s + 1 / rate, rate)


class Playout:
    """Plays a recording for ever and tells every listener each unit when it is due."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.gop: list[AccessUnit] = []
        self.listeners: set[Callable[[AccessUnit], None]] = set()
        self._begun_s = time.monotonic()
        self._next: Recording | None = None

    def now_ticks(self) -> int:
        """Give RTP time of this instant."""
        return round((time.monotonic() - self._begun_s) * CLOCK_HZ)

    def switch(self, recording: Recording) -> None:
        """Play another recording from the next picture on; time goes on."""
        self._next = recording

    async def play(self) -> None:
        """Run until cancelled."""
        start_s = 0.0
        while True:
            played_s = await self._play_once(start_s)
            if self._next is not None:
                self.recording, self._next = self._next, None
            start_s += played_s

    async def _play_once(self, start_s: float) -> float:
        for unit in self.recording.units:
            if self._next is not None:
                return unit.due_s
            wait_s = self._begun_s + start_s + unit.due_s - time.monotonic()
            await asyncio.sleep(max(0.0, wait_s))
            self._tell(replace(unit, time_s=start_s + unit.time_s, due_s=start_s + unit.due_s))
        return self.recording.length_s

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


def _hevc_sets(hvcc: bytes) -> tuple[bytes, ...]:
    """Give VPS, SPS and PPS of an HEVCDecoderConfigurationRecord (ISO 14496-15)."""
    sets, at = [], 23
    for _ in range(hvcc[22]):
        kind, count = hvcc[at] & 0x3F, int.from_bytes(hvcc[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            size = int.from_bytes(hvcc[at : at + 2], "big")
            if kind in (32, 33, 34):
                sets.append(hvcc[at + 2 : at + 2 + size])
            at += 2 + size
    return tuple(sets)
