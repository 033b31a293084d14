"""CPU of seeing, a second of 1080p10 video: our sub-stream path beside the plain OpenCV way.

The plain way opens the main stream with cv2.VideoCapture, runs MOG2 on the full picture and the
same detector on the whole picture at the same rate. Ours decodes the sub stream, compares a small
plane, and asks the detector through the gate. One thread each, alternating rounds, the better of
each; recall is of the plain way's detections at 0.4 that a track of ours covers (IoU 0.3): the
same model judges itself, so it says whether cheaper is blinder, not how well either sees.
"""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from agent.app import load_config
from agent.core.clock import RealClock
from agent.core.model import Box
from agent.vision import detect, offline
from agent.vision.boxes import iou
from agent.vision.config import DetectorConfig
from agent.vision.decode import Frame
from agent.vision.pipeline import Pipeline
from benchmarks._table import markdown
from drivers import file
from firmware_sim import streams

ROOT = Path(__file__).parent.parent
PLAZA = ROOT / "firmware_sim" / "media" / "plaza.mp4"
RATE_PER_S = 2.5
FPS = 10
ROUNDS = 2
MS = 1000
SAME_OBJECT_IOU = 0.3
MIN_SCORE = 0.4


@dataclass(slots=True)
class Run:
    """Seconds of CPU by stage, and what was seen when."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    inferences: int = 0
    seen: dict[int, list[Box]] = field(default_factory=dict)  # picture number, from 1

    @property
    def total_s(self) -> float:
        """All stages."""
        return sum(self.cpu_s.values())


def table() -> str:
    """Measure, and give the table."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        main, sub = Path(folder) / "main.mp4", Path(folder) / "sub.mp4"
        streams.make(PLAZA, main, 1920, 3000)
        streams.make(PLAZA, sub, 480, 400)
        runs: dict[str, list[Run]] = {"plain": [], "ours": []}
        for _ in range(ROUNDS):
            runs["plain"].append(_plain(main))
            runs["ours"].append(_ours(sub))
    plain, ours = (min(found, key=lambda run: run.total_s) for found in runs.values())
    video_s = 400 / FPS
    stages = ("decode", "motion", "detect", "track")
    rows = [
        (
            name,
            *(f"{run.cpu_s.get(stage, 0) / video_s * MS:.1f}" for stage in stages),
            f"{run.total_s / video_s * MS:.1f}",
            f"{run.total_s / plain.total_s:.2f}x",
            f"{run.inferences / video_s:.1f}",
            f"{recall:.2f}",
        )
        for name, run, recall in (
            ("plain OpenCV, main stream", plain, 1.0),
            ("Outpost, sub stream", ours, _recall(plain, ours)),
        )
    ]
    head = ["way", *(f"{stage} ms/s" for stage in stages), "total ms/s", "ratio"]
    return markdown([*head, "inferences/s", "of the plain way's boxes"], rows)


def _plain(path: Path) -> Run:
    run = Run(dict.fromkeys(("decode", "motion", "detect"), 0.0))
    eye = detect.load(DetectorConfig(), RealClock())
    subtract = cv2.createBackgroundSubtractorMOG2()
    capture = cv2.VideoCapture(str(path))
    number = 0
    while True:
        begun_s = time.process_time()
        is_read, picture = capture.read()
        decoded_s = time.process_time()
        if not is_read:
            break
        number += 1
        subtract.apply(picture)
        moved_s = time.process_time()
        run.cpu_s["decode"] += decoded_s - begun_s
        run.cpu_s["motion"] += moved_s - decoded_s
        if number % round(FPS / RATE_PER_S) == 1:
            found = eye.detect(cast("Frame", _Picture(picture)))
            run.seen[number] = [item.box for item in found if item.score >= MIN_SCORE]
            run.cpu_s["detect"] += time.process_time() - moved_s
            run.inferences += 1
    capture.release()
    return run


class _Picture:
    """A BGR array where the detector expects a frame."""

    def __init__(self, picture: "np.ndarray[Any, Any]") -> None:
        self._picture = picture
        self.height_px, self.width_px = picture.shape[:2]

    def rgb(self, width_px: int, height_px: int) -> "np.ndarray[Any, Any]":
        """Give the picture at another size."""
        small = cv2.resize(self._picture, (width_px, height_px))
        return cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


def _ours(path: Path) -> Run:
    clock = RealClock()
    camera = load_config(ROOT / "configs" / "camera.toml", check_files=False).cameras[0]
    eye = detect.load(DetectorConfig(), clock)
    pipeline = Pipeline(camera, eye, DetectorConfig().min_score, clock)
    run = Run()
    begun_s = time.process_time()
    stepped_s = 0.0
    for frame in offline.frames(file.build(file.Config(path), clock)):
        before_s = time.process_time()
        result = pipeline.step(frame)
        stepped_s += time.process_time() - before_s
        if result.detections is not None:
            run.seen[frame.index] = [track.box for track in result.tracks]
    run.cpu_s = {name: ms / MS for name, ms in pipeline.costs.as_ms().items()}
    run.cpu_s["decode"] = time.process_time() - begun_s - stepped_s
    run.inferences = pipeline.inferences
    return run


def _recall(reference: Run, run: Run) -> float:
    wanted = found = 0
    for number, boxes in reference.seen.items():
        nearest = min(run.seen, key=lambda other: abs(other - number))
        wanted += len(boxes)
        if boxes and (mine := run.seen[nearest]):
            overlap = iou(_corners(boxes), _corners(mine))
            found += int((overlap.max(axis=1) >= SAME_OBJECT_IOU).sum())
    return found / max(1, wanted)


def _corners(boxes: list[Box]) -> "np.ndarray[Any, Any]":
    return np.array([(box.x, box.y, box.x + box.w, box.y + box.h) for box in boxes], np.float32)
