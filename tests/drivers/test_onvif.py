"""The ONVIF driver against a simulated device, a good one and all kinds of bad ones."""

import socket
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from agent import app
from agent.core.clock import RealClock
from agent.core.config import Kinded
from agent.core.errors import AuthRefused, ConfigError, SourceLost, Unsupported
from drivers import _discovery as discovery
from drivers import _soap as soap
from drivers import onvif as driver
from tests import footage
from tests.simcamera import SimCamera
from tests.simonvif import PASSWORD, USER, SimOnvif


@pytest.fixture(scope="module")
def running() -> Iterator[SimOnvif]:
    with SimOnvif("--snapshot", str(footage.numbered(30))) as started:
        yield started


@pytest.fixture
def camera(running: SimOnvif) -> Iterator[SimOnvif]:
    yield running
    running.do("reset")


def config(port: int, folder: Path, password: str = PASSWORD, **options) -> driver.Config:
    path = folder / "password"
    path.write_text(password + "\n")
    settings = {"user": USER, "open_timeout_s": 2.0} | options
    return driver.Config("127.0.0.1", port, password_path=path, **settings)


def device(camera: SimOnvif, folder: Path, password: str = PASSWORD, **options) -> driver.Device:
    return driver.Device(config(camera.port, folder, password, **options), RealClock())


def test_it_says_who_it_is_and_what_it_has(camera: SimOnvif, tmp_path: Path):
    asked = device(camera, tmp_path)
    about = asked.about()
    assert (about.manufacturer, about.model, about.firmware) == ("Simulated", "SIM-1", "1.0")
    assert abs(about.clock_skew_s) < 3
    profiles = asked.profiles()
    assert [(one.token, one.codec, one.width_px) for one in profiles] == [
        ("main", "H264", 1920),
        ("sub", "H264", 640),
    ]
    assert asked.stream_url(profiles[0]) == "rtsp://127.0.0.1:9/main"
    assert asked.snapshot(profiles[0]).startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    "settings",
    [{"has_media2": False}, {"fault": "no_services"}, {"fault": "no_capabilities"}],
    ids=str,
)
def test_an_older_camera_is_understood(camera: SimOnvif, tmp_path: Path, settings: dict):
    camera.do("set", **settings)
    asked = device(camera, tmp_path)
    assert [profile.token for profile in asked.profiles()] == ["main", "sub"]
    assert asked.stream_url(asked.chosen()) == "rtsp://127.0.0.1:9/main"


@pytest.mark.parametrize(
    ("wanted", "token"),
    [("main", "main"), ("", "main"), ("sub", "sub"), ("sub stream", "sub")],
)
def test_a_profile_is_chosen(camera: SimOnvif, tmp_path: Path, wanted: str, token: str):
    assert device(camera, tmp_path, profile=wanted).chosen().token == token


def test_an_unknown_profile_is_named_with_those_that_exist(camera: SimOnvif, tmp_path: Path):
    with pytest.raises(Unsupported, match="no profile 'third'; allowed: main, sub, main, sub"):
        device(camera, tmp_path, profile="third").chosen()


@pytest.mark.parametrize("offset_s", [-7200, 86_400, -40_000_000])
def test_a_wrong_clock_locks_nobody_out(camera: SimOnvif, tmp_path: Path, offset_s: int):
    camera.do("set", clock_offset_s=offset_s)
    about = device(camera, tmp_path).about()
    assert about.clock_skew_s == pytest.approx(offset_s, abs=3)


@pytest.mark.parametrize("fault", ["http_digest", "two_digests", "basic"])
def test_the_login_of_http_is_spoken_where_it_is_wanted(
    camera: SimOnvif, tmp_path: Path, fault: str
):
    camera.do("set", fault=fault)
    asked = device(camera, tmp_path)
    assert asked.about().model == "SIM-1"
    assert asked.snapshot(asked.chosen()).startswith(b"\xff\xd8")
    before = camera.do("stats")["failed_logins"]
    with pytest.raises(AuthRefused, match="turned down"):
        device(camera, tmp_path, "not-the-password").about()
    assert camera.do("stats")["failed_logins"] == before + 1


def test_a_wrong_password_is_tried_once_and_shown_nowhere(camera: SimOnvif, tmp_path: Path):
    before = camera.do("stats")["failed_logins"]
    asked = device(camera, tmp_path, "not-the-password")
    with pytest.raises(AuthRefused, match=f"user '{USER}' turned down") as caught:
        asked.about()
    assert camera.do("stats")["failed_logins"] == before + 1
    assert "not-the-password" not in str(caught.value) + repr(asked._login())


