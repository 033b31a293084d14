"""The simulated camera over raw sockets, its control port, and ffprobe as another client."""

import base64
import contextlib
import hashlib
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

from firmware_sim import playout, rtp, streams
from tests import footage
from tests.simcamera import PASSWORD, ROOT, USER, SimCamera

pytestmark = pytest.mark.video


@pytest.fixture(scope="module")
def camera() -> Iterator[SimCamera]:
    with SimCamera(footage.numbered(60)) as started:
        yield started


@pytest.fixture
def open_camera() -> Iterator[SimCamera]:
    with SimCamera(footage.noisy(30), user="", password="") as started:
        yield started


class Talk:
    """One RTSP conversation by hand."""

    def __init__(self, camera: SimCamera) -> None:
        self._camera = camera
        self._link = camera.connect()
        self._stream = self._link.makefile("rb")
        self._cseq = 0
        self._nonce = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._link.close()

    def ask(
        self, method: str, path: str = "/main", login: tuple[str, str] | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        self._cseq += 1
        url = f"rtsp://127.0.0.1:{self._camera.rtsp_port}{path}"
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._cseq}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if login is not None:
            lines.append(f"Authorization: {self.digest(method, url, *login)}")
        self._link.sendall("\r\n".join([*lines, "", ""]).encode())
        return self.answer()

    def digest(self, method: str, url: str, user: str, password: str) -> str:
        secret = _md5(f"{user}:camera:{password}")
        response = _md5(f"{secret}:{self._nonce}:{_md5(f'{method}:{url}')}")
        return (
            f'Digest username="{user}", realm="camera", nonce="{self._nonce}",'
            f' uri="{url}", response="{response}"'
        )

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = self._stream.readline()
        headers = {}
        while line := self._stream.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        if found := re.search(r'nonce="(\w+)"', headers.get("WWW-Authenticate", "")):
            self._nonce = found[1]
        body = self._stream.read(int(headers.get("Content-Length", 0)))
        return int(status.split()[1]) if status else 0, headers, body

    def send(self, data: bytes) -> None:
        self._link.sendall(data)

    def interleaved(self) -> tuple[int, bytes]:
        head = self._stream.read(4)
        assert head[:1] == b"$"
        return head[1], self._stream.read(int.from_bytes(head[2:], "big"))

    def answer_among_packets(self) -> int:
        """Give the status of the next answer, past the pictures that come before it."""
        while (first := self._stream.read(1)) == b"$":
            head = self._stream.read(3)
            self._stream.read(int.from_bytes(head[1:], "big"))
        return int((first + self._stream.readline()).split()[1])

    def is_cut(self) -> bool:
        try:
            return self._stream.read(1) == b""
        except ConnectionError:
            return True


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def test_options_need_no_login(camera: SimCamera) -> None:
    with Talk(camera) as talk:
        status, headers, _ = talk.ask("OPTIONS")
    assert status == 200
    assert headers["CSeq"] == "1"
    assert "DESCRIBE" in headers["Public"]


def test_describe_without_login_is_challenged_and_counts_as_no_failure(camera: SimCamera) -> None:
    before = camera.do("stats")["failed_logins"]
    with Talk(camera) as talk:
        status, headers, body = talk.ask("DESCRIBE")
    assert (status, body) == (401, b"")
    assert headers["WWW-Authenticate"].startswith('Digest realm="camera", nonce="')
    assert camera.do("stats")["failed_logins"] == before


@pytest.mark.parametrize("login", [(USER, "wrong"), ("root", PASSWORD), (USER, "")])
def test_wrong_digest_is_counted(camera: SimCamera, login: tuple[str, str]) -> None:
    before = camera.do("stats")["failed_logins"]
    with Talk(camera) as talk:
        talk.ask("DESCRIBE")
        assert talk.ask("DESCRIBE", login=login)[0] == 401
    assert camera.do("stats")["failed_logins"] == before + 1


def test_digest_of_another_connection_is_worth_nothing(camera: SimCamera) -> None:
    with Talk(camera) as first, Talk(camera) as second:
        first.ask("DESCRIBE")
        url = f"rtsp://127.0.0.1:{camera.rtsp_port}/main"
        stolen = first.digest("DESCRIBE", url, USER, PASSWORD)
        assert second.ask("DESCRIBE", Authorization=stolen)[0] == 401


