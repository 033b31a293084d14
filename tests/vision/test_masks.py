"""What is masked is black in every picture, whatever its layout; the rest is as it was."""

from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, VideoReformatter

from agent.core.clock import RealClock
from agent.core.errors import ConfigError
from agent.core.model import Box, Detection
from agent.vision import masks
from agent.vision.config import MaskConfig
from agent.vision.decode import Frame, Scalers, Times
from agent.vision.motion import STILL
from agent.vision.pipeline import Pipeline
from tests.vision.cameras import Script, plaza
from tests.vision.support import PLAZA, frames
from tests.vision.test_analysis import Ear, Paced, run

WINDOW = MaskConfig("window", ((0.25, 0.25), (0.5, 0.25), (0.5, 0.5), (0.25, 0.5)))
CORNER = MaskConfig("corner", ((0.0, 0.0), (0.2, 0.0), (0.0, 0.3)))
MASKED = plaza(masks=(WINDOW, CORNER))
BLIND = plaza(masks=(replace(WINDOW, is_blind=True), CORNER))


def picture(width=96, height=64, layout="yuv420p", seed=1) -> av.VideoFrame:
    """Smooth colours and a bright middle, so that every sample is far from black."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack((120 + x, 130 + y, 200 - x // 2), axis=2).clip(60, 250).astype(np.uint8)
    found = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    return VideoReformatter().reformat(found, format=layout)


def rgb(found: av.VideoFrame) -> np.ndarray:
    return VideoReformatter().reformat(found, format="rgb24").to_ndarray().astype(int)


def touched(width: int, height: int) -> np.ndarray:
    """Pixels of which a mask covers any part, by nine points of each: an own way to tell."""
    inside = np.zeros((height, width), dtype=bool)
    for dx in (0.01, 0.5, 0.99):
        for dy in (0.01, 0.5, 0.99):
            x = (np.arange(width) + dx)[None, :] / width
            y = (np.arange(height) + dy)[:, None] / height
            inside |= (x > 0.25) & (x < 0.5) & (y > 0.25) & (y < 0.5)
            inside |= x / 0.2 + y / 0.3 < 1
    return inside


LAYOUTS = ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12", "gray"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(96, 64), (352, 288), (98, 66)])
def test_every_pixel_that_a_mask_touches_is_black_and_the_others_stay(layout, size):
    before = picture(*size, layout)
    after = masks.of(MASKED)(before)
    inside = touched(*size)
    planes = after.to_ndarray(format="yuv420p")
    assert (planes[: size[1]][inside] == masks.BLACK).all()
    assert rgb(after)[inside].max() <= 3
    far = ~cv2.dilate(inside.astype(np.uint8), np.ones((7, 7))).astype(bool)
    assert np.abs(rgb(after) - rgb(before))[far].max() <= 6


def test_a_full_range_picture_without_the_old_name_is_told_apart():
    before = picture(layout="yuv420p")
    before.color_range = ColorRange.JPEG
    after = masks.of(MASKED)(before)
    assert after.color_range == ColorRange.MPEG
    far = ~cv2.dilate(touched(96, 64).astype(np.uint8), np.ones((7, 7))).astype(bool)
    luma = before.to_ndarray(format="yuv420p")[:64].astype(float)
    veiled = after.to_ndarray(format="yuv420p")[:64].astype(float)
    assert np.abs(veiled - (16 + luma * 219 / 255))[far].max() <= 2


def test_odd_sides_are_made_even():
    after = masks.of(MASKED)(picture(97, 65, "yuv444p"))
    assert (after.width, after.height) == (96, 64)


def test_the_picture_itself_is_never_painted():
    before = picture()
    kept = before.to_ndarray(format="yuv420p").copy()
    masks.of(MASKED)(before)
    assert (before.to_ndarray(format="yuv420p") == kept).all()


def test_without_masks_there_is_no_veil():
    assert masks.of(plaza()) is None
    assert masks.blind(MASKED) is None
    assert masks.blind(BLIND) is not None


@pytest.mark.parametrize(
    ("name", "points", "word"),
    [
        ("bow", ((0, 0), (1, 1), (1, 0), (0, 1)), "cross"),
        ("dot", ((0.1, 0.1), (0.101, 0.1), (0.1, 0.101)), "cover"),
    ],
)
def test_a_mask_that_is_no_area_is_refused(name, points, word):
    with pytest.raises(ConfigError, match=word) as caught:
        MaskConfig(name, points)
    assert f"mask '{name}'" in str(caught.value)


def test_two_masks_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two masks are called 'window'"):
        plaza(masks=(WINDOW, WINDOW))


# In the pipeline.


def frame(t_us: int = 0) -> Frame:
    return Frame(picture(640, 360), Scalers(), 1, Times(t_us, t_us * 1000, None))


def test_a_snapshot_is_black_where_masked():
    veil = masks.of(MASKED)
    whole = cv2.imdecode(np.frombuffer(frame().jpeg(veil), np.uint8), cv2.IMREAD_COLOR)
    inside = touched(640, 360)
    core = cv2.erode(inside.astype(np.uint8), np.ones((33, 33))).astype(bool)
    assert whole[core].max() <= 2
    assert whole[inside].mean() < 4
    assert whole[~inside].mean() > 80


@pytest.mark.video
def test_the_snapshots_of_a_running_analysis_are_black_where_masked(tmp_path):
    ear = Ear(tmp_path, until=lambda said: said.get("state") == "ended")
    run(ear, lambda _stream: Paced(speed=10.0), cameras=[replace(MASKED, id="plaza")])
    found = list((tmp_path / "spool").glob("*.jpg"))
    assert found
    core = cv2.erode(touched(768, 576).astype(np.uint8), np.ones((33, 33))).astype(bool)
    for path in found:
        picture = cv2.imread(str(path))
        assert picture[core].max() <= 3
        assert picture[400:, 400:].mean() > 30


class Camera:
    """An eye that keeps what it is shown."""

    model_id = "camera@000000000000"
    is_cropping = False

    def __init__(self) -> None:
        self.shown = []

    def detect(self, seen) -> tuple[Detection, ...]:
        self.shown.append((seen.rgb(640, 360), seen.luma()))
        return ()


@pytest.mark.parametrize(("camera", "is_hidden"), [(MASKED, False), (BLIND, True)])
def test_only_a_blind_mask_is_black_for_the_detector(camera, is_hidden):
    eye = Camera()
    Pipeline(camera, eye, 0.4, RealClock()).step(frame())
    ((shown, luma),) = eye.shown
    assert (shown[100:170, 170:310].max() < 3) == is_hidden
    assert (luma[50:85, 85:155].max() < 18) == is_hidden
    assert shown[5:40, 5:40].min() > 30, "the other mask is not blind"
    assert shown[250:, 400:].min() > 30


@pytest.mark.video
def test_who_stands_in_a_mask_still_counts():
    """A mask hides from the eyes at the centre, not from the rules."""
    box = Box(0.4, 0.3, 0.1, 0.3)
    eye = Script(lambda _seconds: [Detection("person", 0.8, box)])
    mask = MaskConfig("door", ((0.35, 0.4), (0.6, 0.4), (0.6, 0.7), (0.35, 0.7)))
    pipeline = Pipeline(plaza(masks=(mask,)), eye, 0.4, RealClock())
    events = [event for found in frames(PLAZA) for event in pipeline.step(found).events]
    assert "zone_enter" in {event.kind for event in events}


def test_nothing_moves_under_a_blind_mask():
    def at(t_us: int, is_lit: bool) -> Frame:
        planes = np.full((540, 640), 128, np.uint8)
        planes[:360] = 90
        if is_lit:
            planes[100:170, 170:310] = 220
        found = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        return Frame(found, Scalers(), 1, Times(t_us, t_us * 1000, None))

    def is_moving(camera) -> bool:
        pipeline = Pipeline(camera, None, 0.4, RealClock())
        results = [pipeline.watch(at(step * 200_000, step > 30)) for step in range(33)]
        return any((result or STILL).is_moving for result in results[30:])

    assert is_moving(MASKED)
    assert not is_moving(BLIND)
