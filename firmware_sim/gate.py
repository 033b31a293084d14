"""A gate between an MQTT client and its broker: bad weather, lost answers, and a stop at any step.

A TCP proxy that understands where an MQTT packet ends and what topic it is for. What goes wrong is
set in `weather` while it runs. Loss is what TCP makes of it: a segment that comes late, and all
behind it with it. A partition holds every byte and every new connection; nobody is told.
"""

import asyncio
import contextlib
import random
import re
import ssl
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

HOST = "127.0.0.1"
SEGMENT_BYTES = 1448
MOST_SEGMENTS = 45  # on their way in one direction, 64 KiB; more makes the sender wait
RETRANSMIT_S = 0.2  # the least that a lost segment costs
HOLD_S = 10.0  # the longest that a packet waits at a mark
PUBLISH, PUBACK = 3, 4
QOS_BITS = 0x06
MOST_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Weather:
    """What the way does to what goes over it; the defaults are a good day."""

    delay_s: float = 0.0  # one way
    loss_frac: float = 0.0  # of segments
    rate_bytes_per_s: float = 0.0  # 0: no limit
    is_up_blocked: bool = False  # from the client to the broker
    is_down_blocked: bool = False
    is_refusing: bool = False  # connections are reset at once
    answer_code: int = 0  # PUBACK for every PUBLISH of the client, which goes no further
    has_acks: bool = True  # whether PUBACKs reach the client


@dataclass(slots=True)
class Mark:
    """A step on the wire: the packet of a topic waits here until it is let go."""

    topic: re.Pattern[str]
    reached: threading.Event
    released: threading.Event


class Gate:
    """Listens on a port of its own and hands on to the broker's; runs in a thread."""

    def __init__(self, target_port: int, seed: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.weather = Weather()
        self.bytes_up = 0
        self.bytes_down = 0
        self._target_port = target_port
        self._tls = tls
        self._dice = random.Random(seed)
        self._mark: Mark | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def start(self) -> "Gate":
        """Listen; the port is known when this returns."""
        self._thread.start()
        if not self._ready.wait(10.0):
            raise RuntimeError("the gate did not open")
        return self

    def set(self, **changes: Any) -> None:
        """Change the weather: what is not named becomes good."""
        self.weather = replace(Weather(), **changes)
        self._loop.call_soon_threadsafe(self._wake)

    def cut(self) -> None:
        """Reset every connection."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def stop_at(self, topic: str) -> Mark:
        """Hold the next packet whose topic fits the expression, either way."""
        self._mark = Mark(re.compile(topic), threading.Event(), threading.Event())
        return self._mark

    def let_go(self) -> None:
        """Take the mark away."""
        mark, self._mark = self._mark, None
        if mark is not None:
            mark.released.set()

    def close(self) -> None:
        """Stop listening and drop everything; a second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, HOST, self.port, ssl=self._tls)
        )
        self.port = int(server.sockets[0].getsockname()[1])
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._abort_all()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _abort_all(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.weather.is_refusing:
                return
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._join(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open(is_up=True)
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        self._writers.add(far_writer)
        up, down = _Way(far_writer), _Way(writer)
        try:
            await _first_to_end(
                self._read(reader, up, down, is_up=True),
                self._read(far_reader, down, up, is_up=False),
                self._write(up, is_up=True),
                self._write(down, is_up=False),
            )
        finally:
            self._writers.discard(far_writer)
            far_writer.transport.abort()

    async def _read(
        self, reader: asyncio.StreamReader, way: "_Way", back: "_Way", *, is_up: bool
    ) -> None:
        packets = Packets()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                for packet in packets.feed(data):
                    await self._pass_mark(packet)
                    if await self._goes_on(packet, back, is_up=is_up):
                        for at in range(0, len(packet), SEGMENT_BYTES):
                            await way.put(packet[at : at + SEGMENT_BYTES], self._late_s())
        await self._open(is_up=is_up)  # the far side learns of the end only when the way is open

    async def _open(self, *, is_up: bool) -> None:
        while self.weather.is_up_blocked if is_up else self.weather.is_down_blocked:
            await self._changed.wait()

    async def _write(self, way: "_Way", *, is_up: bool) -> None:
        while True:
            due_s, data = await way.take()
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._open(is_up=is_up)
            if self.weather.rate_bytes_per_s:
                await asyncio.sleep(len(data) / self.weather.rate_bytes_per_s)
            way.writer.write(data)
            await way.writer.drain()
            if is_up:
                self.bytes_up += len(data)
            else:
                self.bytes_down += len(data)

    def _late_s(self) -> float:
        weather = self.weather
        is_lost = weather.loss_frac and self._dice.random() < weather.loss_frac
        return weather.delay_s + (max(RETRANSMIT_S, 3 * weather.delay_s) if is_lost else 0.0)

    async def _goes_on(self, packet: bytes, back: "_Way", *, is_up: bool) -> bool:
        kind, code = packet[0] >> 4, self.weather.answer_code
        if not is_up:
            return kind != PUBACK or self.weather.has_acks
        if not code or kind != PUBLISH or not packet[0] & QOS_BITS:
            return True
        at = _body_at(packet)
        at += 2 + int.from_bytes(packet[at : at + 2], "big")
        await back.put(bytes([PUBACK << 4, 3]) + packet[at : at + 2] + bytes([code]), 0.0)
        return False

    async def _pass_mark(self, packet: bytes) -> None:
        mark = self._mark
        if mark is None or packet[0] >> 4 != PUBLISH or not mark.topic.search(topic_of(packet)):
            return
        self._mark = None
        mark.reached.set()
        await asyncio.to_thread(mark.released.wait, HOLD_S)


class Packets:
    """Cuts a byte stream into whole MQTT packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the packets that are complete now.

        Raises:
            OSError: the bytes are no MQTT.
        """
        self._buffer += data
        while (size := _packet_bytes(self._buffer)) and size <= len(self._buffer):
            packet = bytes(self._buffer[:size])
            del self._buffer[:size]
            yield packet


class _Way:
    """One direction: what is on its way, and when it arrives."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_SEGMENTS)
        self._last_due_s = 0.0

    async def put(self, data: bytes, late_s: float) -> None:
        self._last_due_s = max(self._last_due_s, time.monotonic() + late_s)
        await self._queue.put((self._last_due_s, data))

    async def take(self) -> tuple[float, bytes]:
        return await self._queue.get()


def topic_of(publish: bytes) -> str:
    """Give the topic of a PUBLISH packet; empty when an alias stands for it."""
    at = _body_at(publish)
    size = int.from_bytes(publish[at : at + 2], "big")
    return publish[at + 2 : at + 2 + size].decode(errors="replace")


def _body_at(packet: bytes) -> int:
    at = 1
    while packet[at] & 0x80:
        at += 1
    return at + 1


def _packet_bytes(buffer: bytearray) -> int:
    """Size of the first packet, or 0 while its length is not there yet."""
    size = 0
    for at in range(1, min(len(buffer), 1 + MOST_LENGTH_BYTES)):
        size |= (buffer[at] & 0x7F) << (7 * (at - 1))
        if not buffer[at] & 0x80:
            return 1 + at + size
    if len(buffer) > MOST_LENGTH_BYTES:
        raise OSError("not MQTT: a length of more than four bytes")
    return 0


async def _first_to_end(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