def test_right_login_gets_the_description(camera: SimCamera) -> None:
    with Talk(camera) as talk:
        talk.ask("DESCRIBE")
        status, headers, body = talk.ask("DESCRIBE", login=(USER, PASSWORD))
    assert status == 200
    assert headers["Content-Type"] == "application/sdp"
    text = body.decode()
    assert "a=rtpmap:96 H264/90000" in text
    sets = re.search(r"sprop-parameter-sets=([^\s;]+)", text)
    assert sets is not None
    kinds = [base64.b64decode(item)[0] & 0x1F for item in sets[1].split(",")]
    assert kinds == [7, 8]


@pytest.mark.parametrize(
    "request_line",
    [b"NONSENSE", b"GET / HTTP/1.1", b"DESCRIBE rtsp://x", b"\xff\xfe\xfd x y z"],
)
def test_malformed_request_is_answered_400_and_the_next_client_is_served(
    camera: SimCamera, request_line: bytes
) -> None:
    with Talk(camera) as talk:
        talk.send(request_line + b"\r\nCSeq: 7\r\n\r\n")
        status, headers, _ = talk.answer()
        assert (status, headers["CSeq"]) == (400, "7")
        assert talk.is_cut()
    with Talk(camera) as talk:
        assert talk.ask("OPTIONS")[0] == 200


@pytest.mark.parametrize("length", ["-5", "abc", "²", "99999999999", ""])
def test_absurd_content_length_does_no_harm(camera: SimCamera, length: str) -> None:
    with Talk(camera) as talk:
        head = f"OPTIONS rtsp://x/main RTSP/1.0\r\nCSeq: 1\r\nContent-Length: {length}\r\n\r\n"
        talk.send(head.encode("latin-1"))
        assert talk.answer()[0] in (200, 400)


def test_oversized_header_is_cut(camera: SimCamera) -> None:
    with Talk(camera) as talk:
        talk.send(b"OPTIONS rtsp://x/main RTSP/1.0\r\nX-Long: " + b"x" * 200_000)
        assert talk.is_cut()
    with Talk(camera) as talk:
        assert talk.ask("OPTIONS")[0] == 200


def test_client_that_goes_in_the_middle_of_a_request_does_no_harm(camera: SimCamera) -> None:
    for data in (
        b"",
        b"OPT",
        b"$",
        b"$\0\xff\xff123",
        b"OPTIONS rtsp://x/ RTSP/1.0\r\nContent-Length: 9\r\n\r\n1",
    ):
        with Talk(camera) as talk:
            talk.send(data)
    with Talk(camera) as talk:
        assert talk.ask("OPTIONS")[0] == 200


@pytest.mark.parametrize(
    ("transports", "tcp", "udp"), [("both", 200, 200), ("tcp", 200, 461), ("udp", 461, 200)]
)
def test_transports_are_what_the_camera_has(
    open_camera: SimCamera, transports: str, tcp: int, udp: int
) -> None:
    open_camera.do("set", transports=transports)
    asked = {
        "RTP/AVP/TCP;unicast;interleaved=0-1": tcp,
        "RTP/AVP;unicast;client_port=5000-5001": udp,
    }
    for transport, status in asked.items():
        with Talk(open_camera) as talk:
            assert talk.ask("SETUP", Transport=transport)[0] == status
    open_camera.do("reset")


def test_wrong_order_and_unknown_things_are_answered(open_camera: SimCamera) -> None:
    with Talk(open_camera) as talk:
        assert talk.ask("PLAY")[0] == 455
        assert talk.ask("DESCRIBE", "/none")[0] == 404
        assert talk.ask("SETUP", "/none", Transport="RTP/AVP/TCP;interleaved=0-1")[0] == 404
        assert talk.ask("RECORD")[0] == 405


