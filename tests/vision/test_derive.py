"""A masked copy: black in every picture, otherwise alike, signed, and the original untouched."""

import hashlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from agent import cli
from agent.core.clock import SimClock
from agent.core.errors import ConfigError, IntegrityError, StorageError
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.evidence import custody, manifest, verify
from agent.evidence.keys import DeviceKey
from agent.vision import derive, masks
from agent.vision.config import MaskConfig
from tests import footage
from tests.evidence.handover import sealed
from tests.vision.cameras import plaza
from tests.vision.support import PLAZA

pytestmark = pytest.mark.video

WINDOW = MaskConfig("window", ((0.25, 0.25), (0.5, 0.25), (0.55, 0.5), (0.25, 0.5)))
CORNER = MaskConfig("corner", ((0.7, 0.6), (1.0, 0.5), (1.0, 1.0)))
CAMERA = plaza("west", masks=(WINDOW, CORNER))


def planes(path: Path) -> list[tuple[float, np.ndarray]]:
    """Every picture's time and its yuv420p planes."""
    with av.open(str(path)) as container:
        return [
            (float(frame.pts * frame.time_base), frame.to_ndarray(format="yuv420p").astype(int))
            for frame in container.decode(video=0)
        ]


def cut(path: Path, target: Path, seconds: float) -> Path:
    """The first seconds of a video, remuxed as the recorder does."""
    with av.open(str(path)) as found, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(found.streams.video[0])
        for packet in found.demux(video=0):
            if packet.dts is None or packet.pts * packet.time_base > seconds:
                continue
            packet.stream = stream
            made.mux(packet)
    return target


@pytest.fixture(scope="module")
def plaza_clip(tmp_path_factory) -> Path:
    return cut(PLAZA, tmp_path_factory.mktemp("plaza") / "clip.mp4", 5.0)


@pytest.fixture
def key(tmp_path) -> DeviceKey:
    return DeviceKey.load_or_create(tmp_path / "state" / "keys" / "device.key")


@pytest.fixture
def parent(tmp_path, plaza_clip, key) -> Path:
    picture = np.full((576, 768, 3), 200, np.uint8)
    contents = {
        "clip-1.mp4": plaza_clip.read_bytes(),
        "clip-2.mp4": footage.numbered(30, bframes=2).read_bytes(),
        "snapshot.jpg": cv2.imencode(".jpg", picture)[1].tobytes(),
        "path.json": b'{"foot":[]}',
    }
    return sealed(tmp_path / "clips" / ("c" * 32), contents, key)[0]


def order(key: DeviceKey, **changes) -> derive.Order:
    values = {
        "camera": CAMERA,
        "key": key,
        "version": "1.2.3",
        "reason": "for the insurance",
        "clock": SimClock(),
        "note": lambda _parent, _copy, _reason: custody.Head(0, custody.NO_HASH),
    }
    return derive.Order(**(values | changes))


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_picture_is_black_where_masked_and_alike_elsewhere(tmp_path, plaza_clip):
    target = tmp_path / "masked.mp4"
    count = derive.mask_video(plaza_clip, target, masks.of(CAMERA), {})
    before, after = planes(plaza_clip), planes(target)
    assert count == len(before) == len(after) == 51
    luma, colour = masks.of(CAMERA).cover(768, 576)
    core = cv2.erode(luma.astype(np.uint8), np.ones((9, 9))).astype(bool)
    far = ~cv2.dilate(luma.astype(np.uint8), np.ones((33, 33))).astype(bool)
    for (seen_s, original), (told_s, masked) in zip(before, after, strict=True):
        assert told_s == pytest.approx(seen_s - before[0][0], abs=1e-3)
        inside = masked[:576][luma]
        assert np.abs(masked[:576][core] - masks.BLACK).max() <= 4
        assert np.abs(inside - masks.BLACK).mean() < 0.6
        assert (inside > 30).mean() < 0.002, "no more than the encoder's ringing at the border"
        assert np.abs(masked[576:].reshape(2, 288, 384)[:, colour] - 128).mean() < 0.6
        assert np.abs(masked[:576] - original[:576])[far].mean() < 3.0
        assert np.corrcoef(masked[:576][far], original[:576][far])[0, 1] > 0.99


