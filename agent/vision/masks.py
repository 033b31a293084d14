"""Privacy masks: polygons that are black in snapshots and in masked copies of clips.

A decoded picture may still be needed by its decoder, so it is never painted itself: a veil gives a
copy. Every pixel that a polygon touches is covered, in colour too.
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from numpy.typing import NDArray

from agent.vision.config import CameraConfig, MaskConfig

BLACK: Final = 16  # of luma in the limited range
NO_COLOUR: Final = 128

_LAYOUT: Final = "yuv420p"
_FULL_RANGE: Final = "yuvj"  # FFmpeg's old names of it
_SHIFT: Final = 4  # bits behind the point of a corner's coordinates

Corners = Sequence[tuple[float, float]]


class Veil:
    """Blacks out polygons, given in fractions of the picture; keeps what it draws for each size."""

    def __init__(self, polygons: Sequence[Corners]) -> None:
        self._polygons = [np.array(corners, dtype=np.float64) for corners in polygons]
        self._covers: dict[tuple[int, int], tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}

    def __call__(self, picture: VideoFrame) -> VideoFrame:
        """Give a copy in yuv420p, limited range, everything masked black; sides are made even."""
        width, height = picture.width // 2 * 2, picture.height // 2 * 2
        plain = VideoReformatter().reformat(
            picture,
            width,
            height,
            _LAYOUT,
            src_color_range=ColorRange.JPEG if _is_full_range(picture) else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        planes = plain.to_ndarray(format=_LAYOUT).copy()
        luma, colour = self.cover(width, height)
        planes[:height][luma] = BLACK
        planes[height:].reshape(2, height // 2, width // 2)[:, colour] = NO_COLOUR
        veiled = VideoFrame.from_ndarray(planes, format=_LAYOUT)
        veiled.color_range = ColorRange.MPEG
        veiled.colorspace = picture.colorspace
        veiled.pts = picture.pts
        return veiled

    def cover(self, width_px: int, height_px: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Give what is covered of a picture with even sides: of luma, and of colour, a quarter."""
        size = (width_px, height_px)
        if size not in self._covers:
            self._covers = {size: _cover(self._polygons, *size)}
        return self._covers[size]


def of(camera: CameraConfig) -> Veil | None:
    """Give the veil of snapshots and masked copies; None without masks."""
    return _veil(camera.masks)


def blind(camera: CameraConfig) -> Veil | None:
    """Give the veil of what not even the detector may see; None where there is none."""
    return _veil([mask for mask in camera.masks if mask.is_blind])


def _veil(masks: Sequence[MaskConfig]) -> Veil | None:
    return Veil([mask.points for mask in masks]) if masks else None


def _cover(
    polygons: Sequence[NDArray[np.float64]], width: int, height: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    drawn = np.zeros((height, width), dtype=np.uint8)
    for corners in polygons:
        spots = np.round((corners * (width, height) - 0.5) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillPoly(drawn, [spots], 1, shift=_SHIFT)
    drawn = cv2.dilate(drawn, np.ones((3, 3), np.uint8)).astype(np.uint8)
    luma = drawn.astype(bool)
    colour = luma[::2, ::2] | luma[1::2, ::2] | luma[::2, 1::2] | luma[1::2, 1::2]
    return luma, colour


def _is_full_range(picture: VideoFrame) -> bool:
    return picture.color_range == ColorRange.JPEG or picture.format.name.startswith(_FULL_RANGE)