def test_second_setup_of_a_playing_session_is_refused_and_leaves_nothing_behind() -> None:
    with SimCamera(footage.numbered(60), user="", password="") as camera:
        with Talk(camera) as talk:
            talk.ask("SETUP", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
            talk.ask("PLAY")
            talk.send(
                b"SETUP rtsp://x/sub RTSP/1.0\r\nCSeq: 9\r\n"
                b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
            )
            assert talk.answer_among_packets() == 455
        deadline = time.monotonic() + 5
        while camera.do("stats")["clients"] and time.monotonic() < deadline:
            time.sleep(0.02)
        sent = camera.do("stats")["packets"]
        time.sleep(0.5)
        assert camera.do("stats")["packets"] == sent
        assert camera.stop() == ""


def test_strange_session_is_not_found(open_camera: SimCamera) -> None:
    with Talk(open_camera) as talk:
        assert talk.ask("PLAY", Session="0")[0] == 454
        _, headers, _ = talk.ask("SETUP", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        mine = headers["Session"].partition(";")[0]
        assert talk.ask("PLAY", Session="0")[0] == 454
        assert talk.ask("GET_PARAMETER", Session=mine)[0] == 200
        assert talk.ask("PLAY", Session=mine)[0] == 200


def test_play_sends_rtp_from_a_key_frame_and_reports(open_camera: SimCamera) -> None:
    with Talk(open_camera) as talk:
        assert talk.ask("SETUP", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")[0] == 200
        status, headers, _ = talk.ask("PLAY")
        assert status == 200
        seq = int(re.search(r"seq=(\d+)", headers["RTP-Info"])[1])
        found = [talk.interleaved() for _ in range(100)]
    reports = [data for channel, data in found if channel == 1]
    packets = [data for channel, data in found if channel == 0]
    assert reports[0][1] == 200
    numbers = [struct.unpack(">H", data[2:4])[0] for data in packets]
    assert numbers == [(seq + place) & 0xFFFF for place in range(len(packets))]
    assert packets[0][12] & 0x1F == 7
    assert all(len(data) <= 12 + rtp.MAX_PAYLOAD_BYTES for data in packets)
    times = [struct.unpack(">I", data[4:8])[0] for data in packets]
    ends = [data[1] >> 7 for data in packets]
    changes = [left != right for left, right in pairwise(times)]
    assert ends[:-1] == [int(change) for change in changes]


def test_slow_reader_is_cut_and_the_others_go_on(open_camera: SimCamera) -> None:
    with Talk(open_camera) as slow:
        slow._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.ask("SETUP", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        deadline = time.monotonic() + 15
        while not open_camera.do("stats")["slow_readers"] and time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError):  # each asks for the cached pictures again
                slow.send(b"PLAY rtsp://x/main RTSP/1.0\r\nCSeq: 9\r\n\r\n")
            time.sleep(0.02)
        assert open_camera.do("stats")["slow_readers"] == 1
    with Talk(open_camera) as talk:
        assert talk.ask("OPTIONS")[0] == 200


def test_teardown_ends_the_session(open_camera: SimCamera) -> None:
    with Talk(open_camera) as talk:
        talk.ask("SETUP", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        assert talk.ask("TEARDOWN")[0] == 200
        assert talk.is_cut()
    assert open_camera.do("stats")["clients"] == 0


@pytest.mark.parametrize(
    "line",
    [
        b"rubbish\n",
        b"{}\n",
        b"[]\n",
        b"7\n",
        b'"drop"\n',
        b'{"do": "explode"}\n',
        b'{"do": []}\n',
        b'{"do": "clock"}\n',
        b'{"do": "clock", "offset_s": "x"}\n',
        b'{"do": "clock", "offset_s": NaN}\n',
        b'{"do": "clock", "offset_s": 1e999}\n',
        b'{"do": "clock", "offset_s": -1e10}\n',
        b'{"do": "clock", "offset_s": 1' + b"0" * 400 + b"}\n",
        b'{"do": "stall", "for_s": null}\n',
        b'{"do": "stall", "for_s": NaN}\n',
        b'{"do": "stall", "for_s": -1}\n',
        b'{"do": "restart", "for_s": "x"}\n',
        b'{"do": "restart", "for_s": 1e999}\n',
        b"[" * 10_000 + b"\n",
        b"\xff\xfe\n",
    ],
)
def test_control_port_answers_mistakes(camera: SimCamera, line: bytes) -> None:
    answer = camera.say(line)
    assert answer["ok"] is False
    assert "allowed" in answer["error"]
    assert camera.do("stats")["ok"] is True
    with Talk(camera) as talk:
        assert talk.ask("OPTIONS")[0] == 200


def test_wrong_number_is_told_with_its_limits(camera: SimCamera) -> None:
    told = camera.do("clock", offset_s=-1e10)["error"]
    assert "offset_s -10000000000.0" in told
    assert "allowed: -1e+09 to 1e+09" in told


def test_farthest_clock_that_is_allowed_is_played_with(open_camera: SimCamera) -> None:
    for offset_s in (-1e9, 1e9):
        open_camera.do("clock", offset_s=offset_s)
        with Talk(open_camera) as talk:
            talk.ask("SETUP", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
            talk.ask("PLAY")
            channel, report = talk.interleaved()
        assert channel == 1
        seconds = struct.unpack(">I", report[8:12])[0]
        wanted = int(time.time() + offset_s + rtp.NTP_EPOCH_S) % (1 << 32)
        assert abs(seconds - wanted) <= 5


def test_control_port_survives_an_endless_line_and_a_client_that_goes(camera: SimCamera) -> None:
    with socket.create_connection(("127.0.0.1", camera.control_port), timeout=5) as link:
        link.sendall(b"x" * 300_000 + b"\n")
        with link.makefile("rb") as stream:
            assert json.loads(stream.readline())["ok"] is False
    with socket.create_connection(("127.0.0.1", camera.control_port), timeout=5) as link:
        link.sendall(b'{"do": "stats"}\n' * 50)
    assert camera.do("stats")["ok"] is True


def test_nothing_unexpected_is_said_on_standard_error() -> None:
    with SimCamera(footage.numbered(60), user="", password="") as camera:
        with Talk(camera) as talk:
            talk.ask("SETUP", Transport="RTP/AVP/TCP;interleaved=0-1")
            talk.ask("PLAY")
            camera.do("drop")
        with Talk(camera) as talk:
            talk.send(b"OPTIONS rtsp://x/ RTSP/1.0\r\nContent-Length: \xb2\r\n\r\n")
            talk.answer()
        with socket.create_connection(("127.0.0.1", camera.control_port), timeout=5) as link:
            link.sendall(b"x" * 300_000 + b"\n")
        camera.do("restart", for_s=0.05)
        errors = camera.stop()
    assert errors == ""


def test_wrong_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no video")
    ended = subprocess.run(
        [sys.executable, "-m", "firmware_sim.camera", "--main", str(path), "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("firmware_sim.camera: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "told"), [(footage.mpeg4, "allowed: h264, hevc"), (footage.sound, "no video")]
)
def test_playout_refuses_what_it_cannot_play(make, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        playout.read(make())


def test_recording_in_memory_is_the_file() -> None:
    recording = playout.read(footage.numbered(60))
    assert len(recording.units) == 60
    assert recording.length_s == pytest.approx(6.0)
    assert recording.frames_per_s == footage.FPS
    assert [nal[0] & 0x1F for nal in recording.parameter_sets] == [7, 8]
    assert [unit.is_key for unit in recording.units[:11]] == [True, *[False] * 9, True]


def test_streams_are_made_as_a_camera_sends_them(tmp_path: Path) -> None:
    target = tmp_path / "sub.mp4"
    streams.make(footage.numbered(60), target, 160, 200)
    recording = playout.read(target)
    assert [place for place, unit in enumerate(recording.units) if unit.is_key] == [0, 20, 40]
    with pytest.raises(ValueError, match="no video"):
        streams.make(footage.sound(), tmp_path / "none.mp4", None, 200)


def test_ffprobe_and_ffmpeg_understand_the_camera(camera: SimCamera) -> None:
    if shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None:
        pytest.skip("ffmpeg is not installed (apt-get install ffmpeg)")
    url = camera.url.replace("//", f"//{USER}:{PASSWORD.replace('!', '%21')}@")
    options = ["-v", "error", "-rtsp_transport", "tcp", "-analyzeduration", "100000"]
    probed = subprocess.run(
        [
            "ffprobe",
            *options,
            "-show_entries",
            "stream=codec_name,width,height",
            "-of",
            "json",
            url,
        ],
        capture_output=True,
        check=True,
        timeout=30,
    )
    (stream,) = json.loads(probed.stdout)["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", 320, 180)
    decoded = subprocess.run(
        ["ffmpeg", *options, "-i", url, "-frames:v", "12", "-f", "framemd5", "-"],
        capture_output=True,
        check=True,
        timeout=30,
        text=True,
    )
    assert len([line for line in decoded.stdout.splitlines() if line[:1] != "#"]) == 12
    assert decoded.stderr == ""
