"""Everything that cameras do wrong, as the driver shows it: one test a fault."""

import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import av
import pytest

from agent.core import log
from agent.core.clock import RealClock
from agent.core.errors import AuthRefused, ConfigError, SourceLost, Unsupported
from agent.core.model import Packet
from drivers import rtsp as driver
from tests import footage
from tests.simcamera import PASSWORD, USER, SimCamera

pytestmark = pytest.mark.video


@pytest.fixture(scope="module")
def running() -> Iterator[SimCamera]:
    with SimCamera(footage.numbered(60), "--seed", "7") as started:
        yield started


@pytest.fixture
def camera(running: SimCamera) -> Iterator[SimCamera]:
    yield running
    running.do("reset")
    running.do("unlock")


@pytest.fixture
def source(camera: SimCamera, tmp_path: Path) -> Iterator[driver.RtspSource]:
    made = build(camera.url, tmp_path)
    yield made
    made.close()


def build(url: str, folder: Path, password: str = PASSWORD, **options) -> driver.RtspSource:
    path = folder / "password"
    path.write_text(password + "\n")
    settings = {"user": USER, "stall_s": 2.0, "open_timeout_s": 3.0} | options
    return driver.build(driver.Config(url, password_path=path, **settings), RealClock())


def taken(source: driver.RtspSource, count: int) -> list[Packet]:
    source.open()
    found = list(islice(source.packets(), count))
    source.close()
    return found


def until_lost(source: driver.RtspSource, limit_s: float = 15.0) -> tuple[list[Packet], SourceLost]:
    begun_s = time.monotonic()
    found: list[Packet] = []
    try:
        for packet in source.packets():
            found.append(packet)
            assert time.monotonic() - begun_s < limit_s, "never lost"
    except SourceLost as error:
        return found, error
    raise AssertionError("ended without a reason")


def pictures(packets: list[Packet], codec: str = "h264") -> list[av.VideoFrame]:
    context = av.CodecContext.create(codec, "r")
    shown = []
    for packet in packets:
        try:
            shown += context.decode(av.Packet(packet.payload))
        except av.error.InvalidDataError:
            continue
    return shown + context.decode(None)


# Transports.


@pytest.mark.parametrize("transport", ["udp", "auto"])
def test_a_camera_that_only_knows_udp(camera: SimCamera, tmp_path: Path, transport: str) -> None:
    camera.do("set", transports="udp")
    packets = taken(build(camera.url, tmp_path, transport=transport), 25)
    assert packets[0].is_key
    assert all(one.dts < other.dts for one, other in pairwise(packets))
    assert len(pictures(packets)) >= 24


def test_a_camera_that_only_knows_udp_is_named_as_such(camera: SimCamera, tmp_path: Path) -> None:
    camera.do("set", transports="udp")
    with pytest.raises(SourceLost, match="does not send by tcp; allowed: transport"):
        build(camera.url, tmp_path).open()


def test_auto_takes_tcp_where_it_can(camera: SimCamera, tmp_path: Path) -> None:
    camera.do("set", transports="tcp")
    assert taken(build(camera.url, tmp_path, transport="auto"), 5)


def test_udp_with_loss_goes_on(camera: SimCamera, tmp_path: Path) -> None:
    camera.do("set", loss=0.05)
    packets = taken(build(camera.url, tmp_path, transport="udp"), 40)
    assert all(one.dts < other.dts for one, other in pairwise(packets))


def test_a_stall_over_udp_is_noticed(camera: SimCamera, tmp_path: Path) -> None:
    source = build(camera.url, tmp_path, transport="udp")
    source.open()
    threading.Timer(0.5, lambda: camera.do("stall")).start()
    begun_s = time.monotonic()
    try:
        _, error = until_lost(source)
    finally:
        camera.do("resume")
    assert "no packet for" in str(error)
    assert time.monotonic() - begun_s < 6


# Logins.


def test_basic_login(camera: SimCamera, tmp_path: Path) -> None:
    camera.do("set", login="basic")
    assert taken(build(camera.url, tmp_path), 3)


def test_a_locked_account_is_refused_even_with_the_right_password(
    camera: SimCamera, tmp_path: Path
) -> None:
    camera.do("set", lock_after=1)
    with pytest.raises(AuthRefused):
        build(camera.url, tmp_path, "wrong").open()
    with pytest.raises(AuthRefused, match="turned down"):
        build(camera.url, tmp_path).open()
    assert camera.do("stats")["failed_logins"] == 1


