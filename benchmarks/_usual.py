"""The way recorders usually see, made again from its description; nothing of theirs is used.

An ffmpeg child decodes, drops to five pictures a second, scales to the detect size and writes raw
pictures into a pipe. Motion is a blurred running average on a plane of 100 rows; regions are
squares of 320 pixels or more around tracks and motion, each one inference; what stood still for
fifty pictures is looked at every fiftieth only, or when motion touches it. The tracker is ours,
which costs a tenth of what such recorders use.
"""

import resource
import subprocess
from collections import deque
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from agent.core.model import Box, Detection, Track
from agent.vision import crops, ssd
from agent.vision.boxes import Floats, corners, covered
from agent.vision.config import TrackConfig
from agent.vision.decode import Frame
from agent.vision.track import Tracker
from benchmarks._ways import LOOKS_PER_S, MIN_SCORE, STAGES, Image, Picture, Run, Stages, eye

ROWS = 100
STRETCH_OVER = 50  # pictures
THRESHOLD = 30
MIN_CONTOUR_PX = 10
ALPHA, ALPHA_AT_START, START_PICTURES = 0.01, 0.2, 30
SCENE_FRAC = 0.8
MIN_REGION_PX = 320
STILL_PICTURES = 50
STILL_IOU = 0.85


def usual(path: Path, size: tuple[int, int], fps: float) -> Run:
    """Take a stream the usual recorder's way.

    Args:
        path: of the stream.
        size: width and height of the pictures that are detected in.
        fps: of the stream, to number its pictures.
    """
    before_s = _children_s()
    run = Run(dict.fromkeys(STAGES, 0.0))
    detector, meter = eye()
    motion, still, tracker = _Motion(), _Still(), Tracker(TrackConfig(), MIN_SCORE)
    stages = Stages(run)
    tracks: tuple[Track, ...] = ()
    with _child(path, size) as child:
        index = 0
        while True:
            stages.begin()
            plane = _read(child, size)
            stages.end("decode")
            if plane is None:
                break
            moving = motion.step(plane[: size[1]])
            stages.end("motion")
            regions = _regions(still.to_look_at(tracks, moving, index), moving, size)
            stages.end("track")
            seen = []
            for region in regions:
                picture = _cut(plane, region, size)
                found = detector.detect(cast("Frame", Picture(picture)))
                seen += [_placed(item, region, size) for item in found]
            stages.end("look")
            tracks = tracker.step(
                _merged([*seen, *still.carried(tracks)]), round(index / LOOKS_PER_S * 1e6)
            )
            still.note(tracks)
            stages.end("track")
            first = round(index * fps / LOOKS_PER_S) + 1
            run.seen |= dict.fromkeys(range(first, first + round(fps / LOOKS_PER_S) + 1), tracks)
            index += 1
    run.cpu_s["decode"] += _children_s() - before_s
    run.inferences, run.invoke_s = meter.count, meter.cpu_s
    return run


