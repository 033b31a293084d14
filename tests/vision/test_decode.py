"""Decoding of real files: every picture once, in time, at any size, and damage survived."""

import io
import itertools
import resource
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.errors import SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from agent.vision.decode import Decoder, StreamTime
from firmware_sim import sdp
from tests.vision.support import BIKES, PLAZA, FileSource, frames

pytestmark = pytest.mark.video


def packet(pts: int, arrival_ms: int, run: str = "r", **fields) -> Packet:
    values = {
        "run": run,
        "pts": pts,
        "dts": pts,
        "time_base": Fraction(1, 1000),
        "is_key": True,
        "is_corrupt": False,
        "arrival_mono_ns": arrival_ms * 1_000_000,
        "utc_ns": 0,
        "camera_utc_ns": None,
        "payload": b"",
    }
    return Packet(**(values | fields))


def test_every_picture_comes_once_in_order_with_its_own_time():
    found = [(frame.index, frame.t_us, frame.utc_ns) for frame in frames(PLAZA)]
    assert [index for index, _, _ in found] == list(range(1, 401))
    assert found[0][1] == 0
    assert {round((b[1] - a[1]) / 1000) for a, b in itertools.pairwise(found)} == {100}
    base_ns = found[0][2]
    assert all(utc_ns - base_ns == t_us * 1000 for _, t_us, utc_ns in found)


def test_a_picture_is_scaled_on_demand():
    frame = next(frames(BIKES))
    assert (frame.width_px, frame.height_px) == (640, 272)
    luma, rgb = frame.luma(), frame.rgb(300, 300)
    assert (luma.shape, luma.dtype) == ((180, 320), np.uint8)
    assert (rgb.shape, rgb.dtype) == ((300, 300, 3), np.uint8)
    grey = cv2.cvtColor(cv2.resize(rgb, (320, 180)), cv2.COLOR_RGB2GRAY)
    assert abs(float(grey.mean()) - float(luma.mean())) < 6
    assert luma.std() > 20


def test_colours_are_not_swapped():
    frame = next(frames(PLAZA))
    rgb = frame.rgb(768, 576).astype(int)
    bgr = cv2.imdecode(np.frombuffer(frame.jpeg(), np.uint8), cv2.IMREAD_COLOR).astype(int)
    assert bgr.shape == (576, 768, 3)
    assert np.abs(rgb[:, :, ::-1] - bgr).mean() < 4
    assert np.abs(rgb - bgr).mean() > np.abs(rgb[:, :, ::-1] - bgr).mean()


def test_key_frames_only_decodes_key_frames_with_their_times():
    every = {frame.t_us: frame.luma() for frame in frames(PLAZA) if (frame.index - 1) % 20 == 0}
    keys = list(frames(PLAZA, key_frames_only=True))
    assert [frame.t_us for frame in keys] == sorted(every)
    assert [frame.index for frame in keys] == list(range(1, 21))
    for frame in keys:
        assert np.abs(frame.luma().astype(int) - every[frame.t_us]).mean() < 2


def test_key_frames_are_not_held_back():
    source = FileSource(PLAZA)
    decoder = Decoder(source.open(), key_frames_only=True)
    given_for = [len(decoder.decode(item)) for item in source.packets() if item.is_key]
    assert given_for == [1] * 20


def test_damaged_packets_cost_pictures_but_no_more():
    source = FileSource(PLAZA)
    decoder = Decoder(source.open())
    seen = 0
    for count, item in enumerate(source.packets()):
        broken = replace(item, payload=b"\0" * 40) if 30 < count < 50 else item
        seen += len(decoder.decode(broken))
    assert 340 < seen < 400


def test_a_stream_of_another_codec_is_lost_after_a_while():
    source = FileSource(PLAZA)
    decoder = Decoder(replace(source.open(), codec="hevc", extradata=b""))
    packets = list(source.packets())
    with pytest.raises(SourceLost, match="30 packets in a row are no hevc"):
        [decoder.decode(item) for item in packets]


PICTURE_SETS = b"\0\0\0\1\x68\xce\x3c\x80"
SLICE = b"\0\0\0\1\x65\x88\x84" + b"\x55" * 50  # an intra picture cut off after its head


