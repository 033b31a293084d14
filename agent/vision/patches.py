"""What stands in the picture that did not stand there before: static foreground and its age.

A slow background, begun as the median of twenty seconds, and once a second the question where the
mean of the last second differs from it by more than light explains. What differs, steadily for some
seconds and in one piece, is a patch, unless it keeps the background's texture (light) or the
background had the edges and the picture has none (a hole: something that stood there when the
background was learned has gone). A patch is gone once its place looks like the background again;
whoever stands in front of it does not end it.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.core.model import Box, Patch
from agent.vision.analytics._overlap import covered, iou
from agent.vision.decode import Image

EVERY_US: Final = 1_000_000  # between two judgements
FAST_TAU_S: Final = 1.0
SLOW_TAU_S: Final = 300.0
SETTLE_LOOKS: Final = 20  # one a judgement, before anything is told
ABSORB_US: Final = 1_800_000_000  # what has stood for half an hour belongs to the scene
MIN_DIFFERENCE: Final = 14.0  # grey levels
MAX_TREMBLE: Final = 5.0  # grey levels a second: more is not steady
STEADY_S: Final = 3.0  # before it is a patch; who walks is never so long at one place
MIN_AREA_FRAC: Final = 0.0003
GLOBAL_FRAC: Final = 0.25  # steadily another above this share: the light, or another view
GLOBAL_LEVELS: Final = 6.0  # grey levels: the light has changed by so much since it was learned
GLOBAL_US: Final = 3_000_000
SAME_DETAIL: Final = 0.7  # correlation of the fine texture in the patch with what was there
MIN_DETAIL: Final = 1.0  # grey levels: below it there is no texture to compare
SOFT_EDGE: Final = 0.24  # of the whole difference, a pixel: things end more sharply than light
HOLE_RATIO: Final = 1.0  # of edges round a patch and contrast to its surroundings, now to before
FLAT: Final = 3.0  # grey levels: the contrast of what has none
MAX_PATCHES: Final = 16
WHOLE: Final = 0.7  # of what differs in one piece must be steady before it is judged
STILL_THERE: Final = 0.4  # of a patch's place that differs: it is there, or something before it
MISSED_US: Final = 1_500_000

_US_PER_S: Final = 1_000_000
_SAME: Final = 0.3  # IoU of a patch with itself a second ago
_WITHIN: Final = 0.7
_OPEN: Final = np.ones((3, 3), np.uint8)
_CLOSE: Final = np.ones((5, 5), np.uint8)
_AROUND: Final = np.ones((9, 9), np.uint8)

_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Known:
    patch: Patch
    seen_us: int


class Patches:
    """Learns a scene and tells what came to stand in it; for one thread."""

    def __init__(self) -> None:
        self._slow: _Floats = np.empty((0, 0), np.float32)
        self._fast = self._before = self._steady_s = self._slow
        self._first: list[Image] = []
        self._is_settled = False
        self._last_us = self._judged_us = 0
        self._global_us: int | None = None
        self._known: tuple[_Known, ...] = ()

    @property
    def known(self) -> tuple[Patch, ...]:
        """The patches as of the last judgement."""
        return tuple(item.patch for item in self._known)

    def step(self, plane: Image, t_us: int) -> tuple[Patch, ...]:
        """Take one plane; gives the patches as of the last judgement."""
        if self._fast.shape != plane.shape:
            self._begin(plane, t_us)
            return ()
        span_s = max(0, t_us - self._last_us) / _US_PER_S
        self._last_us = t_us
        cv2.accumulateWeighted(plane, self._fast, 1 - math.exp(-span_s / FAST_TAU_S))
        if t_us - self._judged_us >= EVERY_US:
            span_s, self._judged_us = (t_us - self._judged_us) / _US_PER_S, t_us
            if self._is_settled:
                self._judge(t_us, span_s)
            else:
                self._settle(plane)
            self._before = self._fast.copy()
        return self.known

    def _begin(self, plane: Image, t_us: int) -> None:
        self._fast = plane.astype(np.float32)
        self._before, self._steady_s = self._fast.copy(), np.zeros_like(self._fast)
        self._first, self._known, self._global_us, self._is_settled = [], (), None, False
        self._last_us = self._judged_us = t_us

    def _settle(self, plane: Image) -> None:
        """Learn the scene from the start, but for what is known to stand in it."""
        self._first.append(plane)
        if len(self._first) < SETTLE_LOOKS:
            return
        learned = np.median(np.stack(self._first), axis=0).astype(np.float32)
        if self._known:
            expected = _in_this_light(self._slow, learned)
            for item in self._known:
                part = _part(item.patch.box, learned.shape)
                learned[part] = expected[part]
        self._slow, self._first, self._is_settled = learned, [], True

    def _judge(self, t_us: int, span_s: float) -> None:
        expected = _in_this_light(self._slow, self._fast)
        differs = _beyond(self._fast, expected)
        is_steady = cv2.absdiff(self._fast, self._before) <= MAX_TREMBLE
        if self._is_another_light(expected, np.asarray(is_steady), t_us):
            self._is_settled, self._global_us = False, None
            self._steady_s[:] = 0
            return
        self._steady_s = np.where(
            is_steady & (differs > 0), self._steady_s + np.float32(span_s), np.float32(0)
        )
        stands = cv2.morphologyEx(_marked(self._steady_s >= STEADY_S), cv2.MORPH_OPEN, _OPEN)
        stands = cast("Image", cv2.morphologyEx(stands, cv2.MORPH_CLOSE, _CLOSE))
        self._match(stands, differs, t_us)
        share = 1 - math.exp(-span_s / SLOW_TAU_S)
        cv2.accumulateWeighted(self._fast, self._slow, share, cv2.bitwise_not(differs))

    def _is_another_light(self, expected: _Floats, is_steady: NDArray[np.bool_], t_us: int) -> bool:
        """Whether the whole picture, or much of it, has been another for a while."""
        light = cv2.norm(expected, self._slow, cv2.NORM_L1) / expected.size
        share = float(((_beyond(self._fast, self._slow) > 0) & is_steady).mean())
        if light <= GLOBAL_LEVELS and share <= GLOBAL_FRAC:
            self._global_us = None
        elif self._global_us is None:
            self._global_us = t_us
        return self._global_us is not None and t_us - self._global_us >= GLOBAL_US

    def _match(self, stands: Image, differs: Image, t_us: int) -> None:
        """Find what stands now in what stood before; light and holes are learned at once."""
        height, width = stands.shape
        count, names, stats, _ = cv2.connectedComponentsWithStats(stands, connectivity=8)
        rows = [
            (name, *(int(value) for value in stats[name]))
            for name in range(1, count)
            if stats[name][cv2.CC_STAT_AREA] >= MIN_AREA_FRAC * width * height
        ]
        rows.sort(key=lambda row: -row[5])
        known = list(self._known)
        _, pieces, sizes, _ = cv2.connectedComponentsWithStats(differs, connectivity=8)
        for name, x, y, w, h, _area in rows[:MAX_PATCHES]:
            box = Box(x / width, y / height, w / width, h / height)
            part = np.s_[max(0, y - 5) : y + h + 5, max(0, x - 5) : x + w + 5]
            mask = _marked(names[part] == name)
            piece = int(np.bincount(pieces[part][mask > 0]).argmax())
            is_whole = cv2.countNonZero(mask) >= WHOLE * sizes[piece][cv2.CC_STAT_AREA]
            old = next((item for item in known if _is_same(item.patch.box, box)), None)
            if old is not None and t_us - old.patch.since_us <= ABSORB_US:
                larger = max(old.patch.box, box, key=lambda found: found.w * found.h)
                known[known.index(old)] = _Known(replace(old.patch, box=larger), t_us)
            elif old is None and not is_whole:
                continue
            elif old is None and len(known) < MAX_PATCHES and not self._is_scene(part, mask):
                since_us = t_us - round(float(self._steady_s[part][mask > 0].max()) * _US_PER_S)
                known.append(_Known(Patch(box, since_us), t_us))
            else:
                cv2.copyTo(self._fast[part], mask, self._slow[part])
        self._known = tuple(
            item
            for item in known
            if t_us - item.seen_us <= MISSED_US or _share(differs, item.patch.box) >= STILL_THERE
        )

    def _is_scene(self, part: tuple[slice, slice], mask: Image) -> bool:
        """Whether it is the ground in another light, or where something used to stand."""
        now, then = self._fast[part], self._slow[part]
        inside = mask > 0
        fine_now, fine_then = _detail(now)[inside], _detail(then)[inside]
        if min(float(fine_now.std()), float(fine_then.std())) >= MIN_DETAIL:
            likeness = float(np.corrcoef(fine_now, fine_then)[0, 1])
            if likeness >= SAME_DETAIL:
                return True
        ring = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, _CLOSE) > 0)
        difference = now - then
        step = float(np.percentile(np.abs(difference[inside]), 90))
        if float(np.percentile(_slope(difference)[ring], 75)) < SOFT_EDGE * step:
            return True
        near, nearest = cv2.dilate(mask, _AROUND), cv2.dilate(mask, _OPEN)
        around = np.asarray(cv2.subtract(near, nearest) > 0)
        edges = float(_slope(now)[ring].mean()) / max(1e-3, float(_slope(then)[ring].mean()))
        contrast = _contrast(now, inside, around) / _contrast(then, inside, around)
        return edges * contrast < HOLE_RATIO


def _is_same(known: Box, found: Box) -> bool:
    """Whether what was found is a known patch, or the part of it that nobody hides."""
    return iou(known, found) >= _SAME or covered(found, known) >= _WITHIN


def _in_this_light(then: _Floats, now: _Floats) -> _Floats:
    """Give the background in the light of now: one gain and offset for the whole picture.

    Fitted on a sixteenth of the pixels, then again without the outliers.
    """
    seen, known = now[::4, ::4].ravel(), then[::4, ::4].ravel()
    gain, offset = np.float32(1), np.float32(0)
    error = np.abs(seen - known)
    for _ in range(3):
        kept = error <= max(2.0, 2.5 * float(np.median(error)))
        x, y = known[kept], seen[kept]
        spread = float(x.var())
        gain = np.float32(((x - x.mean()) * (y - y.mean())).mean() / spread if spread > 1 else 1)
        offset = np.float32(y.mean() - gain * x.mean())
        error = np.abs(seen - gain * known - offset)
    expected: _Floats = np.clip(then * gain + offset, 0, 255)  # white cannot get whiter
    return expected


def _beyond(now: _Floats, expected: _Floats) -> Image:
    return _marked(cv2.absdiff(now, expected) > MIN_DIFFERENCE)


def _part(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    height, width = shape
    left, top = round(box.x * width), round(box.y * height)
    return np.s_[top : top + round(box.h * height), left : left + round(box.w * width)]


def _share(marked: Image, box: Box) -> float:
    part = marked[_part(box, marked.shape)]
    return cv2.countNonZero(part) / part.size if part.size else 0.0


def _marked(truth: object) -> Image:
    return np.asarray(truth).astype(np.uint8) * np.uint8(255)


def _contrast(plane: _Floats, inside: NDArray[np.bool_], around: NDArray[np.bool_]) -> float:
    """Give how unlike its surroundings a place is, grey levels; never 0."""
    if not around.any():
        return FLAT
    return FLAT + abs(float(np.median(plane[inside])) - float(np.median(plane[around])))


def _slope(plane: _Floats) -> _Floats:
    """Give the length of the gradient, grey levels a pixel."""
    across, down = cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)
    return cast("_Floats", cv2.magnitude(across, down) / np.float32(8))


def _detail(plane: _Floats) -> _Floats:
    return cast("_Floats", plane - cv2.GaussianBlur(plane, (0, 0), 1.5))
