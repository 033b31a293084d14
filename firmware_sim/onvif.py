"""The ONVIF side of a simulated camera: services, snapshot, discovery, and what bad ones do.

    python -m firmware_sim.onvif --port 8000 --control-port 8001 --main rtsp://… --sub rtsp://… \
        --user U --password W [--discovery 127.0.0.1] [--snapshot FILE.mp4]

The control port takes one JSON object a line: {"do": "set", "clock_offset_s": -7200}, {"do":
"set", "fault": "bomb"}, {"do": "set", "has_media2": false}, {"do": "set", "stream_url":
"rtsp://elsewhere/x"}, {"do": "motion", "is_moving": true}, {"do": "reset"}, {"do": "stats"}.
"""

import argparse
import base64
import hashlib
import json
import re
import signal
import socketserver
import sys
import threading
import time
from datetime import UTC, datetime
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import av

from firmware_sim.onvif_discovery import Discovery

FAULTS: Final = (
    *("", "bomb", "endless", "drip", "rubbish", "redirect", "not_supported", "unauthorized"),
    *("silent", "http_digest", "no_services", "empty_profiles", "hidden_bomb", "deep"),
    *("slow_headers", "odd_fault", "two_digests", "basic", "no_capabilities"),
    "one_profile",
)
HTTP_LOGINS: Final = ("http_digest", "two_digests", "basic")
MAX_SKEW_S: Final = 300.0  # of a login's time, in the camera's own
MAX_REQUEST_BYTES: Final = 1 << 20
ENDLESS_BYTES: Final = 64 << 20
_REALM: Final = "onvif"
_NONCE: Final = "5ca1ab1e0ddba11"
_DEVICE: Final = "http://www.onvif.org/ver10/device/wsdl"
_MEDIA: Final = "http://www.onvif.org/ver10/media/wsdl"
_MEDIA2: Final = "http://www.onvif.org/ver20/media/wsdl"
_EVENTS: Final = "http://www.onvif.org/ver10/events/wsdl"
_LEVELS: Final = 8  # of entities made of ten of the one before: 10^8 letters in all
_BOMB: Final = (
    '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a0 "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, _LEVELS))
    + f"]><b>&a{_LEVELS - 1};</b>"
)


