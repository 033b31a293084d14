"""Key frames from the recorder to the analysis: over a real pipe, newest first, never waiting."""

import os
import threading
from dataclasses import replace

import pytest

from agent.core.errors import SourceLost
from agent.vision import relay
from agent.vision.relay import Camera, Relay, Relayed
from agent.vision.ring import Ring
from tests.vision.support import PLAZA, FileSource


class Pipe:
    """The analysis side behind a pipe, and our end of it."""

    def __init__(self):
        reading, self.writing = os.pipe()
        self.stream = os.fdopen(reading, "rb")
        self.stop = threading.Event()
        self.relayed = Relayed(self.stream, self.stop)

    def close(self):
        os.close(self.writing)
        assert self.stop.wait(5)
        self.relayed._thread.join(5)
        self.stream.close()


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    made.close()


@pytest.fixture(scope="module")
def recorded():
    """What a recorder has of the plaza: its stream and its packets."""
    source = FileSource(PLAZA)
    info = source.open()
    return info, list(source.packets())


def filled(packets) -> Ring:
    ring = Ring(1000, 100_000_000)
    for packet in packets:
        ring.put(packet)
    return ring


def test_the_newest_key_frame_arrives_as_it_was(pipe, recorded):
    info, packets = recorded
    ring = filled(packets[:70])
    giver = Relay({"gate": Camera(ring, lambda: info)})
    source = pipe.relayed.source("gate")
    pipe.relayed.start()
    os.write(pipe.writing, giver.take())
    opened = source.open()
    assert (opened.codec, opened.width_px, opened.time_base) == ("h264", 768, info.time_base)
    assert opened.extradata == info.extradata
    got = next(source.packets())
    wanted = [packet for packet in packets[:70] if packet.is_key][-1]
    assert replace(got, is_corrupt=False) == replace(wanted, is_corrupt=False)
    assert giver.take() == b""  # told once
    giver.forget()
    assert giver.take() != b""  # until another process listens


def test_what_nobody_took_is_passed_over(pipe, recorded):
    info, packets = recorded
    ring = Ring(1000, 100_000_000)
    giver = Relay({"gate": Camera(ring, lambda: info)})
    source = pipe.relayed.source("gate")
    pipe.relayed.start()
    keys = [packet for packet in packets if packet.is_key][:6]
    for number, packet in enumerate(keys):
        ring.put(replace(packet, arrival_mono_ns=number))
        os.write(pipe.writing, giver.take())
    while source._desk.empty() or source._desk.queue[0][1].pts != keys[-1].pts:
        assert not pipe.stop.wait(0.01)
    source.open()
    assert next(source.packets()).pts == keys[-1].pts


def test_cameras_do_not_mix_and_strangers_are_left_out(pipe, recorded):
    info, packets = recorded
    cameras = {
        name: Camera(filled(packets[at : at + 1]), lambda: info)
        for name, at in (("east", 0), ("west", 20), ("other", 40))
    }
    sources = {name: pipe.relayed.source(name) for name in ("east", "west")}
    pipe.relayed.start()
    os.write(pipe.writing, Relay(cameras).take())
    for source in sources.values():
        source.open()
    assert next(sources["east"].packets()).pts == packets[0].pts
    assert next(sources["west"].packets()).pts == packets[20].pts


def test_a_camera_that_is_not_open_gives_nothing(recorded):
    info, packets = recorded
    assert Relay({"gate": Camera(filled(packets[:30]), lambda: None)}).take() == b""
    assert Relay({"gate": Camera(Ring(10, 1000), lambda: info)}).take() == b""


def test_silence_is_a_lost_source(pipe, monkeypatch):
    monkeypatch.setattr(relay, "OPEN_S", 0.5)
    pipe.relayed.start()
    with pytest.raises(SourceLost, match="camera gate: the recorder has no key frame of it"):
        pipe.relayed.source("gate").open()


def test_another_codec_begins_another_session(pipe, recorded):
    info, packets = recorded
    ring = filled(packets[:1])
    stream = {"now": info}
    giver = Relay({"gate": Camera(ring, lambda: stream["now"])})
    source = pipe.relayed.source("gate")
    pipe.relayed.start()
    os.write(pipe.writing, giver.take())
    source.open()
    given = source.packets()
    next(given)
    stream["now"] = replace(info, codec="hevc")
    ring.put(replace(packets[20], arrival_mono_ns=7))
    os.write(pipe.writing, giver.take())
    with pytest.raises(SourceLost, match="has changed"):
        next(given)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x05\x00\x00\x00\x09hello",
        b"\xff" * 8,
        b"\x00\x00\x00\x09\x00\x00\x00\x02{}",
    ],
)
def test_the_end_of_the_input_and_rubbish_are_the_end(rubbish):
    pipe = Pipe()
    pipe.relayed.source("gate")
    pipe.relayed.start()
    os.write(pipe.writing, rubbish)
    pipe.close()


def test_closing_ends_the_packets(pipe):
    source = pipe.relayed.source("gate")
    pipe.relayed.start()
    threading.Timer(0.2, source.close).start()
    with pytest.raises(SourceLost):
        source.open()
