"""What a stream's packets come to, and the cure of every message that a driver may give."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import pytest

from agent.core.clock import RealClock
from agent.core.errors import AgentError, AuthRefused, SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from agent.device import trial

TICKS = 90_000


@dataclass
class Made:
    """A camera that sends as told, without waiting."""

    rate_per_s: float = 10.0
    key_every: int = 10
    width_px: int = 1920
    codec: str = "h264"
    offset_s: float | None = None
    error: AgentError | None = None
    pictures: int = 41
    is_closed: bool = False

    def open(self) -> StreamInfo:
        if self.error is not None:
            raise self.error
        return StreamInfo(self.codec, self.width_px, 1080, Fraction(1, TICKS), b"", sound="aac")

    def packets(self) -> Iterator[Packet]:
        for number in range(self.pictures):
            pts = round(number * TICKS / self.rate_per_s)
            utc_ns = 1_800_000_000_000_000_000 + pts * 1_000_000_000 // TICKS
            theirs = None if self.offset_s is None else utc_ns + int(self.offset_s * 1e9)
            yield Packet(
                run="",
                pts=pts,
                dts=pts,
                time_base=Fraction(1, TICKS),
                is_key=number % self.key_every == 0,
                is_corrupt=False,
                arrival_mono_ns=pts * 1_000_000_000 // TICKS,
                utc_ns=utc_ns,
                camera_utc_ns=theirs,
                payload=b"x" * 12_500,
            )

    def close(self) -> None:
        self.is_closed = True


def tried(camera: Made, *, is_sub: bool = False) -> trial.Trial:
    found = trial.attempt(camera, RealClock(), is_sub=is_sub)
    assert camera.is_closed
    return found


def test_figures_are_of_the_packets_and_not_of_what_was_declared():
    found = tried(Made(offset_s=0.5))
    assert (found.rate_per_s, found.key_every_s, found.kbit_per_s) == (10.0, 1.0, 1000)
    assert (found.clock_offset_s, found.size, found.sound) == (0.5, "1920x1080", "aac")
    assert (found.is_good, found.advice) == (True, ())


def test_a_camera_that_does_not_tell_its_time_is_not_accused():
    found = tried(Made())
    assert (found.clock_offset_s, found.is_good, found.advice) == (None, True, ())


@pytest.mark.parametrize(
    ("camera", "told"),
    [
        (Made(key_every=50, pictures=120), "key frames only every 5 s: set a key frame"),
        (Made(offset_s=-3600), "its clock is -3600 s off: set the time (NTP)"),
        (Made(rate_per_s=2, key_every=4, pictures=30), "2 pictures a second: set 10 to 15"),
        (Made(codec="hevc"), "H.264 plays everywhere"),
    ],
    ids=["keys", "clock", "rate", "hevc"],
)
def test_what_would_be_better_is_advised_and_is_no_failure(camera: Made, told: str):
    found = tried(camera)
    assert found.is_good
    (line,) = found.advice
    assert told in line


def test_a_small_stream_that_is_large_is_advised_against_and_the_clock_told_once():
    (line,) = tried(Made(offset_s=99), is_sub=True).advice
    assert "the small stream is large: set it to 640 pixels" in line


@pytest.mark.parametrize("pictures", [0, 1, 5])
def test_without_a_second_key_frame_it_fails(pictures: int):
    found = tried(Made(pictures=pictures))
    assert (found.is_good, "no second key frame" in found.fault) == (False, True)
    assert "set a key frame (I-frame)" in found.cure


def test_a_login_that_is_turned_down_is_marked():
    assert tried(Made(error=AuthRefused("x: user 'a' turned down"))).is_refused
    assert not tried(Made(error=SourceLost("x: Connection refused"))).is_refused


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AuthRefused("/x: no password; allowed: …"), "write the camera's password into that file"),
        (AuthRefused("x: it wants a login, and none is given"), "--password-file"),
        (AuthRefused("x: user 'a' turned down"), "wait ten minutes"),
        (Unsupported("x: codec mjpeg; allowed: h264, hevc"), "choose H.264"),
        (Unsupported("x: no profile 'a'; allowed: main"), "take a profile"),
        (Unsupported("x: address 'y' on another host"), "--url rtsp://"),
        (Unsupported("x: something new"), "choose H.264"),
        (SourceLost("x: the camera has no such path"), "onvif://ADDRESS finds it"),
        (SourceLost("/dev/x: no such device; is …"), "by-id"),
        (SourceLost("x: No route to host"), "check power, cable and address"),
        (SourceLost("x: status 302, a redirect; …"), "switch plain HTTP on"),
        (SourceLost("x: no packet for 4.0 s"), "restart the camera"),
    ],
)
def test_every_fault_has_its_cure(error: AgentError, told: str):
    assert told in trial.cure(error)


def test_it_looks_no_longer_than_it_says():
    class Endless(Made):
        def packets(self) -> Iterator[Packet]:
            tick = threading.Event()
            while True:
                yield from super().packets()
                tick.wait(0.01)

    camera = Endless(key_every=10_000, pictures=5)
    found = trial.attempt(camera, RealClock(), look_s=0.2)
    assert camera.is_closed
    assert found.codec == "h264"
