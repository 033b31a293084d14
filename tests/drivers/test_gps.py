"""The satellite receiver on a real terminal, good and bad, and its sentences one by one."""

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import app
from agent.core import wire
from agent.core.clock import NS_PER_S, RealClock, SimClock
from agent.core.errors import ConfigError, SourceLost
from drivers import _nmea
from drivers import gps as driver
from firmware_sim.gps import LAT, LON, NOISE, GpsSim, sentence, sentences

WAIT_S = 15.0
NOON_S = 1_800_000_000.0


class Listening:
    """The driver's worker, begun anew as the supervisor would."""

    def __init__(self, port):
        self.gps = driver.build(driver.Config(str(port), 115_200), RealClock())
        self.lost = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                self.gps.run(self._stop, lambda: None)
            except SourceLost as error:
                self.lost.append(str(error))
                self._stop.wait(0.05)

    def until(self, condition):
        deadline_s = time.monotonic() + WAIT_S
        while not condition() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        return condition()

    def close(self):
        self._stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


@pytest.fixture
def sim(tmp_path):
    sim = GpsSim(tmp_path / "ttyGPS")
    yield sim
    sim.close()


@pytest.fixture
def listening(sim):
    listening = Listening(sim.port)
    yield listening
    listening.close()


def off_s(fix):
    """How far its time is from the machine's, which the simulator sends."""
    return abs(time.time_ns() - time.monotonic_ns() - (fix.utc_ns - fix.mono_ns)) / NS_PER_S


@pytest.mark.slow
def test_a_day_of_a_receiver(sim, listening):
    gps = listening.gps
    assert listening.until(lambda: gps.latest() is not None)
    fix = gps.latest()
    assert off_s(fix) < 5
    wire.check("position", dict(fix.position))
    assert fix.position["lat_deg"] == pytest.approx(47.28521, abs=1e-5)
    for mode in ("no fix", "garbage", "wrong checksum"):
        bad = gps.bad
        sim.mode = mode
        if mode == "no fix":
            assert listening.until(lambda: gps.latest() is None)
            assert gps.bad == bad
        else:
            assert listening.until(lambda bad=bad: gps.bad > bad + 5), mode
        sim.mode = "good"
        last = time.monotonic_ns()
        assert listening.until(
            lambda last=last: gps.latest() is not None and gps.latest().mono_ns > last
        )
    assert listening.lost == []


def test_after_a_leap_back_it_has_to_agree_anew(sim, listening, caplog):
    gps = listening.gps
    assert listening.until(lambda: gps.latest() is not None)
    sim.leap_s = -3600.0
    assert listening.until(lambda: gps.latest() is not None and off_s(gps.latest()) > 3000)
    assert "satellite time leapt" in caplog.text


def test_the_cable_out_and_back(sim, listening):
    gps = listening.gps
    assert listening.until(lambda: gps.latest() is not None)
    sim.unplug()
    assert listening.until(lambda: listening.lost and gps.latest() is None)
    assert listening.until(lambda: "ttyGPS" in listening.lost[-1])
    sim.plug()
    assert listening.until(lambda: gps.latest() is not None)


def fed(*lines, step_s=1.0):
    """Give a driver that heard these lines, a second apart for every RMC or ZDA."""
    clock = SimClock()
    gps = driver.build(driver.Config("none"), clock)
    for line in lines:
        gps.feed(f"{line}\r\n".encode())
        if "RMC" in line or "ZDA" in line:
            clock.advance(step_s)
    return gps


def told(second, **changes):
    return sentences(NOON_S + second, **changes)


def test_it_takes_three_that_agree():
    two = [line for second in range(2) for line in told(second)[:2]]
    assert fed(*two).latest() is None
    fix = fed(*two, *told(2)[:2]).latest()
    assert fix.utc_ns == (NOON_S + 2) * NS_PER_S
    leap = [*two, *told(2)[:2], *told(-3000)[:2]]
    assert fed(*leap).latest() is None


def test_zda_alone_counts_only_with_a_fix():
    with_fix = [line for n in range(4) for line in (told(n)[0], told(n)[2])]
    assert fed(*with_fix).latest() is not None
    without = [line for n in range(4) for line in (told(n, has_fix=False)[0], told(n)[2])]
    assert fed(*without).latest() is None
    assert fed(*(told(n)[2] for n in range(4))).latest() is None


def test_rmc_alone_gives_time_and_no_position():
    fix = fed(*(told(n)[1] for n in range(4))).latest()
    assert fix.position is None