def test_the_content_under_a_mask_leaves_no_trace(tmp_path):
    """Two videos that differ under the mask only give the same pictures there."""
    found = []
    for number, lit in enumerate((40, 220)):
        path = tmp_path / f"{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"qp": "4"})
            stream.width, stream.height, stream.pix_fmt = 320, 176, "yuv420p"
            for _ in range(10):
                pixels = np.full((264, 320), 128, np.uint8)
                pixels[:176] = 100
                pixels[60:80, 96:140] = lit
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="yuv420p")))
            container.mux(stream.encode(None))
        target = tmp_path / f"masked-{number}.mp4"
        derive.mask_video(path, target, masks.of(CAMERA), {})
        found.append(planes(target))
    luma, _ = masks.of(CAMERA).cover(320, 176)
    for (_, one), (_, other) in zip(*found, strict=True):
        assert np.abs(one[:176][luma] - other[:176][luma]).max() <= 2


def test_the_copy_plays_at_once_and_is_h264(tmp_path, parent, key):
    folder = derive.derive(parent, tmp_path / "out", order(key))
    for name, pictures in (("masked-clip-1.mp4", 51), ("masked-clip-2.mp4", 30)):
        assert footage.is_faststart(folder / name)
        with av.open(str(folder / name)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert container.metadata["outpost_masked"] == "yes"
        assert len(planes(folder / name)) == pictures


def test_the_snapshot_and_the_path_go_with_it(tmp_path, parent, key):
    folder = derive.derive(parent, tmp_path / "out", order(key))
    picture = cv2.imread(str(folder / "snapshot.jpg"))
    assert picture[200:270, 220:360].max() <= 3
    assert picture[10:100, 10:100].min() > 190
    assert (folder / "path.json").read_bytes() == b'{"foot":[]}'


def test_the_manifest_names_the_original_and_all_of_it_verifies(tmp_path, parent, key):
    folder = derive.derive(parent, tmp_path / "out", order(key))
    report = verify.verify(folder, key.public)
    assert report.ok, report.first_wrong
    assert f"a copy of clip {'c' * 32} (manifest " in report.text()
    assert "window, corner blacked out by outpost derive 1.2.3: for the insurance" in report.text()
    document = manifest.read(json.loads((folder / "manifest.json").read_text()), key.public)
    original = json.loads((parent / "manifest.json").read_text())
    told = document["derived_from"]
    assert told["manifest_sha256"] == manifest.payload_sha256(original)
    assert document["clip_id"] == folder.name != told["clip_id"] == "c" * 32
    by_parent = {item["parent_name"]: item for item in told["files"]}
    for entry in manifest.read(original, key.public)["files"]:
        assert by_parent[entry["name"]]["parent_sha256"] == entry["sha256"]
    assert told["masks"][0] == {
        "name": "window",
        "points_ppm": [[250000, 250000], [500000, 250000], [550000, 500000], [250000, 500000]],
    }
    assert document["sources"] == []


def test_a_changed_copy_does_not_verify(tmp_path, parent, key):
    folder = derive.derive(parent, tmp_path / "out", order(key))
    path = folder / "masked-clip-1.mp4"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "masked-clip-1.mp4" in verify.verify(folder, key.public).first_wrong


def test_the_original_is_never_altered(tmp_path, parent, key):
    before = fingerprint(parent)
    derive.derive(parent, tmp_path / "out", order(key))
    with pytest.raises(ConfigError):
        derive.derive(parent, parent / "masked", order(key))
    assert fingerprint(parent) == before
    assert verify.verify(parent, key.public).ok


# What is refused, and leaves nothing.


def refused(parent: Path, out: Path, wanted: derive.Order, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        derive.derive(parent, out, wanted)
    assert not out.exists() or list(out.iterdir()) == []
    return str(caught.value)


def test_an_original_that_was_changed_is_refused(tmp_path, parent, key):
    with (parent / "clip-1.mp4").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"x")
    assert "clip-1.mp4" in refused(parent, tmp_path / "out", order(key), IntegrityError)


def test_an_original_of_another_key_is_refused(tmp_path, parent):
    other = DeviceKey.load_or_create(tmp_path / "other.key")
    assert "signature" in refused(parent, tmp_path / "out", order(other), IntegrityError)


def test_another_camera_no_masks_and_a_copy_of_a_copy_are_refused(tmp_path, parent, key):
    out = tmp_path / "out"
    other = replace(CAMERA, id="east")
    assert "'west'" in refused(parent, out, order(key, camera=other), ConfigError)
    bare = replace(CAMERA, masks=())
    assert "no masks" in refused(parent, out, order(key, camera=bare), ConfigError)
    copy = derive.derive(parent, tmp_path / "first", order(key))
    assert "copy itself" in refused(copy, out, order(key), ConfigError)


def test_a_video_that_cannot_be_decoded_is_refused(tmp_path, key):
    broken = sealed(tmp_path / "bad", {"clip-1.mp4": b"no video" * 100}, key)[0]
    assert "clip-1.mp4" in refused(broken, tmp_path / "out", order(key), StorageError)


def test_a_custody_log_that_refuses_leaves_no_copy(tmp_path, parent, key):
    def note(*_words):
        raise StorageError("custody: disk full")

    refused(parent, tmp_path / "out", order(key, note=note), StorageError)


def test_two_copies_stand_side_by_side(tmp_path, parent, key):
    clock = SimClock()
    folders = {derive.derive(parent, tmp_path / "out", order(key, clock=clock)) for _ in range(2)}
    assert len(folders) == 2
    assert verify.verify(tmp_path / "out", key.public).checked == 2


# By command.


@pytest.fixture
def config(tmp_path, key) -> Path:
    path = tmp_path / "box.toml"
    path.write_text(
        f'device = "d1"\nsite = "s1"\nrole = "camera"\nstate_dir = "{tmp_path}/state"\n'
        f'[broker]\nhost = "127.0.0.1"\n[delivery]\nreceiver_key_path = "{tmp_path}/r.pub"\n'
        '[[cameras]]\nid = "west"\n[cameras.main]\ndriver = "rtsp"\nurl = "rtsp://127.0.0.1:1/x"\n'
        '[[cameras.masks]]\nname = "window"\npoints = [[0.2, 0.2], [0.5, 0.2], [0.5, 0.5]]\n'
    )
    return path


def test_the_command_makes_a_copy_and_the_custody_log_has_it(tmp_path, parent, key, config, capsys):
    database = tmp_path / "state" / "outpost.db"
    store = Store(database, DEVICE_MIGRATIONS, SimClock(), 1 << 30)
    store.open()  # the agent is running
    words = ["derive", str(parent), "--config", str(config), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--reason", "asked by the owner"]) == 0
    told = capsys.readouterr().out
    (folder,) = (tmp_path / "out").iterdir()
    assert str(folder) in told
    public = key_file(tmp_path)
    assert f"outpost verify {folder} --key {public}" in told
    assert cli.main(["verify", str(folder), "--key", public]) == 0
    with store.reading() as connection:
        (entry,) = connection.execute("SELECT * FROM custody").fetchall()
        assert (entry["kind"], entry["subject"]) == ("clip.derived", "c" * 32)
        assert json.loads(entry["detail"]) == {"copy": folder.name, "reason": "asked by the owner"}
        assert custody.check_chain(map(dict, [entry])).seq == 1
    store.close()
    document = manifest.read(json.loads((folder / "manifest.json").read_text()), key.public)
    assert document["custody_head"]["seq"] == 1


def key_file(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "keys" / "device.pub")


def test_the_command_without_a_database_or_key_says_so(tmp_path, parent, config, capsys):
    words = ["derive", str(parent), "--config", str(config), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 1
    assert "outpost.db" in capsys.readouterr().err
    (tmp_path / "state" / "keys" / "device.key").unlink()
    assert cli.main(words) == 78
    assert "no key" in capsys.readouterr().err


def test_the_log_takes_entries_from_beside(tmp_path):
    store = Store(tmp_path / "a.db", DEVICE_MIGRATIONS, SimClock(), 1 << 30)
    store.open()
    store.write(lambda connection: custody.append(connection, SimClock(), "a", "x", {}))
    custody.note(tmp_path / "a.db", SimClock(), "b", "y", {"why": "so"})
    store.write(lambda connection: custody.append(connection, SimClock(), "c", "z", {}))
    with store.reading() as connection:
        entries = [dict(row) for row in connection.execute("SELECT * FROM custody ORDER BY seq")]
    assert custody.check_chain(entries).seq == 3
    store.close()
    with pytest.raises(StorageError):
        custody.note(tmp_path / "gone.db", SimClock(), "b", "y", {})
    assert not (tmp_path / "gone.db").exists()
    with sqlite3.connect(tmp_path / "empty.db") as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(StorageError):
        custody.note(tmp_path / "empty.db", SimClock(), "b", "y", {})
