"""An RTSP server (RFC 2326) over TCP with Digest login, as a fixed camera speaks it."""

import asyncio
import base64
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from firmware_sim.playout import AccessUnit, Playout
from firmware_sim.rtp import CLOCK_HZ, Packetizer, interleaved

REALM = "camera"
MAX_HEADER_BYTES = 16 * 1024
MAX_BUFFER_BYTES = 4 << 20  # a client that reads slower than that is cut off
REPORT_EVERY_S = 2.0
_METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"
_STATUS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
}
_FIELD = re.compile(r'(\w+)="([^"]*)"')


@dataclass(slots=True)
class Counters:
    """What the control port tells of the server."""

    connections: int = 0
    failed_logins: int = 0
    sessions: int = 0
    packets: int = 0
    slow_readers: int = 0


@dataclass(slots=True)
class Behaviour:
    """What the control port can change while the camera runs."""

    clock_offset_s: float = 0.0
    stalled_until_s: float = 0.0
    is_refusing: bool = False

    @property
    def is_stalled(self) -> bool:
        """Whether connections stay open but nothing is sent."""
        return time.monotonic() < self.stalled_until_s


@dataclass(frozen=True, slots=True)
class Request:
    """One RTSP request."""

    method: str
    path: str
    headers: Mapping[str, str]
    url: str


