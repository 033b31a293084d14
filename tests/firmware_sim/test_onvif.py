"""The simulated ONVIF device, asked by raw sockets: it must be strict where real ones are."""

import base64
import hashlib
import http.client
import socket
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from firmware_sim.onvif_discovery import DISCOVERY_PORT, GROUP
from tests.simonvif import PASSWORD, USER, SimOnvif

ENVELOPE = (
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header>{header}</s:Header>'
    "<s:Body>{body}</s:Body></s:Envelope>"
)
TOKEN = (
    "<Security><UsernameToken><Username>{user}</Username><Password>{digest}</Password>"
    "<Nonce>{nonce}</Nonce><Created>{created}</Created></UsernameToken></Security>"
)
ABOUT = '<GetDeviceInformation xmlns="http://www.onvif.org/ver10/device/wsdl"/>'
EVENTS = 'xmlns="http://www.onvif.org/ver10/events/wsdl"'


@pytest.fixture(scope="module")
def running() -> Iterator[SimOnvif]:
    with SimOnvif() as started:
        yield started


@pytest.fixture
def camera(running: SimOnvif) -> Iterator[SimOnvif]:
    yield running
    running.do("reset")


def token(password: str = PASSWORD, off_s: float = 0.0) -> str:
    created = (datetime.now(UTC) + timedelta(seconds=off_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    nonce = b"0123456789abcdef"
    digest = hashlib.sha1(nonce + created.encode() + password.encode()).digest()
    return TOKEN.format(
        user=USER,
        digest=base64.b64encode(digest).decode(),
        nonce=base64.b64encode(nonce).decode(),
        created=created,
    )


def ask(camera: SimOnvif, body: str, header: str = "") -> tuple[int, str]:
    link = http.client.HTTPConnection("127.0.0.1", camera.port, timeout=10)
    link.request("POST", "/onvif/device_service", ENVELOPE.format(header=header, body=body))
    answer = link.getresponse()
    text = answer.read().decode()
    link.close()
    return answer.status, text


def test_the_time_is_told_to_anybody_and_the_rest_to_a_login_only(camera: SimOnvif):
    status, text = ask(camera, "<GetSystemDateAndTime/>")
    assert (status, f"<tt:Year>{datetime.now(UTC).year}</tt:Year>" in text) == (200, True)
    status, text = ask(camera, ABOUT)
    assert (status, "ter:NotAuthorized" in text) == (400, True)
    status, text = ask(camera, ABOUT, token())
    assert (status, "<n:Model>SIM-1</n:Model>" in text) == (200, True)


def test_a_login_of_another_time_is_turned_down_and_counted(camera: SimOnvif):
    before = camera.do("stats")["failed_logins"]
    assert ask(camera, ABOUT, token(off_s=-3600))[0] == 400
    camera.do("set", clock_offset_s=-3600)
    assert ask(camera, ABOUT, token(off_s=-3600))[0] == 200
    assert ask(camera, ABOUT, token())[0] == 400
    assert ask(camera, ABOUT, token("wrong", off_s=-3600))[0] == 400
    assert camera.do("stats")["failed_logins"] == before + 3


def test_motion_is_pulled_once(camera: SimOnvif):
    status, text = ask(camera, f"<CreatePullPointSubscription {EVENTS}/>", token())
    assert (status, "/onvif/events_service" in text) == (200, True)
    camera.do("motion", is_moving=True)
    camera.do("motion", is_moving=False)
    _, text = ask(camera, f"<PullMessages {EVENTS}/>", token())
    values = [part.split('"')[0] for part in text.split('Name="IsMotion" Value="')[1:]]
    assert values == ["true", "false"]
    assert "tns1:RuleEngine/CellMotionDetector/Motion" in text
    assert "NotificationMessage" not in ask(camera, f"<PullMessages {EVENTS}/>", token())[1]


@pytest.mark.parametrize("body", ["<Reboot/>", "", "<<<"])
def test_what_it_does_not_know_does_not_end_it(camera: SimOnvif, body: str):
    assert ask(camera, body, token())[0] == 400
    assert ask(camera, ABOUT, token())[0] == 200


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ({"fault": "nonsense"}, "allowed: , bomb"),
        ({"colour": 1}, "no setting colour; allowed: clock_offset_s"),
        ({"has_media2": "yes"}, "allowed: bool"),
    ],
)
def test_a_wrong_order_is_named(camera: SimOnvif, order: dict, told: str):
    answer = camera.do("set", **order)
    assert (answer["ok"], told in answer["error"]) == (False, True), answer


def test_it_says_hello_and_goodbye_on_its_network():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind(("", DISCOVERY_PORT))
        member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1"))
        link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        link.settimeout(10)
        with SimOnvif("--discovery", "127.0.0.1") as camera:
            hello = heard(link, b"<d:Hello>")
            assert f"http://127.0.0.1:{camera.port}/onvif/device_service".encode() in hello
        heard(link, b"<d:Bye>")


def heard(link: socket.socket, word: bytes) -> bytes:
    """Wait for a message among all that other tests may say there."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        text = link.recv(65_536)
        if word in text:
            return text
    raise AssertionError(f"{word!r} was not heard")
