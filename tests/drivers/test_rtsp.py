"""The RTSP driver against the simulated camera and against servers that misbehave."""

import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

import pytest

from agent.core.clock import RealClock
from agent.core.errors import AgentError, AuthRefused, ConfigError, SourceLost, Unsupported
from drivers import rtsp as driver
from tests import footage
from tests.simcamera import PASSWORD, USER, SimCamera

pytestmark = pytest.mark.video


@pytest.fixture(scope="module")
def camera() -> Iterator[SimCamera]:
    with SimCamera(footage.numbered(60)) as started:
        yield started


@pytest.fixture
def source(camera: SimCamera, tmp_path: Path) -> Iterator[driver.RtspSource]:
    made = build(camera.url, tmp_path)
    yield made
    made.close()


def build(url: str, folder: Path, password: str = PASSWORD, **options) -> driver.RtspSource:
    path = folder / "password"
    path.write_text(password + "\n")
    options = {"stall_s": 1.0, "open_timeout_s": 3.0} | options
    return driver.build(driver.Config(url, USER, path, **options), RealClock())


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one connection with `talk` and give the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            kept.append(link)
            try:
                talk(link)
            except OSError:
                return

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/main"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
        for link in kept:
            link.close()


def refusal(source: driver.RtspSource) -> AgentError:
    with pytest.raises(AgentError) as caught:
        source.open()
    return caught.value


def test_cameras_own_clock_is_seen(camera: SimCamera, source: driver.RtspSource) -> None:
    camera.do("clock", offset_s=-3600)
    try:
        source.open()
        packets = list(islice(source.packets(), 15))
    finally:
        camera.do("clock", offset_s=0)
    offsets_s = [
        (packet.camera_utc_ns - packet.utc_ns) / 1e9
        for packet in packets
        if packet.camera_utc_ns is not None
    ]
    assert len(offsets_s) >= 10
    assert median(offsets_s) == pytest.approx(-3600, abs=2)


