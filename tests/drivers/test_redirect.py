"""Cameras that lead elsewhere: they are not obeyed, and nobody else is spoken to."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shutil import which

import pytest

from agent.core.clock import RealClock
from agent.core.errors import SourceLost
from drivers import rtsp as driver
from tests import footage
from tests.simcamera import PASSWORD, USER, SimCamera

pytestmark = pytest.mark.video


class Bystander:
    """A host that no configuration names; keeps what anybody says to it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.2", 0))
        self.port = self._listener.getsockname()[1]
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self.heard.append(b"connected")
            with link:
                link.settimeout(1)
                try:
                    self.heard.append(link.recv(4096))
                except OSError:
                    continue

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def bystander() -> Iterator[Bystander]:
    made = Bystander()
    yield made
    made.close()


@pytest.fixture(scope="module", params=["login", "no login"])
def camera(request: pytest.FixtureRequest) -> Iterator[SimCamera]:
    user = USER if request.param == "login" else ""
    with SimCamera(footage.numbered(60), user=user) as started:
        yield started


def build(url: str, folder: Path, **options) -> driver.RtspSource:
    path = folder / "password"
    path.write_text(PASSWORD + "\n")
    settings = {"user": USER, "stall_s": 2.0, "open_timeout_s": 3.0} | options
    return driver.build(driver.Config(url, password_path=path, **settings), RealClock())


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("rtsp://127.0.0.2:{port}/x", "rtsp://127.0.0.2:{port};"),
        ("rtsps://127.0.0.2:{port}/x", "rtsps://127.0.0.2:{port};"),
        ("http://127.0.0.2:{port}/x", "http://127.0.0.2:{port};"),
        ("tcp://127.0.0.2:{port}", "tcp://127.0.0.2:{port};"),
        ("rtsp://a:hunter2@127.0.0.2:{port}/x?password=hunter2", "rtsp://127.0.0.2:{port};"),
        ("file:///etc/passwd", "file://;"),
        ("rtsp://169.254.169.254/latest", "rtsp://169.254.169.254;"),
        ("rtsp://[fe80::1]:554/x", "rtsp://fe80::1:554;"),
        ("rtsp://[broken", "nowhere;"),
    ],
)
def test_a_camera_that_sends_us_elsewhere_is_not_obeyed(
    camera: SimCamera, tmp_path: Path, bystander: Bystander, target: str, told: str
) -> None:
    camera.do("set", redirect=target.format(port=bystander.port))
    before = camera.do("stats")
    try:
        with pytest.raises(SourceLost) as caught:
            build(camera.url, tmp_path).open()
    finally:
        camera.do("reset")
    assert f"sends us on to {told.format(port=bystander.port)}" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert bystander.heard == []
    after = camera.do("stats")
    assert after["connections"] - before["connections"] == 1
    assert after["failed_logins"] == before["failed_logins"]


def test_a_camera_that_sends_us_to_itself_is_asked_once(camera: SimCamera, tmp_path: Path) -> None:
    camera.do("set", redirect=camera.url)
    before = camera.do("stats")
    try:
        with pytest.raises(SourceLost, match="sends us on to"):
            build(camera.url, tmp_path).open()
    finally:
        camera.do("reset")
    after = camera.do("stats")
    assert after["connections"] - before["connections"] == 1
    assert after["failed_logins"] == before["failed_logins"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a certificate with its key in one file, signed by nobody, as cameras have them."""
    if which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=camera", "-keyout", "key.pem", "-out", "camera.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    both = folder / "both.pem"
    both.write_text((folder / "camera.pem").read_text() + (folder / "key.pem").read_text())
    return both


def test_a_camera_that_speaks_tls(certificate: Path, tmp_path: Path) -> None:
    with SimCamera(footage.noisy(30), "--tls", str(certificate)) as secured:
        source = build(secured.url.replace("rtsp:", "rtsps:"), tmp_path)
        source.open()
        packets = list(islice(source.packets(), 30))
        source.close()
        with pytest.raises(SourceLost):
            build(secured.url, tmp_path, open_timeout_s=2.0).open()
    assert packets[0].is_key
    assert sum(len(packet.payload) for packet in packets) > 1_000_000


def test_a_camera_without_tls_is_told_from_one_with_it(camera: SimCamera, tmp_path: Path) -> None:
    with pytest.raises(SourceLost, match=r"rtsps://.*: .+"):
        build(camera.url.replace("rtsp:", "rtsps:"), tmp_path).open()


def test_tls_needs_no_name_and_hides_the_talk(certificate: Path) -> None:
    with SimCamera(footage.numbered(60), "--tls", str(certificate)) as secured:
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        with context.wrap_socket(secured.connect()) as link:
            link.sendall(b"OPTIONS rtsp://x/ RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            assert link.recv(100).startswith(b"RTSP/1.0 200 OK")