def test_a_place_that_is_old_is_not_told():
    lines = [told(0)[0], *(told(n)[1] for n in range(8))]
    assert fed(*lines).latest().position is None


RMC = "GPRMC,120000.00,A,4717.1,N,00833.9,E,0.0,77.5,{},,,A"
GGA = "GPGGA,120000.00,{},{},8,1.01,499.6,M,48.0,M,,"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "$",
        "$GPRMC,*",
        "$GPRMC,120000,A*zz",
        sentence("GPRMC,120000.00,A")[:-1],
        sentence("GPRMC,120000.00,A"),
        sentence(RMC.format("060180")),  # a receiver that has lost count of the weeks
        sentence(RMC.format("310226")),
        sentence(RMC.format("-10226")),
        sentence(RMC.format("010126").replace("120000.00", "250000")),
        sentence(RMC.format("010126").replace("120000.00", "120061")),
        sentence(RMC.format("010126").replace("120000.00", "1e5")),
        sentence(GGA.format("9517.1,N,00833.9,E", "1")),
        sentence(GGA.format("4760.0,N,00833.9,E", "1")),
        sentence(GGA.format("4717.1,X,00833.9,E", "1")),
        sentence(GGA.format("4717.1,,00833.9,E", "1")),
        sentence(GGA.format("nan,N,00833.9,E", "1")),
        sentence(GGA.format("4717.1,N,00833.9,E", "99")),
        sentence(GGA.format("4717.1,N,00833.9,E", "1").replace("1.01", "1e999")),
        sentence(GGA.format("4717.1,N,00833.9,E", "1").replace("1.01", "nan")),
        sentence("GPZDA,120000,01,13,2026,00,00"),
        sentence("GPGSV," + "1" * 120),
    ],
)
def test_a_bad_line_is_bad(line):
    assert _nmea.read(line.encode()) is False


def test_good_lines_of_other_kinds_and_without_a_fix():
    assert _nmea.read(sentence("GPGSV,1,1,00").encode()) is None
    assert _nmea.read(sentence("GPRMC,,V,,,,,,,,,,N").encode()) is None
    place = _nmea.read(sentence("GNGGA,120000.00,,,,,0,00,,,M,,M,,").encode())
    assert (place.quality, place.lat_deg) == (0, None)
    south = _nmea.read(sentence(GGA.format("4730.0,S,00830.0,W", "2")).encode())
    assert (south.lat_deg, south.lon_deg) == (-47.5, -8.5)
    leap = _nmea.read(sentence(RMC.format("311226").replace("120000.00", "235960")).encode())
    assert leap.is_valid


@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([NOISE, b"$", b"\n"]))))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_taken_and_bounded(parts):
    gps = driver.build(driver.Config("none"), SimClock())
    for part in parts:
        gps.feed(part)
        assert len(gps._buffer) <= driver.LINE_BYTES
    assert gps.latest() is None


FIELDS = st.text(alphabet="0123456789.,ANSEWV-enx", max_size=90)


@given(FIELDS, st.sampled_from(["RMC", "GGA", "ZDA"]))
@settings(max_examples=400, deadline=None)
def test_any_fields_with_a_good_checksum_are_read_or_bad(text, kind):
    _nmea.read(sentence(f"GP{kind},{text}").encode())


def test_no_such_port_is_told_by_name(tmp_path):
    gps = driver.build(driver.Config(str(tmp_path / "none")), RealClock())
    with pytest.raises(SourceLost, match="none"):
        gps.run(threading.Event(), lambda: None)


def test_a_box_has_one_only_if_it_is_configured():
    file = Path(__file__).parents[2] / "configs" / "camera.toml"
    plain = app.load_config(file, check_files=False)
    assert app._satellites(plain, RealClock()) == {}
    words = ["time.gps_port=/dev/serial/by-id/usb-gps-if00", "time.gps_baud=38400"]
    found = app._satellites(app.load_config(file, words, check_files=False), RealClock())
    (worker,) = found["instruments"]
    assert (worker.name, found["fix"]()) == ("gps", None)
    with pytest.raises(ConfigError, match="below /dev"):
        app.load_config(file, ["time.gps_port=COM3"], check_files=False)


def test_the_simulator_says_what_it_means():
    assert [line[1:6] for line in sentences(NOON_S)] == ["GPGGA", "GPRMC", "GPZDA", "GPGSV"]
    assert f"{LAT},{LON}" in sentences(NOON_S)[1]
