"""The driver against a server that we did not write: GStreamer's."""

import select
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.core.errors import SourceLost
from drivers import rtsp as driver
from tests import footage

pytestmark = pytest.mark.video
PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("gst_server.py")
NEEDED = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
)


def start(path: Path) -> tuple[subprocess.Popen, int]:
    process = subprocess.Popen(
        [PYTHON, str(SCRIPT), str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], 20)[0]:
        process.kill()
        raise AssertionError("GStreamer's server did not start")
    return process, int(process.stdout.readline())


@pytest.fixture(scope="module")
def is_there() -> None:
    if not Path(PYTHON).exists():
        pytest.skip(f"{PYTHON} is missing")
    found = subprocess.run([PYTHON, "-c", NEEDED], capture_output=True, check=False)
    if found.returncode != 0:
        pytest.skip(
            "GStreamer's RTSP server is not installed (apt-get install gstreamer1.0-rtsp"
            " gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good"
            " gstreamer1.0-plugins-bad)"
        )


@pytest.fixture
def server(is_there: None) -> Iterator[tuple[subprocess.Popen, int]]:
    process, port = start(footage.numbered(200))
    yield process, port
    process.kill()
    process.communicate(timeout=10)


def build(port: int, **options) -> driver.RtspSource:
    settings = {"stall_s": 3.0, "open_timeout_s": 8.0} | options
    return driver.build(driver.Config(f"rtsp://127.0.0.1:{port}/main", **settings), RealClock())


@pytest.mark.parametrize("transport", ["tcp", "udp", "auto"])
def test_its_stream_is_taken(server: tuple[subprocess.Popen, int], transport: str) -> None:
    source = build(server[1], transport=transport)
    info = source.open()
    packets = list(islice(source.packets(), 30))
    source.close()
    assert (info.codec, info.width_px, info.height_px) == ("h264", 320, 180)
    assert packets[0].is_key
    assert all(one.dts < other.dts for one, other in pairwise(packets))


def test_its_reports_tell_its_time(server: tuple[subprocess.Popen, int]) -> None:
    source = build(server[1])
    source.open()
    reported = (one for one in islice(source.packets(), 150) if one.camera_utc_ns is not None)
    first = next(reported)
    source.close()
    assert abs(first.camera_utc_ns - first.utc_ns) < 2_000_000_000


def test_its_death_is_noticed_and_its_successor_is_found(
    server: tuple[subprocess.Popen, int],
) -> None:
    process, port = server
    source = build(port)
    source.open()
    stream = source.packets()
    list(islice(stream, 5))
    process.send_signal(signal.SIGKILL)
    begun_s = time.monotonic()
    with pytest.raises(SourceLost):
        list(stream)
    assert time.monotonic() - begun_s < 5
    with pytest.raises(SourceLost):
        build(port).open()


def test_the_end_of_its_file_is_a_lost_camera(is_there: None) -> None:
    process, port = start(footage.numbered(20))
    try:
        source = build(port)
        source.open()
        with pytest.raises(SourceLost):
            list(source.packets())
    finally:
        process.kill()
        process.communicate(timeout=10)
