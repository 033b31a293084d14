"""An RTSP server (RFC 2326) over TCP and UDP, as a fixed camera speaks it, and as bad ones do."""

import asyncio
import base64
import contextlib
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from firmware_sim import sdp
from firmware_sim.faults import Faults
from firmware_sim.playout import Playout
from firmware_sim.rtsp_media import AUDIO, VIDEO, Sender, UdpPorts, framed

REALM = "camera"
MAX_HEADER_BYTES = 16 * 1024
MAX_BUFFER_BYTES = 4 << 20  # a client that reads slower than that is cut off
ENDLESS_BYTES = 64 << 20  # of headers without an end: then the camera gives up
LYING_BYTES = 2 << 30  # a Content-Length that nothing follows
_METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"
_STATUS = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    453: "Not Enough Bandwidth",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
}
_FIELD = re.compile(r'(\w+)="([^"]*)"')
_TRACK = re.compile(r"/trackID=([01])$")
_CLIENT_PORTS = re.compile(r"client_port=(\d{1,5})-(\d{1,5})")


@dataclass(slots=True)
class Counters:
    """What the control port tells of the server."""

    connections: int = 0
    failed_logins: int = 0
    logins: int = 0
    sessions: int = 0
    packets: int = 0
    slow_readers: int = 0
    is_locked: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One RTSP request."""

    method: str
    path: str
    track: int
    headers: Mapping[str, str]
    url: str


@dataclass(slots=True)
class Camera:
    """Everything that the connections share."""

    playouts: Mapping[str, Playout]
    user: str
    password: str
    host: str = "127.0.0.1"
    has_audio: bool = False
    counters: Counters = field(default_factory=Counters)
    faults: Faults = field(default_factory=Faults)
    connections: set["Connection"] = field(default_factory=set)

    @property
    def playing(self) -> int:
        """How many clients are sent pictures."""
        return sum(connection.is_playing for connection in self.connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it goes or is dropped."""
        self.counters.connections += 1
        if self.faults.is_refusing or self.faults.closes_at_once:
            writer.close()
            return
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
        self._sender: Sender | None = None
        self._udp: UdpPorts | None = None

    @property
    def is_playing(self) -> bool:
        """Whether it is sent pictures."""
        return self._sender is not None and self._sender.is_playing

    async def run(self) -> None:
        """Answer requests until the client ends."""
        while (request := await self._read()) is not None:
            if not await self._answer(request):
                return
            await self._writer.drain()

    def drop(self) -> None:
        """Close at once, as a camera does whose power is cut."""
        if self._sender is not None:
            self._sender.stop()
        if self._udp is not None:
            self._udp.close()
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
            return Request("", "", VIDEO, headers, "")
        path = "/" + words[1].split("://", 1)[-1].partition("/")[2].strip("/")
        found = _TRACK.search(path)
        path = path.partition("?")[0] if found is None else path[: found.start()].partition("?")[0]
        return Request(words[0], path, int(found[1]) if found else VIDEO, headers, words[1])

    async def _answer(self, request: Request) -> bool:
        if request.method == "OPTIONS":
            return self._reply(request, 200, {"Public": _METHODS})
        if not request.method:
            self._reply(request, 400)
            return False
        refusal = self._refusal(request)
        if refusal:
            return self._reply(request, refusal, self._challenge() if refusal == 401 else None)  # noqa: PLR2004
        if request.method == "DESCRIBE":
            return await self._describe(request)
        answers = {
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

    async def _describe(self, request: Request) -> bool:
        camera, faults = self._camera, self._camera.faults
        playout = camera.playouts.get(request.path)
        if playout is None:
            return self._reply(request, 404)
        if faults.redirect:
            return self._reply(request, 302, {"Location": faults.redirect})
        if faults.answer == "silent":
            return True
        body = sdp.describe(playout.recording, has_audio=camera.has_audio, how=faults.sdp)
        base = request.url.rstrip("/") + "/"
        headers = {"Content-Type": "application/sdp", "Content-Base": base}
        if faults.answer == "endless_header":
            await self._talk_for_ever(request)
            return False
        if faults.answer == "long_length":
            return self._reply(request, 200, headers, body, length=LYING_BYTES)
        return self._reply(request, 200, headers, body)

    async def _talk_for_ever(self, request: Request) -> None:
        self._writer.write(
            f"RTSP/1.0 200 OK\r\nCSeq: {request.headers.get('cseq', '0')}\r\n".encode()
        )
        line = b"X-Filler: " + b"x" * 1000 + b"\r\n"
        for _ in range(ENDLESS_BYTES // len(line)):
            self._writer.write(line)
            await self._writer.drain()

    def _setup(self, request: Request) -> bool:
        camera = self._camera
        playout = camera.playouts.get(request.path)
        if playout is None or (request.track == AUDIO and not camera.has_audio):
            return self._reply(request, 404)
        if self.is_playing:
            return self._reply(request, 455)
        limit = camera.faults.max_clients
        if limit and camera.playing >= limit:
            return self._reply(request, 453)
        wanted = request.headers.get("transport", "")
        transport = self._tcp(request) if "TCP" in wanted else self._by_udp(request, wanted)
        if transport is None:
            return self._reply(request, 461)
        if self._sender is None:
            self._sender = Sender(playout, camera.faults, self._send)
        self._sender.tracks.add(request.track)
        self._session = self._session or secrets.token_hex(8)
        headers = {"Transport": transport, "Session": f"{self._session};timeout=60"}
        return self._reply(request, 200, headers)

    def _tcp(self, request: Request) -> str | None:
        if self._camera.faults.transports == "udp":
            return None
        channel = 2 * request.track
        return f"RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1}"

    def _by_udp(self, request: Request, wanted: str) -> str | None:
        found = _CLIENT_PORTS.search(wanted)
        if self._camera.faults.transports == "tcp" or found is None:
            return None
        if self._udp is None:
            self._udp = UdpPorts(self._camera.host)
        client = str(self._writer.get_extra_info("peername")[0])
        theirs = int(found[1]), int(found[2])
        ours = self._udp.open(request.track, client, theirs)
        return (
            f"RTP/AVP;unicast;client_port={theirs[0]}-{theirs[1]};server_port={ours[0]}-{ours[1]}"
        )

    def _play(self, request: Request) -> bool:
        if self._sender is None:
            return self._reply(request, 455)
        info = self._sender.rtp_info(request.url.rstrip("/"))
        self._reply(request, 200, {"Session": self._session, "RTP-Info": info})
        self._camera.counters.sessions += 1
        self._sender.start()
        return True

    def _keep_alive(self, request: Request) -> bool:
        return self._reply(request, 200, {"Session": self._session})

    def _teardown(self, request: Request) -> bool:
        self._reply(request, 200)
        return False

    def _send(self, channel: int, packet: bytes) -> None:
        if channel % 2 == 0:
            self._camera.counters.packets += 1
        if self._udp is not None:
            self._udp.send(channel, packet)
            return
        if self._writer.transport.is_closing():
            self.drop()
            return
        if self._writer.transport.get_write_buffer_size() > MAX_BUFFER_BYTES:
            self._camera.counters.slow_readers += 1
            self.drop()
            return
        self._writer.write(framed(channel, packet, self._camera.faults))

    def _refusal(self, request: Request) -> int:
        """Give the status that refuses a login, 0 for a good one."""
        camera, counters = self._camera, self._camera.counters
        if not camera.user:
            return 0
        if counters.is_locked:
            return 403
        given = request.headers.get("authorization", "")
        if not given:
            return 401
        if self._is_right(request, given):
            counters.logins += 1
            return 0
        counters.failed_logins += 1
        limit = camera.faults.lock_after
        counters.is_locked = bool(limit) and counters.failed_logins >= limit
        return 401

    def _is_right(self, request: Request, given: str) -> bool:
        camera = self._camera
        kind, _, rest = given.partition(" ")
        if camera.faults.login == "basic":
            right = base64.b64encode(f"{camera.user}:{camera.password}".encode()).decode()
            return kind.lower() == "basic" and secrets.compare_digest(rest.strip(), right)
        fields = dict(_FIELD.findall(given))
        secret = _md5(f"{camera.user}:{REALM}:{camera.password}")
        asked = _md5(f"{request.method}:{fields.get('uri', '')}")
        wanted = _md5(f"{secret}:{self._nonce}:{asked}")
        return fields.get("username") == camera.user and secrets.compare_digest(
            wanted, fields.get("response", "")
        )

    def _challenge(self) -> Mapping[str, str]:
        if self._camera.faults.login == "basic":
            return {"WWW-Authenticate": f'Basic realm="{REALM}"'}
        return {"WWW-Authenticate": f'Digest realm="{REALM}", nonce="{self._nonce}"'}

    def _reply(
        self,
        request: Request,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        length: int | None = None,
    ) -> bool:
        lines = [
            f"RTSP/1.0 {status} {_STATUS[status]}",
            f"CSeq: {request.headers.get('cseq', '0')}",
        ]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or length is not None:
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return True


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
