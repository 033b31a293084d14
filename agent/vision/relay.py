"""Key frames of cameras that have no small stream, from the recorder to the analysis process.

The camera is opened once, by the recorder; the analysis gets the newest key frame over its standard
input: four bytes of length, four of the header's, a header in JSON, the payload. Older ones that
nobody took are passed over. The end of the input is the end of the parent.
"""

import json
import queue
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Final

from agent.core.errors import SourceLost
from agent.core.model import Packet, StreamInfo
from agent.vision.ring import Ring

OPEN_S: Final = 20.0
STALL_S: Final = 30.0
POLL_S: Final = 0.25
MAX_BYTES: Final = 64 << 20  # of one message: no key frame of ours comes near it

_SIZES: Final = struct.Struct(">II")
_TIMES: Final = ("pts", "dts", "arrival_mono_ns", "utc_ns", "camera_utc_ns")


@dataclass(frozen=True, slots=True)
class Camera:
    """Where a camera's packets are, and what its stream is once it is open."""

    ring: Ring
    info: Callable[[], StreamInfo | None]


class Relay:
    """The recording side: gives what is new, in bytes; for one thread."""

    def __init__(self, cameras: Mapping[str, Camera]) -> None:
        self._cameras = cameras
        self._given: dict[str, int] = {}

    def take(self) -> bytes:
        """Give the newest key frame of every camera that has a new one."""
        found = []
        for name, camera in self._cameras.items():
            packet, info = camera.ring.newest_key(), camera.info()
            if packet is None or info is None:
                continue
            if self._given.get(name) != packet.arrival_mono_ns:
                self._given[name] = packet.arrival_mono_ns
                found.append(_encode(name, info, packet))
        return b"".join(found)

    def forget(self) -> None:
        """Begin anew: another process listens."""
        self._given.clear()


class Relayed:
    """The analysis side: reads the input on a thread of its own and serves it as sources."""

    def __init__(self, stream: BinaryIO, stop: threading.Event) -> None:
        self._stream = stream
        self._stop = stop
        self._desks: dict[str, queue.Queue[tuple[StreamInfo, Packet]]] = {}
        self._thread = threading.Thread(target=self._read, name="parent", daemon=True)

    def source(self, camera: str) -> "Source":
        """Give the source of a camera; once for each session of its reader."""
        desk = self._desks.setdefault(camera, queue.Queue(1))
        return Source(camera, desk, self._stop)

    def start(self) -> None:
        """Begin to read; `stop` is set at the end of the input."""
        self._thread.start()

    def _read(self) -> None:
        while (sizes := self._stream.read(_SIZES.size)) and len(sizes) == _SIZES.size:
            size, header_size = _SIZES.unpack(sizes)
            if not header_size <= size <= MAX_BYTES:
                break  # no message of ours: nothing after it can be believed
            body = self._stream.read(size)
            if len(body) < size:
                break
            self._hand_out(json.loads(body[:header_size]), body[header_size:])
        self._stop.set()

    def _hand_out(self, header: Mapping[str, Any], payload: bytes) -> None:
        desk = self._desks.get(header["camera"])
        if desk is None:
            return
        while True:
            try:
                desk.put_nowait(_decode(header, payload))
            except queue.Full:
                _discard(desk)
            else:
                return


class Source:
    """Key frames that the recorder hands over, as the reader of a camera takes them."""

    def __init__(
        self,
        camera: str,
        desk: "queue.Queue[tuple[StreamInfo, Packet]]",
        stop: threading.Event,
    ) -> None:
        self._camera = camera
        self._desk = desk
        self._stop = stop
        self._closed = threading.Event()
        self._first: tuple[StreamInfo, Packet] | None = None

    def open(self) -> StreamInfo:
        """Wait for the first key frame; SourceLost if none comes."""
        self._closed.clear()
        self._first = self._next(OPEN_S)
        if self._first is None:
            raise SourceLost(f"camera {self._camera}: the recorder has no key frame of it")
        return self._first[0]

    def packets(self) -> Iterator[Packet]:
        """Give key frames, newest first served; SourceLost when none comes any more."""
        item, self._first = self._first, None
        info = None if item is None else item[0]
        while not self._closed.is_set() and not self._stop.is_set():
            if item is None:
                raise SourceLost(f"camera {self._camera}: no key frame for {STALL_S:g} s")
            if item[0] != info:
                raise SourceLost(f"camera {self._camera}: the stream has changed")
            yield item[1]
            item = self._next(STALL_S)

    def close(self) -> None:
        """Idempotent; from any thread."""
        self._closed.set()

    def _next(self, limit_s: float) -> tuple[StreamInfo, Packet] | None:
        waited_s = 0.0
        while waited_s < limit_s and not self._closed.is_set() and not self._stop.is_set():
            try:
                return self._desk.get(timeout=POLL_S)
            except queue.Empty:
                waited_s += POLL_S
        return None


def _encode(camera: str, info: StreamInfo, packet: Packet) -> bytes:
    header = {
        "camera": camera,
        "codec": info.codec,
        "size": [info.width_px, info.height_px],
        "stream_time_base": [info.time_base.numerator, info.time_base.denominator],
        "extradata": info.extradata.hex(),
        "run": packet.run,
        "time_base": [packet.time_base.numerator, packet.time_base.denominator],
        **{name: getattr(packet, name) for name in _TIMES},
    }
    coded = json.dumps(header, separators=(",", ":")).encode()
    return _SIZES.pack(len(coded) + len(packet.payload), len(coded)) + coded + packet.payload


def _decode(header: Mapping[str, Any], payload: bytes) -> tuple[StreamInfo, Packet]:
    info = StreamInfo(
        codec=header["codec"],
        width_px=header["size"][0],
        height_px=header["size"][1],
        time_base=Fraction(*header["stream_time_base"]),
        extradata=bytes.fromhex(header["extradata"]),
    )
    times = {name: header[name] for name in _TIMES}
    packet = Packet(
        run=header["run"],
        time_base=Fraction(*header["time_base"]),
        is_key=True,
        is_corrupt=False,
        payload=payload,
        **times,
    )
    return info, packet


def _discard(desk: "queue.Queue[tuple[StreamInfo, Packet]]") -> None:
    try:
        desk.get_nowait()
    except queue.Empty:
        return