def test_a_missing_password_is_told_before_anything_is_sent(camera: SimOnvif, tmp_path: Path):
    asked = device(camera, tmp_path)
    (tmp_path / "password").write_text("")
    with pytest.raises(AuthRefused, match="no password"):
        asked.about()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("bomb", "document type"),
        ("endless", "over 1048576 bytes"),
        ("hidden_bomb", "document type"),
        ("deep", "64 levels"),
        ("drip", "no answer within 2 s"),
        ("slow_headers", "no answer within 2 s"),
        ("rubbish", "not XML"),
        ("redirect", "status 302, a redirect"),
        ("silent", "no answer within 2 s"),
    ],
)
def test_hostile_answers_are_lost_in_time(camera: SimOnvif, tmp_path: Path, fault: str, told: str):
    camera.do("set", fault=fault)
    begun_s = time.monotonic()
    with pytest.raises(SourceLost, match=told):
        device(camera, tmp_path).about()
    assert time.monotonic() - begun_s < 6


@pytest.mark.parametrize("fault", ["not_supported", "empty_profiles"])
def test_what_it_does_not_have_is_unsupported(camera: SimOnvif, tmp_path: Path, fault: str):
    camera.do("set", fault=fault)
    with pytest.raises(Unsupported):
        device(camera, tmp_path).profiles()


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://169.254.169.254/latest",
        "rtsp://cameras.example.org/main",
        "file:///etc/passwd",
        "http://127.0.0.1/main",
        "rtsp://",
        "rtsp://[::1",
        "rtsp://127.0.0.1:99999/x",
        "not an address",
    ],
)
def test_an_address_elsewhere_is_refused(camera: SimOnvif, tmp_path: Path, url: str):
    camera.do("set", stream_url=url)
    asked = device(camera, tmp_path)
    with pytest.raises(Unsupported, match="allowed"):
        asked.stream_url(asked.chosen())


def test_an_inner_address_becomes_the_one_that_was_asked(camera: SimOnvif, tmp_path: Path):
    """A camera behind a router tells the address that it has there."""
    camera.do("set", stream_url="rtsp://admin:secret@192.168.1.64:8554/main?x=1")
    asked = device(camera, tmp_path)
    assert asked.stream_url(asked.chosen()) == "rtsp://127.0.0.1:8554/main?x=1"


def test_a_snapshot_that_is_none_is_refused(camera: SimOnvif, tmp_path: Path):
    asked = device(camera, tmp_path)
    camera.do("set", snapshot_url=f"http://127.0.0.1:{camera.port}/elsewhere")
    with pytest.raises(Unsupported, match="status 404, no JPEG"):
        asked.snapshot(asked.chosen())


def test_what_a_camera_says_is_no_command_to_a_terminal(camera: SimOnvif, tmp_path: Path):
    camera.do("set", fault="odd_fault")
    with pytest.raises(Unsupported, match="nothing") as caught:
        device(camera, tmp_path).profiles()
    assert str(caught.value).isprintable()


def test_a_camera_that_wants_a_login_says_so_if_there_is_none(camera: SimOnvif):
    asked = driver.Device(driver.Config("127.0.0.1", camera.port), RealClock())
    with pytest.raises(AuthRefused, match="it wants a login, and none is given"):
        asked.about()


@pytest.mark.parametrize(
    "url", ["rtsp://127.0.0.1/x?password=hunter2", "rtsp://127.0.0.1/a b", "rtsp://127.0.0.1:0/x"]
)
def test_an_address_that_rtsp_turns_down_ends_this_camera_only(
    camera: SimOnvif, tmp_path: Path, url: str
):
    """A ConfigError here would end the agent, and with it the recording of every other camera."""
    camera.do("set", stream_url=url)
    source = app.source(Kinded("onvif", config(camera.port, tmp_path)), RealClock())
    with pytest.raises(Unsupported, match="stream's url") as caught:
        source.open()
    assert "hunter2" not in str(caught.value)


def test_close_ends_an_open_that_waits(camera: SimOnvif, tmp_path: Path):
    camera.do("set", fault="slow_headers")
    settings = config(camera.port, tmp_path, open_timeout_s=30.0)
    source = app.source(Kinded("onvif", settings), RealClock())
    begun_s = time.monotonic()
    threading.Timer(0.5, source.close).start()
    with pytest.raises(SourceLost, match="closed"):
        source.open()
    assert time.monotonic() - begun_s < 10


def test_all_that_is_asked_has_one_limit(camera: SimOnvif, tmp_path: Path):
    asked = device(camera, tmp_path, open_timeout_s=1.0)
    assert asked.chosen().token == "main"
    time.sleep(1.1)
    with pytest.raises(SourceLost, match="no answer within 1 s"):
        asked.profiles()


