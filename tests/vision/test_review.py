"""A folder of recordings: files found and joined, broken ones named, a picture of every event."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.core.clock import RealClock
from agent.core.model import Box, Detection
from agent.vision import offline, review, tracklog
from agent.vision.config import MaskConfig
from agent.vision.review import Recording, Review
from drivers import file as file_driver
from tests import footage
from tests.vision.cameras import Script, Walker, plaza
from tests.vision.support import PLAZA

pytestmark = pytest.mark.video

START_MS = 1_700_000_000_000
MASK = MaskConfig("house", ((0.1, 0.1), (0.4, 0.1), (0.4, 0.4), (0.1, 0.4)))


def source(path: Path):
    return file_driver.build(file_driver.Config(path), RealClock())


def study(camera=None, eye=None, every_s: float = 0.0) -> Review:
    return Review(camera or plaza(), eye or Walker(), 0.4, RealClock(), source, every_s)


def shots(wanted: Review, folder: Path) -> list[review.Shot]:
    return [shot for group in review.groups(folder) for shot in wanted.shots(group[0], group)]


def put(folder: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_files_are_found_in_order_and_others_are_not(tmp_path):
    put(tmp_path, "b.MP4", "a.mkv", "sub/c.ts", "notes.txt", "path.json", "x.jpg")
    found = review.groups(tmp_path)
    assert [[item.path.name for item in group] for group in found] == [
        ["a.mkv"],
        ["b.MP4"],
        ["c.ts"],
    ]


def test_segments_of_one_run_are_joined(tmp_path):
    put(
        tmp_path,
        f"{START_MS}-aa.mp4",
        f"{START_MS + 10_000}-aa.mp4",
        f"{START_MS + 20_000}-bb.mp4",
        f"{START_MS + 30_000}-bb.mp4",
        f"{START_MS + 200_000}-bb.mp4",
        f"other/{START_MS + 210_000}-bb.mp4",
    )
    sizes = [len(group) for group in review.groups(tmp_path)]
    assert sizes == [2, 2, 1, 1]
    assert review.groups(tmp_path)[0][1] == Recording(
        tmp_path / f"{START_MS + 10_000}-aa.mp4", START_MS + 10_000, "aa"
    )


def test_the_events_are_those_of_analysing_the_file_alone(tmp_path):
    (tmp_path / "plaza.mp4").write_bytes(PLAZA.read_bytes())
    found = [shot.event for shot in shots(study(), tmp_path)]
    alone = [
        item["event"]
        for item in offline.analyse_lines(source(PLAZA), plaza(), Walker(), 0.4, RealClock())
        if item["event"]["state"] == "closed"
    ]
    assert [(event.kind, event.start_utc_ns // 1_000_000) for event in found] == [
        (event["kind"], event["start_utc_ms"]) for event in alone
    ]
    assert len(found) >= 2


def standing(_seconds: float) -> list[Detection]:
    return [Detection("person", 0.8, Box(0.45, 0.4, 0.1, 0.2))]


def test_an_event_goes_on_over_the_border_of_two_segments(tmp_path):
    """Somebody stands in the zone through three recordings of six seconds each."""
    content = footage.numbered(60).read_bytes()
    for number in range(3):
        put(tmp_path, f"{START_MS + 6000 * number}-aa.mp4", content=content)
    (shot,) = shots(study(eye=Script(standing)), tmp_path)
    event = shot.event
    assert event.start_utc_ns // 1_000_000 == pytest.approx(START_MS, abs=600)
    assert (event.end_utc_ns - event.start_utc_ns) / 1e9 == pytest.approx(17.5, abs=1.0)


def test_files_that_do_not_belong_together_end_their_events(tmp_path):
    content = footage.numbered(60).read_bytes()
    put(tmp_path, "a.mp4", "b.mp4", content=content)
    found = shots(study(eye=Script(standing)), tmp_path)
    assert [shot.event.reason for shot in found] == [offline.END_OF_VIDEO] * 2
    assert [shot.recording.path.name for shot in found] == ["a.mp4", "b.mp4"]


def test_pictures_at_regular_times(tmp_path):
    put(tmp_path, "a.mp4", content=footage.numbered(60).read_bytes())
    found = shots(study(eye=Script(lambda _s: []), every_s=2.0), tmp_path)
    assert [shot.at_us / 1e6 for shot in found] == pytest.approx([0.0, 2.0, 4.0], abs=0.5)
    assert all(shot.event is None and shot.jpeg for shot in found)


def test_broken_files_are_named_and_the_others_read(tmp_path):
    put(tmp_path, "a.mp4", content=b"no video")
    put(tmp_path, "b.mp4", content=PLAZA.read_bytes()[:200_000])
    put(tmp_path, "c.mp4", content=PLAZA.read_bytes())
    put(tmp_path, "d.mp4", content=b"")
    put(tmp_path, "e.mkv", content=footage.sound().read_bytes())
    wanted = study()
    found = shots(wanted, tmp_path)
    assert {shot.recording.path.name for shot in found} >= {"c.mp4"}
    named = {item.path.name for item in wanted.totals.broken}
    assert named >= {"a.mp4", "d.mp4", "e.mkv"}
    assert "c.mp4" not in named
    assert wanted.totals.files == 5


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def test_pictures_and_scene_are_masked(tmp_path):
    put(tmp_path, "plaza.mp4", content=PLAZA.read_bytes())
    wanted = study(plaza(masks=(MASK,)))
    found = shots(wanted, tmp_path)
    width, height = wanted.totals.size_px
    assert (width, height) == (768, 576)
    for jpeg in (wanted.scene, *(shot.jpeg for shot in found)):
        picture = decoded(jpeg)
        inside = picture[70:220, 90:300]
        assert inside.max() <= 3
        assert picture[300:, 400:].mean() > 30


def test_the_scene_is_without_what_moves(tmp_path):
    """A bright block crosses a grey picture: none of it is left in the median."""
    import av

    path = tmp_path / "block.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "10"})
        stream.width, stream.height, stream.pix_fmt = 320, 176, "yuv420p"
        for number in range(120):
            pixels = np.full((264, 320), 128, np.uint8)
            pixels[:176] = 90
            pixels[60:100, number * 2 : number * 2 + 40] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="yuv420p")))
        container.mux(stream.encode(None))
    wanted = study(eye=Script(lambda _s: []))
    shots(wanted, tmp_path)
    scene = decoded(wanted.scene).astype(int)
    assert np.ptp(scene) < 25


def test_track_logs_of_recordings_can_be_replayed(tmp_path):
    put(tmp_path / "in", "a.mp4", "b.mp4", content=PLAZA.read_bytes())
    wanted, count = study(), 0
    keeper = tracklog.Keeper(tmp_path / "tracks", 36_500, 1000)
    for group in review.groups(tmp_path / "in"):
        writer = tracklog.Writer(keeper, tracklog.Session("plaza", "walker@1"))
        count += len(list(wanted.shots(group[0], group, writer)))
        writer.flush()
    from agent.vision.replay import Replay

    files = tracklog.paths(tmp_path / "tracks", "plaza")
    again = Replay(plaza(), None, RealClock())
    events = list(again.events(tracklog.read(files)))
    assert sum(event.state.value == "closed" for event in events) == count
    assert again.extent.hours * 3600 == pytest.approx(wanted.totals.seen_us / 1e6, abs=1.0)
