"""What a motion gate notices: a walker of known size in noise, ours beside MOG2.

A person is cut out of the plaza and walks over the empty plaza, three seconds there and three
seconds not, under sensor noise, through the encoder of a sub stream. Sizes are heights in pixels
of a 1080p main stream. Both gates work five times a second on the same 320 x 180 plane; ours is as
configured by default, MOG2 gets what serves it best on the same clip with one false picture in a
hundred at most: the smallest patch that counts, and whether single pixels are taken away.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import cv2
import numpy as np

from agent.core.clock import RealClock
from agent.vision import offline
from agent.vision.config import MotionConfig
from agent.vision.motion import Motion
from benchmarks._footage import (
    NOISE_SIGMA,
    PLAZA,
    SUB_KBIT_PER_S,
    Footage,
    Image,
    encode,
    place_without_people,
)
from benchmarks._table import markdown
from drivers import file

SIZES_PX: Final = (24, 40, 64, 110)
MAIN_HEIGHT_PX: Final = 1080
SUB_SIZE: Final = (640, 360)
FPS: Final = 15
WATCH_EVERY: Final = 3
SLOT: Final = 3 * FPS  # pictures with or without the walker
SLOTS: Final = 16
UNSCORED: Final = 9 * FPS  # while the gates learn the place
SETTLING: Final = FPS // 2  # after each coming and going: neither seen nor false
HEIGHTS_PER_S: Final = 0.75
FALSE_FRAC: Final = 0.01
SAMPLE: Final = 100  # picture of the plaza with people well apart
MIN_DIFFERENCE: Final = 25  # grey levels between a person and the ground
PATCHES_PX: Final = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120)  # smallest patches that are tried
KERNEL: Final = np.ones((3, 3), np.uint8)


def gates(folder: Path) -> str:
    """Measure, and give the table."""
    rows = []
    place, person, mask = _cast()
    for size_px in SIZES_PX:
        clip = folder / f"walker-{size_px}.mp4"
        encode(_pictures(place, person, mask, size_px), clip, FPS, SUB_SIZE, SUB_KBIT_PER_S)
        is_there, ours, areas = _look(clip)
        swept = [
            _shares([pair[is_opened] >= least for pair in areas], is_there)
            for least in PATCHES_PX
            for is_opened in (False, True)
        ]
        held = [pair for pair in swept if pair[1] <= FALSE_FRAC]
        shares = (*_shares(ours, is_there), *max(held, default=(0.0, 0.0)))
        walks = f"{_walks(ours, is_there)} of {SLOTS // 2}"
        rows.append((size_px, walks, *(f"{share:.3f}" for share in shares)))
    head = ("walker, px of 1080p", "ours: walks noticed", "pictures seen", "false")
    return markdown((*head, "MOG2: pictures seen", "false"), rows)


def _shares(moves: Sequence[bool], is_there: Sequence[bool | None]) -> tuple[float, float]:
    """Give the share of pictures with a walker that move, and of those without one."""
    seen = [moving for moving, there in zip(moves, is_there, strict=True) if there is True]
    false = [moving for moving, there in zip(moves, is_there, strict=True) if there is False]
    return sum(seen) / len(seen), sum(false) / len(false)


def _walks(moves: Sequence[bool], is_there: Sequence[bool | None]) -> int:
    """Give how many walks were noticed in any picture."""
    noticed = {
        (number * WATCH_EVERY) // SLOT
        for number, (moving, there) in enumerate(zip(moves, is_there, strict=True))
        if there and moving
    }
    return len(noticed)


def _look(clip: Path) -> tuple[list[bool | None], list[bool], list[tuple[int, int]]]:
    """Give whether the walker is there, what we say, and the largest patches that MOG2 sees."""
    motion, mog = Motion(MotionConfig()), cv2.createBackgroundSubtractorMOG2(detectShadows=False)
    is_there: list[bool | None] = []
    ours: list[bool] = []
    areas: list[tuple[int, int]] = []  # of the mask as it is, and without single pixels
    for frame in offline.frames(file.build(file.Config(clip), RealClock())):
        if frame.index % WATCH_EVERY:
            continue
        plane = frame.luma()
        ours.append(motion.step(plane, frame.t_us).is_moving)
        mask = mog.apply(plane)
        areas.append((_largest(mask), _largest(cv2.morphologyEx(mask, cv2.MORPH_OPEN, KERNEL))))
        is_there.append(_is_there(frame.index - 1))
    return is_there, ours, areas


def _largest(mask: Any) -> int:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    return int(max(stats[1:, cv2.CC_STAT_AREA], default=0))


def _is_there(index: int) -> bool | None:
    """Say whether the walker is in a picture; None where it is not asked."""
    slot, since = divmod(index - UNSCORED, SLOT)
    return None if index < UNSCORED or since < SETTLING else slot % 2 == 0


def _pictures(place: Image, person: Image, mask: Image, size_px: int) -> Iterator[Image]:
    """Give the place under noise, with the walker in every other slot."""
    dice = np.random.default_rng(size_px)
    width, height = SUB_SIZE
    tall = size_px * height / MAIN_HEIGHT_PX
    scale = tall / person.shape[0]
    left = top = 0.0
    for index in range(UNSCORED + SLOTS * SLOT):
        slot, since = divmod(index - UNSCORED, SLOT)
        if since == 0:
            left = float(dice.uniform(0.1, 0.7)) * width
            top = float(dice.uniform(0.3, 0.8)) * height
        picture = place.astype(np.float32)
        if index >= UNSCORED and slot % 2 == 0:
            x = left + HEIGHTS_PER_S * tall * since / FPS
            moved = np.array([[scale, 0, x], [0, scale, top]], np.float32)
            over = cv2.warpAffine(person, moved, SUB_SIZE, flags=cv2.INTER_AREA)
            share = cv2.warpAffine(mask, moved, SUB_SIZE, flags=cv2.INTER_AREA)[..., None] / 255
            picture = (picture * (1 - share) + over * share).astype(np.float32)
        noise = dice.normal(0, NOISE_SIGMA, (height, width, 1)).astype(np.float32)
        yield np.clip(picture + noise, 0, 255).astype(np.uint8)


def _cast() -> tuple[Image, Image, Image]:
    """Give the empty place in the size of the sub stream, and a person with his mask."""
    footage = Footage(PLAZA, 60.0)
    place = place_without_people(footage)
    picture = next(one for index, one in enumerate(footage.pictures()) if index == SAMPLE)
    differs = np.abs(picture.astype(int) - place).max(axis=2) > MIN_DIFFERENCE
    mask = cv2.morphologyEx(differs.astype(np.uint8) * 255, cv2.MORPH_CLOSE, np.ones((7, 7)))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cast("Any", mask))
    upright = [
        row
        for row in range(1, len(stats))
        if 1.6 * stats[row, 2] < stats[row, 3] < 4 * stats[row, 2]  # width, height
    ]
    who = max(upright, key=lambda row: int(stats[row, cv2.CC_STAT_AREA]))
    x, y, w, h = (int(value) for value in stats[who, :4])
    part = slice(y, y + h), slice(x, x + w)
    cut = np.where(labels[part] == who, 255, 0).astype(np.uint8)
    small = cv2.resize(place, SUB_SIZE, interpolation=cv2.INTER_AREA)
    return cast("Image", small), picture[part], cut