class Camera:
    """What all connections share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.streams = {"main": options.main, "sub": options.sub}
        self.user, self.password = options.user, options.password
        self.host = options.host
        self.port = 0
        self.snapshot = _first_picture(options.snapshot) if options.snapshot else b""
        self.lock = threading.Lock()
        self.counters = {"requests": 0, "failed_logins": 0, "probes": 0}
        self.events: list[tuple[float, bool]] = []
        self.reset()

    def reset(self) -> None:
        """Make the camera good again."""
        self.settings: dict[str, Any] = {
            "clock_offset_s": 0.0,
            "fault": "",
            "has_media2": True,
            "stream_url": "",
            "snapshot_url": "",
        }

    def now(self) -> datetime:
        """Give the camera's own time."""
        return datetime.fromtimestamp(time.time() + self.settings["clock_offset_s"], UTC)

    def change(self, values: dict[str, Any]) -> None:
        """Set what the control port may set; ValueError names what is allowed."""
        for name, value in values.items():
            known = self.settings.get(name)
            if known is None:
                raise ValueError(f"no setting {name[:40]}; allowed: {', '.join(self.settings)}")
            if name == "fault" and value not in FAULTS:
                raise ValueError(f"fault {str(value)[:40]}; allowed: {', '.join(FAULTS)}")
            if isinstance(known, float) and isinstance(value, int):
                value = float(value)  # noqa: PLW2901 - JSON has one kind of number
            if type(value) is not type(known):
                raise ValueError(f"{name} {str(value)[:40]}; allowed: {type(known).__name__}")
        self.settings.update(values)

    def is_right(self, request: ET.Element) -> bool:
        """Whether a UsernameToken in the request is ours and of now, in the camera's own time."""
        fields = {_local(item): (item.text or "").strip() for item in request.iter()}
        try:
            created = datetime.strptime(fields["Created"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            nonce = base64.b64decode(fields["Nonce"])
        except (KeyError, ValueError):
            return False
        text = nonce + fields["Created"].encode() + self.password.encode()
        digest = base64.b64encode(hashlib.sha1(text, usedforsecurity=False).digest()).decode()
        is_timely = abs((created - self.now()).total_seconds()) <= MAX_SKEW_S
        return (
            fields.get("Username") == self.user and fields.get("Password") == digest and is_timely
        )


class Exchange(BaseHTTPRequestHandler):
    """One HTTP request."""

    protocol_version = "HTTP/1.1"
    camera: Camera

    def do_POST(self) -> None:
        """Answer a SOAP request."""
        camera = self.camera
        with camera.lock:
            camera.counters["requests"] += 1
        length = int(self.headers.get("Content-Length", "0"))
        if length > MAX_REQUEST_BYTES:
            self._send(413, b"")
            return
        content = self.rfile.read(length)
        if self._misbehave(camera.settings["fault"]):
            return
        try:
            request = ET.fromstring(content)  # noqa: S314 - what our own client sent
            body = next(item for item in request if _local(item) == "Body")
            asked = next(iter(body))
        except (ET.ParseError, StopIteration):
            self._send(400, b"")
            return
        name = _local(asked)
        if name != "GetSystemDateAndTime" and not self._is_allowed(request):
            return
        self._answer(name, asked)

    def do_GET(self) -> None:
        """Give the snapshot, for a login by HTTP Digest."""
        camera = self.camera
        if not self.path.startswith("/snapshot"):
            self._send(404, b"")
        elif camera.user and not self._has_login("GET"):
            self._challenge()
        else:
            self._send(200, camera.snapshot, "image/jpeg")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _misbehave(self, fault: str) -> bool:
        bodies = {
            "bomb": _BOMB.encode(),
            "hidden_bomb": _BOMB.encode("utf-16"),  # no "<!DOCTYPE" in its bytes
            "rubbish": b"\x00\xff not XML <<<",
            "deep": b"<a>" * 5_000 + b"</a>" * 5_000,
        }
        if fault in bodies:
            self._send(200, bodies[fault])
        elif fault == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://169.254.1.1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault == "endless":
            self._pour(b"<a>" * 10_000, 0.0)
        elif fault == "drip":
            self._pour(b"<", 0.5)
        elif fault == "slow_headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            self._drip(b"x", 0.3)
        elif fault == "odd_fault":
            self._fault("\x9b2J\u202enothing\x85works", "ter:\u0627", 500)
        elif fault == "silent":
            time.sleep(60)
        else:
            return False
        return True

    def _pour(self, piece: bytes, pause_s: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/soap+xml")
        self.end_headers()
        self._drip(piece, pause_s)

    def _drip(self, piece: bytes, pause_s: float) -> None:
        self.close_connection = True
        try:
            for _ in range(ENDLESS_BYTES // len(piece)):
                self.wfile.write(piece)
                time.sleep(pause_s)
        except OSError:
            return

    def _is_allowed(self, request: ET.Element) -> bool:
        camera = self.camera
        if not camera.user:
            return True
        if camera.settings["fault"] in HTTP_LOGINS:
            if self._has_login("POST"):
                return True
            self._challenge()
            return False
        if camera.is_right(request) and camera.settings["fault"] != "unauthorized":
            return True
        if b"Username" in ET.tostring(request):
            with camera.lock:
                camera.counters["failed_logins"] += 1
        self._fault("Sender not authorized", "ter:NotAuthorized", 400)
        return False

    def _has_login(self, method: str) -> bool:
        given = self.headers.get("Authorization", "")
        if given and self.camera.settings["fault"] == "basic":
            plain = f"{self.camera.user}:{self.camera.password}"
            return given == "Basic " + base64.b64encode(plain.encode()).decode()
        fields = dict(re.findall(r'(\w+)="?([^",]*)"?', given))
        name = "sha256" if fields.get("algorithm") == "SHA-256" else "md5"
        secret = _hash(name, f"{self.camera.user}:{_REALM}:{self.camera.password}")
        asked = _hash(name, f"{method}:{self.path}")
        middle = f"{_NONCE}:{fields.get('nc', '')}:{fields.get('cnonce', '')}:auth"
        return bool(fields) and fields.get("response") == _hash(name, f"{secret}:{middle}:{asked}")

    def _challenge(self) -> None:
        rest = f'realm="{_REALM}", nonce="{_NONCE}", qop="auth, auth-int"'
        values = [f"Digest {rest}"]
        if self.camera.settings["fault"] == "two_digests":
            values = [f'Basic realm="a", Digest {rest}, algorithm=SHA-512-256']
            values += [f"Digest {rest}, algorithm=SHA-256"]
        elif self.camera.settings["fault"] == "basic":
            values = [f'Basic realm="{_REALM}"']
        with self.camera.lock:
            self.camera.counters["failed_logins"] += "Authorization" in self.headers
        self.send_response(401)
        for value in values:
            self.send_header("WWW-Authenticate", value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, name: str, asked: ET.Element) -> None:
        camera = self.camera
        fault = camera.settings["fault"]
        older = {
            "no_services": ["GetServices"],
            "no_capabilities": ["GetServices", "GetCapabilities"],
        }
        if fault == "not_supported" or name in older.get(fault, ()):
            self._fault("Action not supported", "ter:ActionNotSupported", 400)
            return
        answers = {
            "GetSystemDateAndTime": self._time,
            "GetDeviceInformation": self._about,
            "GetServices": self._services,
            "GetCapabilities": self._capabilities,
            "GetProfiles": self._profiles,
            "GetStreamUri": self._stream,
            "GetSnapshotUri": self._picture,
            "CreatePullPointSubscription": self._subscribe,
            "PullMessages": self._pull,
        }
        answer = answers.get(name)
        if answer is None:
            self._fault("Action not supported", "ter:ActionNotSupported", 400)
        else:
            space = str(asked.tag).partition("}")[0].lstrip("{")
            inner = answer(space, asked)
            self._soap(f'<n:{name}Response xmlns:n="{space}">{inner}</n:{name}Response>')

    def _time(self, _space: str, _asked: ET.Element) -> str:
        now = self.camera.now()
        return (
            '<n:SystemDateAndTime xmlns:tt="http://www.onvif.org/ver10/schema"><tt:UTCDateTime>'
            f"<tt:Time><tt:Hour>{now.hour}</tt:Hour><tt:Minute>{now.minute}</tt:Minute>"
            f"<tt:Second>{now.second}</tt:Second></tt:Time><tt:Date><tt:Year>{now.year}</tt:Year>"
            f"<tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day></tt:Date>"
            "</tt:UTCDateTime></n:SystemDateAndTime>"
        )

    def _about(self, _space: str, _asked: ET.Element) -> str:
        return (
            "<n:Manufacturer>Simulated</n:Manufacturer><n:Model>SIM-1</n:Model>"
            "<n:FirmwareVersion>1.0</n:FirmwareVersion><n:SerialNumber>1</n:SerialNumber>"
            "<n:HardwareId>1</n:HardwareId>"
        )

    def _services(self, _space: str, _asked: ET.Element) -> str:
        spaces = [_DEVICE, _MEDIA, _EVENTS]
        spaces += [_MEDIA2] if self.camera.settings["has_media2"] else []
        return "".join(
            f"<n:Service><n:Namespace>{space}</n:Namespace><n:XAddr>{self._url(space)}</n:XAddr>"
            "</n:Service>"
            for space in spaces
        )

    def _capabilities(self, _space: str, _asked: ET.Element) -> str:
        return (
            '<n:Capabilities xmlns:tt="http://www.onvif.org/ver10/schema"><tt:Media><tt:XAddr>'
            f"{self._url(_MEDIA)}</tt:XAddr></tt:Media></n:Capabilities>"
        )

    def _profiles(self, space: str, _asked: ET.Element) -> str:
        if self.camera.settings["fault"] == "empty_profiles":
            return ""
        sizes = {"main": (1920, 1080), "sub": (640, 360)}
        if self.camera.settings["fault"] == "one_profile":
            del sizes["sub"]
        return "".join(_profile(space, name, *size) for name, size in sizes.items())

    def _stream(self, _space: str, asked: ET.Element) -> str:
        token = next((item.text for item in asked.iter() if _local(item) == "ProfileToken"), "")
        url = self.camera.settings["stream_url"] or self.camera.streams.get(str(token), "")
        return f"<n:Uri>{escape(url)}</n:Uri><n:MediaUri><n:Uri>{escape(url)}</n:Uri></n:MediaUri>"

    def _picture(self, _space: str, _asked: ET.Element) -> str:
        own = f"http://{self.camera.host}:{self.camera.port}/snapshot.jpg"
        url = self.camera.settings["snapshot_url"] or own
        return f"<n:MediaUri><n:Uri>{escape(url)}</n:Uri></n:MediaUri>"

    def _subscribe(self, _space: str, _asked: ET.Element) -> str:
        return f"<n:SubscriptionReference>{self._url(_EVENTS)}</n:SubscriptionReference>"

    def _pull(self, _space: str, _asked: ET.Element) -> str:
        with self.camera.lock:
            events, self.camera.events = self.camera.events, []
        return "".join(
            "<n:NotificationMessage><n:Topic>tns1:RuleEngine/CellMotionDetector/Motion</n:Topic>"
            f'<n:Message UtcTime="{datetime.fromtimestamp(at_s, UTC).isoformat()}">'
            f'<n:SimpleItem Name="IsMotion" Value="{str(is_moving).lower()}"/></n:Message>'
            "</n:NotificationMessage>"
            for at_s, is_moving in events
        )

    def _url(self, space: str) -> str:
        path = {_DEVICE: "device", _MEDIA: "media", _MEDIA2: "media2", _EVENTS: "events"}[space]
        return f"http://{self.camera.host}:{self.camera.port}/onvif/{path}_service"

    def _soap(self, body: str, status: int = 200) -> None:
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">'
            f"<s:Body>{body}</s:Body></s:Envelope>"
        )
        self._send(status, text.encode())

    def _fault(self, reason: str, code: str, status: int) -> None:
        self._soap(
            f"<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{code}</s:Value>"
            f"</s:Subcode></s:Code><s:Reason><s:Text>{reason}</s:Text></s:Reason></s:Fault>",
            status,
        )

    def _send(self, status: int, body: bytes, kind: str = "application/soap+xml") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Control(socketserver.StreamRequestHandler):
    """The control port."""

    camera: Camera

    def handle(self) -> None:
        """Take orders, a line each."""
        for line in self.rfile:
            try:
                answer = self._do(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                answer = {"ok": False, "error": str(error)[:200]}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    def _do(self, order: dict[str, Any]) -> dict[str, Any]:
        camera, what = self.camera, order.pop("do")
        if what == "set":
            camera.change(order)
        elif what == "reset":
            camera.reset()
        elif what == "motion":
            with camera.lock:
                camera.events.append((time.time(), bool(order["is_moving"])))
        elif what == "stats":
            return {"ok": True, **camera.counters}
        else:
            raise ValueError(f"{str(what)[:40]}; allowed: set, reset, motion, stats")
        return {"ok": True}


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="firmware_sim.onvif", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--control-port", type=int, default=8001, help="0 takes a free one")
    parser.add_argument("--main", required=True, help="RTSP address of the main stream")
    parser.add_argument("--sub", default="", help="RTSP address of the small stream")
    parser.add_argument("--user", default="", help="empty: no login")
    parser.add_argument("--password", default="")
    parser.add_argument("--discovery", default="", help="own address on the network to answer on")
    parser.add_argument("--snapshot", type=Path, help="video whose first picture is the snapshot")
    options = parser.parse_args(argv)
    camera = Camera(options)
    web = ThreadingHTTPServer(
        (options.host, options.port), type("Bound", (Exchange,), {"camera": camera})
    )
    camera.port = int(web.server_address[1])
    control = socketserver.ThreadingTCPServer(
        (options.host, options.control_port), type("BoundControl", (Control,), {"camera": camera})
    )
    for server in (web, control):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ports = {"port": camera.port, "control_port": control.server_address[1]}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it says goodbye
    discovery = Discovery(camera, options.discovery) if options.discovery else None
    try:
        print(json.dumps(ports), flush=True)
        if discovery is None:
            threading.Event().wait()
        else:
            discovery.serve()
    except KeyboardInterrupt:
        return 0
    finally:
        if discovery is not None:
            discovery.goodbye()
    return 0


def _profile(space: str, token: str, width_px: int, height_px: int) -> str:
    sides = f"<n:Width>{width_px}</n:Width><n:Height>{height_px}</n:Height>"
    size = f"<n:Resolution>{sides}</n:Resolution>"
    coder = f"<n:Name>coder</n:Name><n:Encoding>H264</n:Encoding>{size}"
    if space == _MEDIA2:
        inner = f"<n:Configurations><n:VideoEncoder>{coder}</n:VideoEncoder></n:Configurations>"
    else:
        inner = f"<n:VideoEncoderConfiguration>{coder}</n:VideoEncoderConfiguration>"
    return f'<n:Profiles token="{token}"><n:Name>{token} stream</n:Name>{inner}</n:Profiles>'


def _first_picture(path: Path) -> bytes:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    coder = av.CodecContext.create("mjpeg", "w")
    coder.width, coder.height, coder.pix_fmt = frame.width, frame.height, "yuvj420p"
    coder.time_base = frame.time_base or Fraction(1, 25)
    packets = coder.encode(frame.reformat(format="yuvj420p"))
    return b"".join(bytes(packet) for packet in packets)


def _local(item: ET.Element) -> str:
    return str(item.tag).rpartition("}")[2]


def _hash(name: str, text: str) -> str:
    return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