@pytest.mark.parametrize("host", ["", "a b", "http://cam", "user@cam", "cam#x"])
def test_a_host_is_a_host(host: str):
    with pytest.raises(ConfigError, match="host"):
        driver.Config(host)


def test_nobody_at_home_is_lost(tmp_path: Path):
    with pytest.raises(SourceLost, match="refused"):
        driver.Device(config(9, tmp_path), RealClock()).about()


@pytest.mark.video
def test_the_stream_is_taken_and_found_again_under_another_address(tmp_path: Path):
    with (
        SimCamera(footage.numbered(60)) as first,
        SimCamera(footage.numbered(60)) as second,
        SimOnvif(main=first.url) as camera,
    ):
        source = app.source(
            Kinded("onvif", config(camera.port, tmp_path, open_timeout_s=5.0)), RealClock()
        )
        assert source.open().codec == "h264"
        assert next(source.packets()).is_key
        source.close()
        assert second.do("stats")["sessions"] == 0
        camera.do("set", stream_url=second.url)  # it was updated, and rearranged
        source.open()
        assert len(list(islice(source.packets(), 5))) == 5
        source.close()
        assert second.do("stats")["sessions"] == 1
        with pytest.raises(SourceLost, match="not open"):
            next(source.packets())


# Discovery.


@pytest.fixture(scope="module")
def found_camera() -> Iterator[SimOnvif]:
    with SimOnvif("--discovery", "127.0.0.1") as started:
        yield started


def test_cameras_on_the_network_are_found(found_camera: SimOnvif):
    (found,) = [
        one for one in discovery.discover(1.5, "127.0.0.1") if one.port == found_camera.port
    ]
    assert (found.host, found.name, found.hardware) == ("127.0.0.1", "Sim Camera", "SIM-1")
    assert found_camera.do("stats")["probes"] >= 2  # asked twice, answered twice, told once


@pytest.mark.parametrize("interface", ["203.0.113.7", "eth99", "no such thing"])
def test_a_network_that_is_not_ours_is_named(interface: str):
    with pytest.raises(SourceLost, match=f"discovery on {interface}.*allowed: our own address"):
        discovery.discover(0.2, interface)


def test_a_network_may_be_named_by_its_device(found_camera: SimOnvif):
    assert found_camera.port in {one.port for one in discovery.discover(1.5, "lo")}


def test_all_networks_are_asked_but_the_loopback():
    assert "127.0.0.1" not in discovery.own_addresses()


def claim(*addresses: str, scopes: str = "") -> bytes:
    where = f"<XAddrs>{' '.join(addresses)}</XAddrs>"
    return f"<ProbeMatch>{where}<Scopes>{scopes}</Scopes></ProbeMatch>".encode()


def answered(*answers: bytes) -> list[discovery.Found]:
    """Give what is found where somebody answers the first probe so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))

        def answer() -> None:
            _, asker = stranger.recvfrom(65_536)
            for text in answers:
                stranger.sendto(text, asker)

        thread = threading.Thread(target=answer)
        thread.start()
        found = discovery.discover(1.0, "127.0.0.1", stranger.getsockname())
        thread.join()
    return found


def test_an_answer_is_told_once_and_believed_for_its_sender_only():
    names = "onvif://www.onvif.org/name/North%20Gate onvif://www.onvif.org/hardware/A%1b%5b2J1"
    ours = claim("http://[fe80::1]/x", "http://127.0.0.1:8080/onvif", scopes=names)
    (found,) = answered(
        b"\xff", claim("http://10.0.0.1/onvif"), ours, ours, claim("http://127.0.0.1:8080/other")
    )
    assert (found.host, found.port, found.name, found.hardware) == (
        *("127.0.0.1", 8080),
        *("North Gate", "A [2J1"),
    )


def test_no_host_crowds_the_others_out():
    found = answered(*(claim(f"http://127.0.0.1:{port}/x") for port in range(1, 60)))
    assert [one.port for one in found] == list(range(1, discovery.MAX_A_HOST + 1))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff",
        b"<a/>",
        b"<!DOCTYPE a [<!ENTITY x 'y'>]><a/>",
        b"<ProbeMatch><XAddrs>http://169.254.169.254/x</XAddrs></ProbeMatch>",
        b"<ProbeMatch><XAddrs>http://127.0.0.1:x/y file:///etc/passwd</XAddrs></ProbeMatch>",
    ],
)
def test_strange_answers_are_passed_over(answer: bytes):
    assert discovery._read(answer, "127.0.0.1") is None


def test_too_many_elements_are_refused():
    with pytest.raises(SourceLost, match="over 20000 elements"):
        soap.parse(b"<a>" + b"<b/>" * 30_000 + b"</a>", "x")