def test_a_picture_that_claims_an_absurd_size_takes_no_memory():
    def key(side_px: int) -> bytes:
        return b"\0\0\0\1" + sdp.sps(side_px, side_px) + PICTURE_SETS + SLICE

    decoder = Decoder(StreamInfo("h264", 64, 64, Fraction(1, 1000), b""))
    (seen,) = decoder.decode(packet(0, 0, payload=key(64)))
    assert (seen.width_px, seen.height_px) == (64, 64)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceLost, match="30 packets in a row are no h264"):
        [decoder.decode(packet(at, at, payload=key(16_000))) for at in range(1, 99)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200_000


def test_an_unknown_codec_is_named():
    info = StreamInfo("cinepak9000", 10, 10, Fraction(1, 1000), b"")
    with pytest.raises(Unsupported, match="cinepak9000"):
        Decoder(info).decode(packet(0, 0, payload=b"\0"))


def test_flush_before_anything_gives_nothing():
    assert Decoder(StreamInfo("h264", 10, 10, Fraction(1, 1000), b"")).flush() == []


def test_stream_time_is_the_pts_while_nothing_happens():
    times = StreamTime()
    assert [times.of(packet(pts, pts)) for pts in (500, 600, 700)] == [500_000, 600_000, 700_000]


def test_stream_time_follows_a_slow_or_fast_reader_by_pts():
    times = StreamTime()
    fast = [times.of(packet(pts, pts // 50)) for pts in range(0, 2000, 100)]
    assert fast == [pts * 1000 for pts in range(0, 2000, 100)]
    late = times.of(packet(2000, 9_000))
    assert late == 2_000_000


def test_stream_time_goes_on_over_a_reconnect_by_the_time_that_passed():
    times = StreamTime()
    times.of(packet(900_000, 10_000))
    times.restart()
    assert times.of(packet(0, 14_000)) == 900_000_000 + 4_000_000
    assert times.of(packet(100, 14_100)) == 904_100_000


def test_stream_time_bridges_a_jump_of_the_pts():
    times = StreamTime()
    times.of(packet(1_000, 1_000))
    assert times.of(packet(500_000, 1_100)) == 1_100_000
    assert times.of(packet(100, 1_200)) == 1_200_000
    assert times.of(packet(200, 1_300)) == 1_300_000


@given(
    steps=st.lists(
        st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 5_000), st.booleans()), max_size=40
    )
)
@settings(max_examples=80, deadline=None)
def test_stream_time_never_goes_back(steps):
    times = StreamTime()
    pts, arrival, last = 0, 0, -1
    for step, passed, is_new in steps:
        pts, arrival = pts + step, arrival + passed
        if is_new:
            times.restart()
        t_us = times.of(packet(pts, arrival))
        assert t_us > last or last == -1
        last = t_us


def test_b_frames_keep_each_its_time():
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=10, options={"bf": "2", "g": "20"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for count in range(40):
            picture = np.full((64, 64, 3), count * 6, np.uint8)
            for item in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                out.mux(item)
        for item in stream.encode(None):
            out.mux(item)
    found = list(_frames_of(av, buffer))
    assert len(found) == 40
    times = [frame.t_us for frame in found]
    assert times == sorted(times)
    means = [float(frame.luma().mean()) for frame in found]
    assert means == sorted(means)


def _frames_of(av, buffer):
    buffer.seek(0)
    with av.open(buffer) as container:
        stream = container.streams.video[0]
        info = StreamInfo("h264", 64, 64, stream.time_base, bytes(stream.codec_context.extradata))
        decoder = Decoder(info)
        dts_seen = []
        for item in container.demux(stream):
            if item.dts is None:
                break
            dts_seen.append((item.pts, item.dts))
            yield from decoder.decode(
                packet(
                    item.pts,
                    len(dts_seen),
                    dts=item.dts,
                    time_base=item.time_base,
                    payload=bytes(item),
                )
            )
        assert any(pts != dts for pts, dts in dts_seen)
        yield from decoder.flush()


def test_without_deblocking_the_pictures_are_nearly_those_of_a_full_decoder():
    with av.open(str(PLAZA)) as container:
        full = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    differences = [
        float(np.abs(frame.rgb(768, 576).astype(int) - picture).mean())
        for frame, picture in zip(frames(PLAZA), full, strict=True)
        if frame.index % 19 == 0
    ]
    assert 0 < max(differences) < 2.5  # grey levels