@dataclass(slots=True)
class Camera:
    """Everything that the connections share."""

    playouts: Mapping[str, Playout]
    user: str
    password: str
    counters: Counters = field(default_factory=Counters)
    behaviour: Behaviour = field(default_factory=Behaviour)
    connections: set["Connection"] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it goes or is dropped."""
        if self.behaviour.is_refusing:
            writer.close()
            return
        self.counters.connections += 1
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        try:
            await connection.run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client went away or talks no RTSP: nobody is left to answer
        finally:
            self.connections.discard(connection)
            connection.drop()

    def drop_all(self) -> int:
        """Close every connection; gives how many there were."""
        found = list(self.connections)
        for connection in found:
            connection.drop()
        return len(found)


class Connection:
    """One client."""

    def __init__(
        self, camera: Camera, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._camera = camera
        self._reader = reader
        self._writer = writer
        self._nonce = secrets.token_hex(16)
        self._session = ""
        self._playout: Playout | None = None
        self._packetizer = Packetizer(secrets.randbits(32), secrets.randbits(16))
        self._report_at_s = 0.0
        self._origin = secrets.randbits(31)

    async def run(self) -> None:
        """Answer requests until the client ends."""
        while (request := await self._read()) is not None:
            if not self._answer(request):
                return
            await self._writer.drain()

    def drop(self) -> None:
        """Close at once, as a camera does whose power is cut."""
        self._stop()
        with contextlib.suppress(RuntimeError):  # the loop is closing: the socket goes with it
            transport = self._writer.transport
            transport.abort()

    async def _read(self) -> Request | None:
        while (first := await self._reader.read(1)) == b"$":
            header = await self._reader.readexactly(3)
            await self._reader.readexactly(int.from_bytes(header[1:], "big"))
        if not first:
            return None
        head = first + await self._reader.readuntil(b"\r\n\r\n")
        if len(head) > MAX_HEADER_BYTES:
            raise asyncio.LimitOverrunError("header too long", len(head))
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split()
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        length = headers.get("content-length", "0")
        if length.isdecimal() and 0 < int(length) <= MAX_HEADER_BYTES:
            await self._reader.readexactly(int(length))
        if len(words) != 3 or not words[2].startswith("RTSP/"):  # noqa: PLR2004 - method, url, version
            return Request("", "", headers, "")
        path = "/" + words[1].split("://", 1)[-1].partition("/")[2].strip("/")
        return Request(words[0], path.removesuffix("/trackID=0"), headers, words[1])

    def _answer(self, request: Request) -> bool:
        if request.method == "OPTIONS":
            return self._reply(request, 200, {"Public": _METHODS})
        if not request.method:
            self._reply(request, 400)
            return False
        if not self._is_allowed(request):
            challenge = f'Digest realm="{REALM}", nonce="{self._nonce}"'
            return self._reply(request, 401, {"WWW-Authenticate": challenge})
        answers = {
            "DESCRIBE": self._describe,
            "SETUP": self._setup,
            "PLAY": self._play,
            "GET_PARAMETER": self._keep_alive,
            "TEARDOWN": self._teardown,
        }
        answer = answers.get(request.method)
        named = request.headers.get("session", "").partition(";")[0]
        if named and named != self._session:
            return self._reply(request, 454)
        return self._reply(request, 405) if answer is None else answer(request)

    def _describe(self, request: Request) -> bool:
        playout = self._camera.playouts.get(request.path)
        if playout is None:
            return self._reply(request, 404)
        body = _sdp(playout)
        headers = {"Content-Type": "application/sdp", "Content-Base": request.url.rstrip("/") + "/"}
        return self._reply(request, 200, headers, body)

    def _setup(self, request: Request) -> bool:
        playout = self._camera.playouts.get(request.path)
        if playout is None:
            return self._reply(request, 404)
        if self._is_playing:
            return self._reply(request, 455)
        if "TCP" not in request.headers.get("transport", ""):
            return self._reply(request, 461)
        self._playout = playout
        self._session = secrets.token_hex(8)
        transport = "RTP/AVP/TCP;unicast;interleaved=0-1"
        headers = {"Transport": transport, "Session": f"{self._session};timeout=60"}
        return self._reply(request, 200, headers)

    def _play(self, request: Request) -> bool:
        if self._playout is None:
            return self._reply(request, 455)
        cached = list(self._playout.gop)
        first = cached[0].time_s if cached else self._playout.now_ticks() / CLOCK_HZ
        track = f"url={request.url.rstrip('/')}/trackID=0"
        info = f"{track};seq={self._packetizer.seq};rtptime={self._ticks(first)}"
        self._reply(request, 200, {"Session": self._session, "RTP-Info": info})
        self._camera.counters.sessions += 1
        for unit in cached:  # many cameras send what they have since the last key frame at once
            self._send(unit)
        self._playout.listeners.add(self._send)
        return True

    def _keep_alive(self, request: Request) -> bool:
        return self._reply(request, 200, {"Session": self._session})

    def _teardown(self, request: Request) -> bool:
        self._reply(request, 200)
        return False

    def _send(self, unit: AccessUnit) -> None:
        if self._camera.behaviour.is_stalled or self._playout is None:
            return
        if self._writer.transport.get_write_buffer_size() > MAX_BUFFER_BYTES:
            self._camera.counters.slow_readers += 1
            self.drop()
            return
        self._report()
        nals = unit.nals
        if unit.is_key:
            nals = (*self._playout.recording.parameter_sets, *nals)
        for packet in self._packetizer.access_unit(nals, self._ticks(unit.time_s)):
            self._writer.write(interleaved(0, packet))
            self._camera.counters.packets += 1

    def _report(self) -> None:
        now_s = time.monotonic()
        if self._playout is None or now_s < self._report_at_s:
            return
        self._report_at_s = now_s + REPORT_EVERY_S
        ticks = (self._origin + self._playout.now_ticks()) & 0xFFFFFFFF
        utc_s = time.time() + self._camera.behaviour.clock_offset_s
        self._writer.write(interleaved(1, self._packetizer.sender_report(utc_s, ticks)))

    def _ticks(self, time_s: float) -> int:
        return (self._origin + round(time_s * CLOCK_HZ)) & 0xFFFFFFFF

    @property
    def _is_playing(self) -> bool:
        return self._playout is not None and self._send in self._playout.listeners

    def _stop(self) -> None:
        if self._playout is not None:
            self._playout.listeners.discard(self._send)

    def _is_allowed(self, request: Request) -> bool:
        camera = self._camera
        given = request.headers.get("authorization", "")
        if not camera.user:
            return True
        if not given:
            return False
        fields = dict(_FIELD.findall(given))
        secret = _md5(f"{camera.user}:{REALM}:{camera.password}")
        asked = _md5(f"{request.method}:{fields.get('uri', '')}")
        wanted = _md5(f"{secret}:{self._nonce}:{asked}")
        is_right = fields.get("username") == camera.user and secrets.compare_digest(
            wanted, fields.get("response", "")
        )
        if not is_right:
            camera.counters.failed_logins += 1
        return is_right

    def _reply(
        self,
        request: Request,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> bool:
        lines = [
            f"RTSP/1.0 {status} {_STATUS[status]}",
            f"CSeq: {request.headers.get('cseq', '0')}",
        ]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return True


def _sdp(playout: Playout) -> bytes:
    sets = playout.recording.parameter_sets
    sprop = ",".join(base64.b64encode(item).decode() for item in sets)
    profile = sets[0][1:4].hex()
    lines = [
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=simulated camera",
        "t=0 0",
        "a=control:*",
        "m=video 0 RTP/AVP 96",
        f"a=rtpmap:96 H264/{CLOCK_HZ}",
        f"a=fmtp:96 packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sprop}",
        f"a=framerate:{playout.recording.frames_per_s:g}",
        "a=control:trackID=0",
    ]
    return "\r\n".join([*lines, ""]).encode()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
