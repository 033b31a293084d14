"""Body cameras on a serial line: three dialects over a pseudo-terminal, and what goes wrong."""

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import RealClock
from agent.core.dock import Identity
from agent.core.errors import AuthRefused, ConfigError, DeviceBusy, SourceLost, Unsupported
from drivers import bodycam_serial as driver
from drivers._bodycam_line import framed, unframed
from firmware_sim.bodycam import BodyCam
from firmware_sim.dock import FolderSlot

CLOCK = RealClock()
DIALECTS = ("line", "a", "b")


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "camera.password"
    path.write_text("123457\n")
    return path


@pytest.fixture
def camera(tmp_path, request):
    """Give a camera; its card stays empty."""
    card = tmp_path / "card"
    card.mkdir()
    scenario = {"password": "123457", "officer": "0421", "percent": 41}
    with BodyCam(tmp_path, scenario | getattr(request, "param", {}), card) as made:
        yield made


def link_to(camera, secret, **changes):
    fields = {"password_path": secret, "timeout_s": 0.3} | changes
    return driver.open_link(str(camera.port), driver.Config(**fields), CLOCK)


by_dialect = pytest.mark.parametrize(
    "camera", [{"dialect": name} for name in DIALECTS], indirect=True, ids=DIALECTS
)


@by_dialect
@pytest.mark.parametrize("dialect", ["auto", None], ids=["found", "told"])
def test_a_camera_tells_who_it_is_and_becomes_storage(camera, secret, dialect):
    spoken = camera.scenario["dialect"]
    link = link_to(camera, secret, dialect=dialect or spoken)
    found = link.identify()
    assert (found.serial, found.officer) == ("BC0001", "0421")
    if spoken == "line":
        assert found == Identity("BC0001", "OP-BC1", "1.4", "0421")
    if spoken != "a":
        assert 41 <= link.battery().percent <= 50
    link.enter_storage()
    link.close()


@by_dialect
def test_its_clock_is_set(camera, secret):
    camera.set_utc_ns(0)
    link = link_to(camera, secret, timezone="UTC")
    link.set_clock(time.time_ns())
    assert abs(camera.utc_ns() - time.time_ns()) < 2_000_000_000
    link.close()


@pytest.mark.parametrize("camera", [{"dialect": "b", "zone": "Asia/Almaty"}], indirect=True)
def test_a_camera_that_knows_only_local_time_gets_it(camera, secret):
    link = link_to(camera, secret, timezone="Asia/Almaty")
    link.set_clock(time.time_ns())
    assert abs(camera.utc_ns() - time.time_ns()) < 2_000_000_000
    link.close()


@pytest.mark.parametrize("camera", [{"clock_offset_s": 25_200}], indirect=True)
def test_how_wrong_its_clock_is_is_known_to_half_the_round_trip(camera, secret):
    reading = link_to(camera, secret).read_clock()
    assert abs(reading.offset_ms - 25_200_000) <= reading.rtt_ms / 2 + 50
    assert reading.rtt_ms < 300


@by_dialect
@pytest.mark.parametrize("dialect", ["auto", None], ids=["found", "told"])
def test_a_wrong_password_is_told_and_not_tried_again(camera, tmp_path, dialect):
    wrong = tmp_path / "wrong"
    wrong.write_text("000001")
    link = link_to(camera, wrong, dialect=dialect or camera.scenario["dialect"])
    with pytest.raises(AuthRefused, match="does not take our password") as told:
        link.identify()
    assert "000001" not in str(told.value)
    logins = [word for word in camera.orders if word in ("login", "Ver", "e10011")]
    assert len(logins) == 1
    link.close()


def test_a_password_that_is_none_is_a_mistake_of_the_configuration(camera, tmp_path):
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="password_path"):
        link_to(camera, bad)
    bad.write_text("x" * 33)
    with pytest.raises(ConfigError, match="32 printable"):
        link_to(camera, bad)


@pytest.mark.parametrize("dialect", ["a", "b"])
def test_a_refusal_is_no_fact_and_a_forgotten_login_is_made_again(tmp_path, secret, dialect):
    card = tmp_path / "card"
    card.mkdir()
    with BodyCam(tmp_path, {"dialect": dialect, "password": "123457"}, card) as camera:
        link = link_to(camera, secret, dialect=dialect)
        assert link.identify().serial == "BC0001"
        camera.plug(FolderSlot(tmp_path, "slot"))  # it begins anew, and knows of no login
        with pytest.raises(Unsupported, match="refuses"):
            link.identify()
        assert link.identify().serial == "BC0001"
        link.close()


def test_words_that_a_dialect_lacks_are_named(camera, secret, tmp_path):
    with BodyCam(tmp_path, {"dialect": "a", "serial": "BC0002"}, tmp_path) as other:
        link = link_to(other, secret, dialect="a")
        for word in (link.read_clock, link.battery, link.marks):
            with pytest.raises(Unsupported, match="dialect a has no word for"):
                word()
        link.close()


@pytest.mark.parametrize("camera", [{"faults": ["silent"]}], indirect=True)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_silent_camera_is_given_up(camera, secret, dialect):
    link = link_to(camera, secret, dialect=dialect, timeout_s=0.05)
    with pytest.raises(SourceLost, match="answers nothing"):
        link.identify()
    link.close()
    with pytest.raises(Unsupported, match="speaks none of"):
        link_to(camera, secret)


@pytest.mark.parametrize("camera", [{"garbled": 0.3, "seed": 3}], indirect=True)
def test_answers_that_come_damaged_are_asked_again(camera, secret):
    link = link_to(camera, secret, timeout_s=0.1)
    done = 0
    for _ in range(20):
        try:
            assert link.identify().serial == "BC0001"
            done += 1
        except SourceLost:
            link.close()
            link = link_to(camera, secret, dialect="line", timeout_s=0.1)
    link.close()
    assert done >= 15


def test_an_answer_too_late_is_not_taken_for_the_next_one(camera, secret):
    link = link_to(camera, secret, timeout_s=0.2)
    link.identify()
    camera.scenario["late"] = 1.0
    with pytest.raises(SourceLost):
        link.battery()
    camera.scenario["late"] = 0.0
    time.sleep(5)
    assert link.identify().serial == "BC0001"
    link.close()


def test_two_do_not_speak_to_one_camera(camera, secret):
    link = link_to(camera, secret)
    with pytest.raises(DeviceBusy, match="somebody else"):
        link_to(camera, secret)
    link.close()
    link_to(camera, secret).close()


def test_a_line_that_is_gone_is_told(camera, secret, tmp_path):
    with pytest.raises(SourceLost, match="no-such"):
        driver.open_link(str(tmp_path / "no-such"), driver.Config(), CLOCK)
    master, slave = os.openpty()
    link = driver.open_link(os.ttyname(slave), driver.Config(dialect="line"), CLOCK)
    os.close(slave)
    os.close(master)
    with pytest.raises(SourceLost):
        link.identify()
    link.close()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_line_is_no_line(data):
    line = framed({"seq": 7, "ok": True, "serial": "BC0001", "percent": 41})
    place = data.draw(st.integers(0, len(line) - 2))
    if data.draw(st.booleans()):
        damaged = line[:place] + bytes([line[place] ^ (1 << data.draw(st.integers(0, 7)))])
        damaged += line[place + 1 :]
    else:
        damaged = line[:place]
    assert unframed(damaged) is None


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_rubbish_is_no_line(rubbish):
    assert unframed(rubbish) is None or rubbish.rstrip(b"\r\n")[-5:-4] == b"*"
