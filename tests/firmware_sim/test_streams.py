"""Footage is what its manifest says, and becomes the two streams of a camera."""

import json
import shutil
from pathlib import Path

import av
import pytest

from firmware_sim import streams

MEDIA = Path(streams.__file__).parent / "media"
FOOTAGE = sorted(MEDIA.glob("*.mp4"))


@pytest.mark.parametrize("path", FOOTAGE, ids=lambda path: path.name)
def test_footage_has_a_manifest_that_fits(path: Path) -> None:
    manifest = json.loads(path.with_suffix(".json").read_text())
    streams.check(path)
    assert manifest["file"] == path.name
    assert manifest["size_bytes"] == path.stat().st_size
    assert manifest["licence"]
    assert manifest["origin"]
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == (manifest["width_px"], manifest["height_px"])
        assert video.frames == manifest["frames"]


def test_exchanged_footage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "plaza.mp4"
    shutil.copy(MEDIA / "bikes.mp4", source)
    shutil.copy(MEDIA / "plaza.json", tmp_path)
    assert streams.main(["--main-from", str(source), "--out", str(tmp_path / "out")]) == 1
    assert "plaza.mp4: sha256" in capsys.readouterr().err
    assert not (tmp_path / "out" / "main.mp4").exists()


def test_no_footage_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--main-from", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "out")]
    assert streams.main(words) == 1
    assert "none.mp4" in capsys.readouterr().err


@pytest.mark.video
def test_streams_are_as_a_camera_sends_them(tmp_path: Path) -> None:
    target = tmp_path / "sub.mp4"
    streams.make(MEDIA / "bikes.mp4", target, 320, 300)
    with av.open(str(target)) as container:
        video = container.streams.video[0]
        packets = [packet for packet in container.demux(video) if packet.size]
        assert (video.width, video.height) == (320, 136)
    keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
    assert len(packets) == 250
    assert keys == list(range(0, 250, streams.GOP))
    assert all(packet.pts == packet.dts for packet in packets)