class _Motion:
    """Blurred running average after a contrast stretch."""

    def __init__(self) -> None:
        self._mean: np.ndarray[Any, np.dtype[np.float32]] | None = None
        self._ends: deque[tuple[float, float]] = deque(maxlen=STRETCH_OVER)
        self._count = 0

    def step(self, luma: Image) -> list[Box]:
        height, width = luma.shape
        small = cv2.resize(
            luma, (round(width * ROWS / height), ROWS), interpolation=cv2.INTER_NEAREST
        )
        low, high = np.percentile(small, (4, 96))
        self._ends.append((float(low), float(high)))
        low, high = np.mean(self._ends, axis=0)
        stretched = np.clip((small - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
        smooth = cv2.GaussianBlur(stretched, (3, 3), 1).astype(np.float32)
        if self._mean is None:
            self._mean = smooth.copy()
        change = cv2.absdiff(smooth, self._mean)
        mask = cv2.dilate((change > THRESHOLD).astype(np.uint8), None)  # type: ignore[call-overload]
        share = float(mask.mean())
        self._count = 0 if share > SCENE_FRAC else self._count + 1
        alpha = ALPHA_AT_START if self._count < START_PICTURES else ALPHA
        cv2.accumulateWeighted(smooth, self._mean, alpha)
        if self._count < START_PICTURES:
            return []
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        rects = [cv2.boundingRect(item) for item in contours]
        rows, columns = mask.shape
        return [
            Box(x / columns, y / rows, w / columns, h / rows)
            for x, y, w, h in rects
            if w * h > MIN_CONTOUR_PX
        ]


class _Still:
    """Tracks that have not moved for long are looked at rarely."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[Box, int]] = {}
        self._skipped: set[int] = set()

    def to_look_at(self, tracks: tuple[Track, ...], moving: list[Box], index: int) -> list[Box]:
        """Give the boxes that are worth a region."""
        self._skipped = set()
        for track in tracks:
            _, count = self._places.get(track.track_id, (track.box, 0))
            if count < STILL_PICTURES or index % STILL_PICTURES == 0:
                continue
            if not moving or covered(corners([track.box]), corners(moving))[0] == 0:
                self._skipped.add(track.track_id)
        return [track.box for track in tracks if track.track_id not in self._skipped]

    def carried(self, tracks: tuple[Track, ...]) -> list[Detection]:
        """Give those that nobody looked at as if they had been seen again."""
        return [
            Detection(track.label, max(track.score, MIN_SCORE), track.box)
            for track in tracks
            if track.track_id in self._skipped
        ]

    def note(self, tracks: tuple[Track, ...]) -> None:
        """Count for how long each has not moved."""
        places = {}
        for track in tracks:
            box, count = self._places.get(track.track_id, (track.box, 0))
            is_same = covered(corners([track.box]), corners([box]))[0] >= STILL_IOU
            places[track.track_id] = (box, count + 1) if is_same else (track.box, 0)
        self._places = places


def _regions(tracked: list[Box], moving: list[Box], size: tuple[int, int]) -> list[Box]:
    """Cluster boxes into squares, greedily: one joins a square that it fits into."""
    width, height = size
    outside = [
        box for box in moving if not tracked or covered(corners([box]), corners(tracked))[0] < 1
    ]
    clusters: list[Floats] = []
    for row in corners([*tracked, *outside]) * np.array([width, height] * 2):
        for index, cluster in enumerate(clusters):
            both = np.concatenate(
                [np.minimum(cluster[:2], row[:2]), np.maximum(cluster[2:], row[2:])]
            )
            if (both[2:] - both[:2]).max() * 1.2 <= MIN_REGION_PX:
                clusters[index] = both
                break
        else:
            clusters.append(row)
    return [_square(cluster, size) for cluster in clusters]


def _square(cluster: Floats, size: tuple[int, int]) -> Box:
    """Give a square region in pixels, within the frame, of even place and side."""
    side = min(max(float((cluster[2:] - cluster[:2]).max()) * 1.2, MIN_REGION_PX), *size)
    middle = (cluster[:2] + cluster[2:]) / 2
    place = np.clip(middle - side / 2, 0, np.array(size) - side)
    x, y, even = (int(value) // 2 * 2 for value in (*place, side))
    return Box(x, y, even, even)


def _cut(plane: Image, region: Box, size: tuple[int, int]) -> Image:
    """Give a region of a yuv420p picture as BGR."""
    height = size[1]
    x, y, side = int(region.x), int(region.y), int(region.w)
    luma = plane[y : y + side, x : x + side]
    half = size[0] // 2
    colour = plane[height:].reshape(2, height // 2, half)
    part = colour[:, y // 2 : y // 2 + side // 2, x // 2 : x // 2 + side // 2]
    joined = np.concatenate([luma, part.reshape(-1, side)])
    return cast("Image", cv2.cvtColor(np.ascontiguousarray(joined), cv2.COLOR_YUV2BGR_I420))


def _placed(item: Detection, region: Box, size: tuple[int, int]) -> Detection:
    width, height = size
    box = item.box
    return Detection(
        item.label,
        item.score,
        Box(
            (region.x + box.x * region.w) / width,
            (region.y + box.y * region.h) / height,
            box.w * region.w / width,
            box.h * region.h / height,
        ),
    )


def _merged(seen: list[Detection]) -> tuple[Detection, ...]:
    found: dict[str, list[list[float]]] = {}
    for item in seen:
        box = item.box
        row = [box.x, box.y, box.x + box.w, box.y + box.h, item.score, 0.0]
        found.setdefault(item.label, []).append(row)
    return ssd.detections(
        {
            label: crops.merged([np.array(rows, dtype=np.float64)], ssd.NMS_IOU)
            for label, rows in found.items()
        }
    )


def _child(path: Path, size: tuple[int, int]) -> "subprocess.Popen[bytes]":
    argv = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-an", "-vf"]
    argv += [f"fps={LOOKS_PER_S:g},scale={size[0]}:{size[1]}", "-pix_fmt", "yuv420p"]
    argv += ["-f", "rawvideo", "pipe:1"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


def _read(child: "subprocess.Popen[bytes]", size: tuple[int, int]) -> Image | None:
    width, height = size
    if child.stdout is None:
        raise RuntimeError("no pipe")
    content = child.stdout.read(width * height * 3 // 2)
    if len(content) < width * height * 3 // 2:
        return None
    return np.frombuffer(content, np.uint8).reshape(height * 3 // 2, width)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
