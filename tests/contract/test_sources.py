"""What every source driver promises, asked of all of them."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import av
import pytest

from agent import app
from agent.core.clock import RealClock
from agent.core.config import Kinded
from agent.core.errors import SourceLost
from drivers import file as file_driver
from drivers import onvif as onvif_driver
from drivers import rtsp as rtsp_driver
from drivers import v4l2 as v4l2_driver
from drivers._contract import Source
from tests import footage
from tests.simcamera import PASSWORD, USER, SimCamera
from tests.simonvif import SimOnvif

pytestmark = pytest.mark.video

Build = Callable[[], Source]


@pytest.fixture(scope="module")
def camera() -> Iterator[SimCamera]:
    with SimCamera(footage.numbered(60)) as started:
        yield started


@pytest.fixture(scope="module")
def device(camera: SimCamera) -> Iterator[SimOnvif]:
    with SimOnvif(main=camera.url) as started:
        yield started


@pytest.fixture(
    params=[
        "rtsp",
        "rtsp-udp",
        "rtsp-auto",
        "onvif",
        "v4l2",
        "file",
        "file-realtime",
        "file-hevc",
        "file-bframes",
    ]
)
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Build:
    """Give a maker of sources that would go on for ever."""
    if request.param == "v4l2":
        usb = v4l2_driver.Config(tmp_path, "raw", width_px=320, height_px=180, rate_per_s=10)
        return lambda: v4l2_driver.V4l2Source(usb, RealClock(), _made_camera)
    if request.param == "onvif":
        device = request.getfixturevalue("device")
        password = tmp_path / "password"
        password.write_text(PASSWORD + "\n")
        asked = onvif_driver.Config("127.0.0.1", device.port, USER, password, stall_s=2)
        return lambda: app.source(Kinded("onvif", asked), RealClock())
    if request.param.startswith("rtsp"):
        camera = request.getfixturevalue("camera")
        password = tmp_path / "password"
        password.write_text(PASSWORD + "\n")
        transport = {"rtsp-udp": "udp", "rtsp-auto": "auto"}.get(request.param, "tcp")
        config = rtsp_driver.Config(camera.url, USER, password, stall_s=2, transport=transport)
        return lambda: rtsp_driver.build(config, RealClock())
    path = {
        "file-hevc": lambda: footage.numbered(30, codec="libx265"),
        "file-bframes": lambda: footage.numbered(30, bframes=2),
    }.get(request.param, lambda: footage.numbered(60))()
    is_realtime = request.param == "file-realtime"
    file_config = file_driver.Config(path, is_looped=True, is_realtime=is_realtime)
    return lambda: file_driver.build(file_config, RealClock())


def _made_camera(_config: v4l2_driver.Config) -> av.container.InputContainer:
    """A device that gives raw pictures when they are due, as a real one does."""
    played = f"movie={footage.numbered(60)}:loop=0,setpts=N/{footage.FPS}/TB,realtime"
    return av.open(played, format="lavfi")


def test_stream_is_described(build: Build) -> None:
    source = build()
    info = source.open()
    source.close()
    assert (info.codec in ("h264", "hevc"), info.width_px, info.height_px) == (True, 320, 180)
    assert info.time_base > 0
    assert info.fps_nominal == pytest.approx(footage.FPS)


def test_packets_begin_at_a_key_frame_with_rising_times_in_annex_b(build: Build) -> None:
    source = build()
    source.open()
    packets = list(islice(source.packets(), 20))
    source.close()
    assert packets[0].is_key
    assert all(left.dts < right.dts for left, right in pairwise(packets))
    assert all(packet.pts >= packet.dts for packet in packets)
    assert all(
        packet.payload[:3] == b"\0\0\1" or packet.payload[:4] == b"\0\0\0\1" for packet in packets
    )
    assert {packet.run for packet in packets} == {""}
    assert all(left.arrival_mono_ns <= right.arrival_mono_ns for left, right in pairwise(packets))
    assert abs(packets[-1].utc_ns - time.time_ns()) < 5 * 10**9


def test_no_picture_is_missing_at_the_start(build: Build) -> None:
    source = build()
    info = source.open()
    decoder = av.CodecContext.create(info.codec, "r")
    seen = []
    for packet in islice(source.packets(), 20):
        seen += [footage._number(frame) for frame in decoder.decode(av.Packet(packet.payload))]
    source.close()
    assert len(seen) >= 10
    assert all((right - left) % 60 == 1 for left, right in pairwise(seen))


def test_opens_again_after_close(build: Build) -> None:
    source = build()
    for _ in range(2):
        source.open()
        assert next(iter(source.packets())).is_key
        source.close()
        source.close()


def test_close_from_another_thread_ends_the_packets(build: Build) -> None:
    source = build()
    source.open()
    has_begun = threading.Event()
    ended: list[float] = []

    def read() -> None:
        for _ in source.packets():
            has_begun.set()
        ended.append(time.monotonic())

    thread = threading.Thread(target=read)
    thread.start()
    assert has_begun.wait(5)
    closed = time.monotonic()
    source.close()
    thread.join(5)
    assert ended
    assert ended[0] - closed < 2.0


def test_packets_without_open_are_refused(build: Build) -> None:
    with pytest.raises(SourceLost, match="not open"):
        next(iter(build().packets()))


def test_twenty_sessions_leave_no_descriptor_and_no_thread(build: Build) -> None:
    source = build()
    source.open()
    next(iter(source.packets()))
    source.close()
    descriptors, threads = _descriptors(), threading.active_count()
    for number in range(20):
        source.open()
        if number % 2:
            stream = source.packets()
            next(stream)
            stream.close()
        source.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and threading.active_count() > threads:
        time.sleep(0.02)
    assert threading.active_count() <= threads
    assert _descriptors() <= descriptors


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
