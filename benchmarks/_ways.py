"""Ways to see what a camera shows, each measured alike: CPU by stage, inferences, boxes.

All run in one process and one thread; the clock that the stages are measured by is CPU time.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from agent.app import load_camera
from agent.core.clock import NS_PER_MS, RealClock
from agent.core.model import Box, Track
from agent.vision import crops, detect, offline
from agent.vision.config import CameraConfig, DetectorConfig, MotionConfig, TrackConfig
from agent.vision.decode import Frame
from agent.vision.pipeline import Pipeline
from agent.vision.track import Tracker
from drivers import file

ROOT = Path(__file__).parent.parent
MS = 1000
MIN_SCORE = DetectorConfig().min_score
SHOWN_S = 1.0  # a track that was not detected for longer is not counted as seen
LOOKS_PER_S = 5.0
STAGES = ("decode", "motion", "look", "track")

Image = np.ndarray[Any, np.dtype[np.uint8]]


class CpuClock(RealClock):
    """Monotonic time is the CPU time of the process: what others do does not count."""

    def mono_ns(self) -> int:
        """Give CPU time."""
        return time.process_time_ns()


@dataclass(slots=True)
class Run:
    """What one way has cost and seen."""

    cpu_s: dict[str, float] = field(default_factory=dict)  # by stage
    inferences: int = 0
    invoke_s: float = 0.0  # of the model alone; part of the stage `look`
    seen: dict[int, tuple[Track, ...]] = field(default_factory=dict)  # by picture number, from 1

    @property
    def total_s(self) -> float:
        """All stages."""
        return sum(self.cpu_s.values())

    @property
    def outside_s(self) -> float:
        """All but the model."""
        return self.total_s - self.invoke_s

    def shown(self, label: str) -> dict[int, list[Box]]:
        """Give what was shown of one kind."""
        return {
            number: [
                track.box for track in tracks if track.label == label and track.missing_s <= SHOWN_S
            ]
            for number, tracks in self.seen.items()
        }


class Invokes:
    """An interpreter that says how long and how often it ran."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self.count = 0
        self.cpu_s = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._interpreter, name)

    def invoke(self) -> None:
        """Run the model."""
        begun_s = time.process_time()
        self._interpreter.invoke()
        self.cpu_s += time.process_time() - begun_s
        self.count += 1


def eye(view: str = "whole") -> tuple[detect.Detector, Invokes]:
    """Give the detector that every way uses, and its meter."""
    runtime, module = detect.find_runtime()
    name = detect.NAMED["int8" if runtime == detect.LITERT else "fp16"]
    manifest = detect.read_manifest(detect.MODELS / name)
    interpreter = module.Interpreter(model_path=str(manifest.path), num_threads=1)
    interpreter.allocate_tensors()
    meter = Invokes(interpreter)
    config = replace(DetectorConfig(), view=cast("Any", view))
    return detect.Detector(manifest, meter, config, runtime), meter


class Picture:
    """A BGR array where the detector expects a frame."""

    def __init__(self, picture: Image) -> None:
        self._picture = picture
        self.height_px, self.width_px = picture.shape[:2]

    def rgb(self, width_px: int, height_px: int) -> Image:
        """Give the picture at another size."""
        small = cv2.resize(self._picture, (width_px, height_px))
        return cast("Image", cv2.cvtColor(small, cv2.COLOR_BGR2RGB))


def bare_camera(rate_per_s: float) -> CameraConfig:
    """Give the demo's camera without rules, at a rate."""
    camera = load_camera(ROOT / "configs" / "camera.toml", check_files=False).cameras[0]
    return replace(camera, rules=(), max_rate_per_s=rate_per_s, motion=MotionConfig())


def ours(sub: Path, rate_per_s: float, view: str = "whole") -> Run:
    """Take the sub stream through our own pipeline."""
    clock = CpuClock()
    detector, meter = eye(view)
    pipeline = Pipeline(bare_camera(rate_per_s), detector, MIN_SCORE, clock)
    run = Run()
    last: tuple[Track, ...] = ()
    stepped_s = 0.0
    begun_s = time.process_time()
    for frame in offline.frames(file.build(file.Config(sub), clock)):
        before_s = time.process_time()
        result = pipeline.step(frame)
        stepped_s += time.process_time() - before_s
        last = last if result.view is None else result.tracks
        run.seen[frame.index] = last
    costs = pipeline.costs
    run.cpu_s = {
        "decode": time.process_time() - begun_s - stepped_s,
        "motion": costs.motion_ns / NS_PER_MS / MS,
        "look": costs.detect_ns / NS_PER_MS / MS,
        "track": (costs.flow_ns + costs.track_ns) / NS_PER_MS / MS,
    }
    run.inferences, run.invoke_s = meter.count, meter.cpu_s
    return run


def plain(main: Path, rate_per_s: float, fps: float) -> Run:
    """Read the main stream with OpenCV: MOG2 on every full picture, the whole frame at a rate."""
    run = Run(dict.fromkeys(STAGES, 0.0))
    detector, meter = eye()
    subtract = cv2.createBackgroundSubtractorMOG2()
    tracker = Tracker(TrackConfig(), MIN_SCORE)
    capture = cv2.VideoCapture(str(main))
    stages = Stages(run)
    number, due = 0, 0.0
    while True:
        stages.begin()
        is_read, picture = capture.read()
        stages.end("decode")
        if not is_read:
            break
        number += 1
        subtract.apply(picture)
        stages.end("motion")
        t_s = (number - 1) / fps
        seen = None
        if t_s >= due - 1e-9:
            due += 1 / rate_per_s
            seen = detector.detect(cast("Frame", Picture(cast("Image", picture))))
            stages.end("look")
        run.seen[number] = tracker.step(seen, round(t_s * 1e6))
        stages.end("track")
    capture.release()
    run.inferences, run.invoke_s = meter.count, meter.cpu_s
    return run


class Stages:
    """Adds CPU time to the stages of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last_s = 0.0

    def begin(self) -> None:
        """Start to count."""
        self._last_s = time.process_time()

    def end(self, stage: str) -> None:
        """Count what passed for a stage."""
        now_s = time.process_time()
        self._run.cpu_s[stage] = self._run.cpu_s.get(stage, 0.0) + now_s - self._last_s
        self._last_s = now_s


def reference(main: Path, label: str, every: int) -> dict[int, list[Box]]:
    """Give what the same model sees in the main stream with the whole frame and four tiles.

    Args:
        main: the stream.
        label: of what is looked for.
        every: so many pictures apart.
    """
    detector, _ = eye()
    found = {}
    for frame in offline.frames(file.build(file.Config(main), RealClock())):
        if frame.index % every == 1 % every:
            seen = detector.detect(frame, (crops.WHOLE, *crops.TILES))
            found[frame.index] = [
                item.box for item in seen if item.label == label and item.score >= MIN_SCORE
            ]
    return found