def test_first_packets_come_with_even_steps(source: driver.RtspSource) -> None:
    source.open()
    packets = list(islice(source.packets(), 8))
    steps = {right.dts - left.dts for left, right in pairwise(packets)}
    assert steps == {90_000 // footage.FPS}


def test_wrong_password_is_tried_once(
    camera: SimCamera, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = camera.do("stats")["failed_logins"]
    wrong = "hunter2-%!zz"
    error = refusal(build(camera.url, tmp_path, wrong))
    assert isinstance(error, AuthRefused)
    assert camera.do("stats")["failed_logins"] == before + 1
    assert USER in str(error)
    assert_silent_about(wrong, error, capfd)


def assert_silent_about(
    secret: str, error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    """The secret stands in no message, no traceback, and nothing was printed."""
    told = "".join(traceback.format_exception(error))
    seen: BaseException | None = error
    while seen is not None:
        told += repr(seen) + repr(seen.args)
        seen = seen.__cause__ or seen.__context__
    printed = capfd.readouterr()
    for text in (secret, secret.replace("%", "%25").replace("!", "%21"), f"{USER}:"):
        assert text not in told
        assert text not in printed.err + printed.out
    assert printed.err == ""


@pytest.mark.parametrize("path", ["/main-2", "/", "/main/../etc"])
def test_unknown_path_is_lost_and_named(camera: SimCamera, tmp_path: Path, path: str) -> None:
    error = refusal(build(camera.url.replace("/main", path), tmp_path))
    assert isinstance(error, SourceLost)
    assert path in str(error)
    assert "no such path" in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        ("400 Bad Request", SourceLost, "no such path"),
        ("403 Forbidden", AuthRefused, f"user '{USER}' turned down"),
        ("404 Not Found", SourceLost, "no such path"),
        ("453 Not Enough Bandwidth", SourceLost, "/main: "),
        ("503 Service Unavailable", SourceLost, "an error of its own"),
    ],
)
def test_refusals_say_who_must_act(
    tmp_path: Path,
    status: str,
    kind: type[AgentError],
    told: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def talk(link: socket.socket) -> None:
        while request := link.recv(4096):
            cseq = request.decode().partition("CSeq: ")[2].partition("\r")[0]
            answer = "200 OK" if request.startswith(b"OPTIONS") else status
            link.sendall(f"RTSP/1.0 {answer}\r\nCSeq: {cseq}\r\n\r\n".encode())

    with server(talk) as url:
        error = refusal(build(url, tmp_path))
    assert isinstance(error, kind)
    assert told in str(error)
    assert_silent_about(PASSWORD, error, capfd)


def test_refused_connection_is_lost(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = refusal(build(f"rtsp://127.0.0.1:{port}/main", tmp_path))
    assert isinstance(error, SourceLost)
    assert "refused" in str(error)
    assert_silent_about(PASSWORD, error, capfd)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\0\xff" * 500,
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 5\r\n\r\nhello",
        b"RTSP/1.0 500 Internal Server Error\r\nCSeq: 1\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
def test_rubbish_is_lost_in_bounded_time(
    tmp_path: Path, rubbish: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    def talk(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(rubbish)
        link.shutdown(socket.SHUT_RDWR)

    with server(talk) as url:
        begun = time.monotonic()
        error = refusal(build(url, tmp_path, open_timeout_s=1.0))
        assert time.monotonic() - begun < 3
    assert isinstance(error, SourceLost | Unsupported)
    assert url in str(error)
    assert_silent_about(PASSWORD, error, capfd)


def test_server_that_says_nothing_is_lost_in_time(tmp_path: Path) -> None:
    with server(lambda link: None) as url:
        begun = time.monotonic()
        error = refusal(build(url, tmp_path, open_timeout_s=1.0))
        assert 0.9 < time.monotonic() - begun < 2.6
    assert isinstance(error, SourceLost)


def test_close_calls_off_an_open_that_hangs(tmp_path: Path) -> None:
    with server(lambda link: None) as url:
        source = build(url, tmp_path, open_timeout_s=1.5)
        threading.Timer(0.2, source.close).start()
        begun = time.monotonic()
        error = refusal(source)
        assert time.monotonic() - begun < 1.2
        assert isinstance(error, SourceLost)
        while any(thread.name == "opening" for thread in threading.enumerate()):
            time.sleep(0.05)


def test_dropped_connection_is_lost(camera: SimCamera, source: driver.RtspSource) -> None:
    source.open()
    packets = source.packets()
    next(packets)
    camera.do("drop")
    begun = time.monotonic()
    with pytest.raises(SourceLost, match=camera.url):
        list(packets)
    assert time.monotonic() - begun < 3


def test_stall_is_noticed(camera: SimCamera, source: driver.RtspSource) -> None:
    source.open()
    packets = source.packets()
    next(packets)
    camera.do("stall")
    begun = time.monotonic()
    try:
        with pytest.raises(SourceLost, match=camera.url):
            list(packets)
    finally:
        camera.do("resume")
    assert 0.9 < time.monotonic() - begun < 2.5


def test_stall_with_the_default_limit_is_noticed_within_five_seconds(
    camera: SimCamera, tmp_path: Path
) -> None:
    source = build(camera.url, tmp_path, stall_s=4.0)
    source.open()
    packets = source.packets()
    next(packets)
    camera.do("stall")
    begun = time.monotonic()
    try:
        with pytest.raises(SourceLost):
            list(packets)
        assert time.monotonic() - begun <= 5.0
    finally:
        camera.do("resume")


def test_a_short_stall_is_ridden_out(camera: SimCamera, source: driver.RtspSource) -> None:
    source.open()
    packets = source.packets()
    next(packets)
    camera.do("stall", for_s=0.6)
    assert len(list(islice(packets, 10))) == 10


def test_restarted_camera_is_opened_again(camera: SimCamera, source: driver.RtspSource) -> None:
    source.open()
    packets = source.packets()
    next(packets)
    camera.do("restart", for_s=0.2)
    with pytest.raises(SourceLost):
        list(packets)
    source.open()
    assert next(source.packets()).is_key


def test_refusing_camera_is_lost_and_comes_back(
    camera: SimCamera, source: driver.RtspSource
) -> None:
    camera.do("refuse")
    assert isinstance(refusal(source), SourceLost)
    camera.do("accept")
    assert source.open().codec == "h264"


def test_no_session_is_left_at_the_camera(camera: SimCamera, source: driver.RtspSource) -> None:
    source.open()
    source.close()
    source.open()
    next(source.packets())
    source.close()
    deadline = time.monotonic() + 3
    while camera.do("stats")["clients"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert camera.do("stats")["clients"] == 0


def test_session_closed_in_a_silence_ends_though_another_was_opened(
    camera: SimCamera, tmp_path: Path
) -> None:
    source = build(camera.url, tmp_path, stall_s=8.0)
    source.open()
    packets = source.packets()
    next(packets)
    camera.do("stall")
    source.close()
    assert list(packets) == []
    camera.do("resume")
    source.open()
    packets = source.packets()
    next(packets)
    deadline = time.monotonic() + 5
    while camera.do("stats")["clients"] > 1 and time.monotonic() < deadline:
        next(packets)
    assert camera.do("stats")["clients"] == 1
    assert sum(thread.name == "rtsp" for thread in threading.enumerate()) == 1
    packets.close()


def test_a_reader_that_stops_taking_ends_within_its_limit(
    camera: SimCamera, source: driver.RtspSource
) -> None:
    source.open()
    stream = source.packets()
    next(stream)
    begun = time.monotonic()
    stream.close()
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("content", ["", b"\xff\xfe\n"])
def test_unreadable_password_is_refused_without_a_try(
    camera: SimCamera, tmp_path: Path, content: str | bytes
) -> None:
    before = camera.do("stats")["connections"]
    path = tmp_path / "password"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = driver.build(driver.Config(camera.url, USER, path), RealClock())
    error = refusal(source)
    assert isinstance(error, AuthRefused)
    assert str(path) in str(error)
    assert camera.do("stats")["connections"] == before


def test_login_without_password_file_is_refused_by_the_camera(camera: SimCamera) -> None:
    source = driver.build(driver.Config(camera.url, USER), RealClock())
    assert isinstance(refusal(source), AuthRefused)


def test_camera_without_login_takes_anybody() -> None:
    with SimCamera(footage.numbered(60), user="", password="") as open_camera:
        source = driver.build(driver.Config(open_camera.url), RealClock())
        assert source.open().width_px == 320
        source.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("rtsp://root:pw-9@camera/main", "holds a user or password"),
        ("rtsp://root@camera/main", "holds a user or password"),
        ("rtsp://:pw-9@camera/main", "holds a user or password"),
        ("http://camera/main", "allowed: rtsp://"),
        ("camera/main", "allowed: rtsp://"),
        ("", "allowed: rtsp://"),
        ("rtsp://", "allowed: rtsp://"),
        ("rtsp:///main", "allowed: rtsp://"),
        ("rtsp://camera:99999/main", "allowed: rtsp://"),
        ("rtsp://camera:0/main", "allowed: rtsp://"),
        ("rtsp://[::1/main", "allowed: rtsp://"),
        ("rtsp://camera/main\r\nX: y", "allowed: rtsp://"),
        ("rtsp://camera/main\0", "allowed: rtsp://"),
        ("rtsp://camera/my stream", "allowed: rtsp://"),
        ("http://root:pw-9@camera:port/", "url"),
        ("rtsp://camera/main?user=root&password=pw-9", "its query holds a secret (password=…)"),
        ("rtsp://camera/main?channel=1&PWD=pw-9", "its query holds a secret (PWD=…)"),
    ],
)
def test_wrong_addresses_are_refused_without_repeating_a_password(url: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        driver.Config(url)
    assert told in str(caught.value)
    assert "pw-9" not in "".join(traceback.format_exception(caught.value))