def test_the_password_may_stand_in_the_query(
    camera: SimCamera, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with SimCamera(footage.numbered(30), user="") as open_camera:
        url = open_camera.url + "?user=viewer&password={password}"
        source = build(url, tmp_path, user="")
        packets = taken(source, 3)
        assert packets
        open_camera.stop()
        with pytest.raises(SourceLost) as caught:
            source.open()
    said = str(caught.value) + repr(source) + "".join(capfd.readouterr())
    assert "{password}" in said
    assert PASSWORD not in said
    assert PASSWORD not in Path("/proc/self/cmdline").read_text()


def test_a_secret_in_the_query_is_refused_and_its_stand_in_needs_a_file() -> None:
    with pytest.raises(ConfigError, match=r"password=\{password\}") as caught:
        driver.Config("rtsp://cam/live?password=hunter2")
    assert "hunter2" not in log.redact(str(caught.value))
    with pytest.raises(ConfigError, match="without password_path"):
        driver.Config("rtsp://cam/live?password={password}")


# What is sent.


def test_no_key_frame_any_more_leaves_a_stream_without_key_frames(
    camera: SimCamera, source: driver.RtspSource
) -> None:
    source.open()
    stream = source.packets()
    first = list(islice(stream, 5))
    camera.do("set", has_key_frames=False)
    later = list(islice(stream, 40))
    assert first[0].is_key
    assert not any(packet.is_key for packet in later[10:])


def test_a_stream_that_never_had_a_key_frame_is_lost_not_endless(
    camera: SimCamera, tmp_path: Path
) -> None:
    camera.do("set", has_key_frames=False)
    source = build(camera.url, tmp_path)
    try:
        source.open()
    except SourceLost:
        return
    found, _ = until_lost(source)
    assert found == []


def test_missing_pictures_are_longer_steps(camera: SimCamera, source: driver.RtspSource) -> None:
    camera.do("set", frames_missing=0.5)
    packets = taken(source, 40)
    steps = [other.pts_us - one.pts_us for one, other in pairwise(packets)]
    assert max(steps) >= 2 * min(steps)


def test_a_frozen_picture_has_a_running_clock(camera: SimCamera, source: driver.RtspSource) -> None:
    source.open()
    stream = source.packets()
    list(islice(stream, 12))
    camera.do("set", is_frozen=True)
    packets = list(islice(stream, 30))[5:]
    planes = {bytes(frame.planes[0]) for frame in pictures(packets)}
    assert len(planes) <= 2
    assert packets[-1].pts_us - packets[0].pts_us > 1_500_000


def test_no_sender_reports_means_no_camera_time(
    camera: SimCamera, source: driver.RtspSource
) -> None:
    camera.do("set", has_reports=False)
    assert {packet.camera_utc_ns for packet in taken(source, 20)} == {None}


@pytest.mark.parametrize("jump_s", [100.0, -5.0, 47_000.0])
def test_a_jump_of_the_cameras_time_is_a_jump_of_pts(
    camera: SimCamera, source: driver.RtspSource, jump_s: float
) -> None:
    source.open()
    stream = source.packets()
    list(islice(stream, 5))
    camera.do("set", jump_s=jump_s)
    steps = [b.pts_us - a.pts_us for a, b in pairwise(islice(stream, 30))]
    assert max(abs(step) for step in steps) > 2_000_000


def test_rtp_time_that_wraps_goes_on(camera: SimCamera, source: driver.RtspSource) -> None:
    """32 bits of 90 kHz last thirteen hours: libav unwraps them when the step is small."""
    camera.do("set", jump_s=(2**32 - 2**31 - 3 * 90_000) / 90_000)
    packets = taken(source, 60)
    steps = [b.pts_us - a.pts_us for a, b in pairwise(packets[12:])]
    assert max(abs(step) for step in steps) < 2_000_000


@pytest.mark.parametrize(
    "fault",
    [
        {"bit_errors": 0.05},
        {"truncated": 0.05},
        {"loss": 0.02},
        {"has_padding": True},
        {"is_aggregating": True},
    ],
    ids=str,
)
def test_damaged_packets_raise_nothing(
    camera: SimCamera, source: driver.RtspSource, fault: dict[str, object]
) -> None:
    camera.do("set", **fault)
    packets = taken(source, 40)
    assert len(packets) == 40
    assert all(packet.pts is not None for packet in packets)
    assert len(pictures(packets)) > 10


@pytest.mark.parametrize("fault", [{"lying_lengths": 0.05}, {"answer": "rubbish_frames"}], ids=str)
def test_broken_framing_costs_pictures_or_the_session_but_no_more(
    camera: SimCamera, source: driver.RtspSource, fault: dict[str, object]
) -> None:
    source.open()
    camera.do("set", **fault)
    begun_s = time.monotonic()
    with contextlib.suppress(SourceLost):
        for _ in islice(source.packets(), 60):
            pass
    assert time.monotonic() - begun_s < 20
    source.close()
    camera.do("reset")
    assert taken(source, 3)


def test_another_size_comes_with_its_parameter_sets(
    camera: SimCamera, source: driver.RtspSource, tmp_path: Path
) -> None:
    larger = footage.numbered(60, 640)
    source.open()
    stream = source.packets()
    list(islice(stream, 5))
    camera.do("play", stream="main", file=str(larger))
    sizes = {(frame.width, frame.height) for frame in pictures(list(islice(stream, 60)))}
    source.close()
    camera.do("play", stream="main", file=str(footage.numbered(60)))
    assert (640, 180) in sizes


def test_another_codec_ends_the_session_and_the_next_one_has_it(
    camera: SimCamera, source: driver.RtspSource
) -> None:
    source.open()
    other = footage.numbered(60, codec="libx265")
    threading.Timer(0.5, lambda: camera.do("play", stream="main", file=str(other))).start()
    _, error = until_lost(source)
    assert "sends no h264 any more" in str(error)
    info = source.open()
    packets = list(islice(source.packets(), 25))
    source.close()
    camera.do("play", stream="main", file=str(footage.numbered(60)))
    assert info.codec == "hevc"
    assert packets[0].is_key
    assert len(pictures(packets, "hevc")) >= 20


def test_pictures_out_of_order_are_sent_in_decoding_order(tmp_path: Path) -> None:
    with SimCamera(footage.numbered(60, bframes=2)) as reordering:
        packets = taken(build(reordering.url, tmp_path), 40)
    assert all(one.dts < other.dts for one, other in pairwise(packets))
    assert all(packet.pts >= packet.dts for packet in packets)
    assert any(one.pts > other.pts for one, other in pairwise(packets))
    shown = [frame.pts for frame in pictures(packets)]
    assert len(shown) >= 35


def test_h265_is_taken(tmp_path: Path) -> None:
    with SimCamera(footage.numbered(60, codec="libx265")) as modern:
        source = build(modern.url, tmp_path)
        info = source.open()
        packets = list(islice(source.packets(), 30))
        source.close()
    assert info.codec == "hevc"
    assert len(pictures(packets, "hevc")) >= 28


def test_sound_beside_the_picture_is_left_out(tmp_path: Path) -> None:
    with SimCamera(footage.numbered(60), "--audio") as talking:
        packets = taken(build(talking.url, tmp_path), 30)
    assert len(pictures(packets)) >= 28


# What is answered.


def test_sound_without_a_picture_is_unsupported(tmp_path: Path) -> None:
    with SimCamera(footage.numbered(60), "--audio") as radio:
        radio.do("set", sdp="no_video")
        with pytest.raises(Unsupported, match="no video stream"):
            build(radio.url, tmp_path).open()


def test_an_empty_description_is_lost(camera: SimCamera, source: driver.RtspSource) -> None:
    camera.do("set", sdp="empty")
    with pytest.raises(SourceLost):
        source.open()


def test_parameter_sets_that_come_in_band_alone_are_enough(
    camera: SimCamera, source: driver.RtspSource
) -> None:
    camera.do("set", sdp="no_sets")
    assert taken(source, 5)[0].is_key


@pytest.mark.parametrize("sdp", ["huge_sps", "zero_sps"])
def test_absurd_sizes_are_refused(camera: SimCamera, source: driver.RtspSource, sdp: str) -> None:
    camera.do("set", sdp=sdp)
    with pytest.raises(SourceLost, match="pictures of 0x0; allowed: 1x1 to 8192x8192"):
        source.open()


@pytest.mark.parametrize("answer", ["long_length", "endless_header", "silent"])
def test_answers_without_an_end_are_lost_in_time_and_memory(
    camera: SimCamera, source: driver.RtspSource, answer: str
) -> None:
    camera.do("set", answer=answer)
    before_kib = rss_kib()
    begun_s = time.monotonic()
    with pytest.raises(SourceLost):
        source.open()
    assert time.monotonic() - begun_s < 6
    assert rss_kib() - before_kib < 20_000


def rss_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_too_many_clients_are_lost_and_it_comes_back(
    camera: SimCamera, source: driver.RtspSource, tmp_path: Path
) -> None:
    camera.do("set", max_clients=1)
    first = build(camera.url, tmp_path)
    first.open()
    stream = first.packets()
    next(stream)
    with pytest.raises(SourceLost):
        source.open()
    first.close()
    list(stream)
    for _ in range(40):
        if camera.do("stats")["playing"] == 0:
            break
        time.sleep(0.1)
    assert taken(source, 3)


def test_a_camera_that_closes_at_once_is_lost(camera: SimCamera, source: driver.RtspSource) -> None:
    camera.do("set", closes_at_once=True)
    with pytest.raises(SourceLost):
        source.open()


def test_a_slow_reader_is_never_blamed_on_the_camera(
    camera: SimCamera, source: driver.RtspSource
) -> None:
    """We read on a thread of our own: whoever takes slowly fills our queue, not the camera's."""
    source.open()
    stream = source.packets()
    next(stream)
    time.sleep(3)
    assert camera.do("stats")["slow_readers"] == 0
    assert len(list(islice(stream, 20))) == 20
