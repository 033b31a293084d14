"""How well we see: persons, crops, those who stand still, and what the motion gate notices.

Persons by the annotation of 13 pictures of the plaza (129 boxes: about +-0.05); everything else
beside what the same detector sees on every picture. What may not be committed is left out, and
said so, where ../shared is absent.
"""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import cv2

from agent.core.clock import RealClock
from agent.core.model import Box, Detection, Track
from agent.vision import crops, detect, offline
from agent.vision.config import DetectorConfig
from agent.vision.decode import Frame
from agent.vision.pipeline import Pipeline
from benchmarks import _footage
from benchmarks._gate import gates
from benchmarks._sight import average_precision, pairs, recall_and_precision
from benchmarks._table import markdown
from benchmarks._ways import MIN_SCORE, bare_camera
from drivers import file

HEAD = ("what", "measured", "bound")
VIEWS: Final[tuple[tuple[Literal["whole", "crops"], str, tuple[str, str, str]], ...]] = (
    ("whole", "whole frame", (">= 0.65", ">= 0.70", "1")),
    ("crops", "two square crops at most", (">= 0.78", "", "<= 2")),
)
AP_IOU = 0.5
EVERY_CAR_IOU = 0.3
STANDING_PICTURES = 700
SHOWN_S = 0.45  # a track that nobody saw for longer is not shown as there


def table() -> str:
    """Measure, and give the tables."""
    cv2.setNumThreads(1)
    parts: list[str] = []
    rows: list[tuple[str, str, str]] = []
    for path, measure in (
        (_footage.ANNOTATED, _persons),
        (_footage.LAB / "car-detection.mp4", _ghosts),
        (_footage.LAB / "one-by-one-person-detection.mp4", _standing),
    ):
        if path.exists():
            rows += measure(path)
        else:
            parts.append(f"Left out: {path.name} may not be committed and ../shared is absent.")
    with tempfile.TemporaryDirectory() as folder:
        gate = gates(Path(folder))
    return "\n\n".join([markdown(HEAD, rows), *parts, gate])


def _pictures(path: Path) -> Iterator[Frame]:
    return offline.frames(file.build(file.Config(path), RealClock()))


class _Eye:
    """The detector, which keeps what it said and counts how often it ran."""

    def __init__(self, view: Literal["whole", "crops"]) -> None:
        config = DetectorConfig(model="int8", view=view, low_score=0.1)
        self._eye = detect.load(config, RealClock())
        self.model_id = self._eye.model_id
        self.is_cropping = self._eye.is_cropping
        self.seen: dict[int, tuple[Detection, ...]] = {}
        self.looks: list[int] = []

    def detect(self, frame: Frame, areas: Sequence[Box] = ()) -> tuple[Detection, ...]:
        """Give what is seen, as the pipeline wants it."""
        self.looks.append(max(1, len(areas)))
        self.seen[frame.index] = self._eye.detect(frame, areas)
        low = DetectorConfig().low_score
        return tuple(item for item in self.seen[frame.index] if item.score >= low)


def _persons(annotated: Path) -> list[tuple[str, str, str]]:
    """Average precision and recall with the whole frame and with crops."""
    truth = _footage.true_people(annotated, _footage.Footage(_footage.PLAZA, 1.0).size)
    rows = []
    for view, name, bounds in VIEWS:
        eye = _Eye(view)
        pipeline = Pipeline(bare_camera(10.0), eye, MIN_SCORE, RealClock())
        for frame in itertools.islice(_pictures(_footage.PLAZA), max(truth)):
            motion = pipeline.watch(frame)
            if motion is not None:
                pipeline.judge(frame, motion)
        found = {
            number: [(one.score, one.box) for one in eye.seen[number] if one.label == "person"]
            for number in truth
        }
        strong = {
            number: [box for score, box in boxes if score >= MIN_SCORE]
            for number, boxes in found.items()
        }
        precision = average_precision(truth, found, AP_IOU)
        recall, _ = recall_and_precision(truth, strong, AP_IOU)
        looks = sum(eye.looks) / len(eye.looks)
        rows += [
            (f"persons, {name}: AP50", f"{precision:.3f}", bounds[0]),
            (f"persons, {name}: recall at {MIN_SCORE}", f"{recall:.2f}", bounds[1]),
            (f"persons, {name}: inferences a picture", f"{looks:.2f}", bounds[2]),
        ]
    return rows


def _ghosts(path: Path) -> list[tuple[str, str, str]]:
    """Cars that a pipeline with crops shows, and how many of them are there."""
    pipeline = Pipeline(bare_camera(2.5), _Eye("crops"), MIN_SCORE, RealClock())
    judge = _Eye("whole")
    shown = right = 0
    for frame in _pictures(path):
        motion = pipeline.watch(frame)
        if motion is None:
            continue
        tracks = pipeline.judge(frame, motion).tracks
        boxes = [one.box for one in tracks if one.label == "vehicle" and one.missing_s <= SHOWN_S]
        if boxes:
            there = _strong(judge.detect(frame, (crops.WHOLE, *crops.TILES)), "vehicle")
            right += sum(bool(pairs([box], there, EVERY_CAR_IOU)) for box in boxes)
            shown += len(boxes)
    measured = f"{right / max(1, shown):.2f} of {shown}"
    return [("cars with crops: precision, beside whole frame and tiles", measured, ">= 0.8")]


def _standing(path: Path) -> list[tuple[str, str, str]]:
    """Persons that a look at every other picture finds and that tracks behind the gate hold."""
    pipeline = Pipeline(bare_camera(2.5), _Eye("whole"), MIN_SCORE, RealClock())
    judge = _Eye("whole")
    hits = kept = 0
    tracks: tuple[Track, ...] = ()
    for frame in itertools.islice(_pictures(path), STANDING_PICTURES):
        motion = pipeline.watch(frame)
        if motion is not None:
            tracks = pipeline.judge(frame, motion).tracks
        if frame.index % 2:
            held = [track.box for track in tracks]
            there = _strong(judge.detect(frame), "person")
            hits += len(there)
            kept += sum(bool(pairs([box], held, AP_IOU)) for box in there)
    used, without = pipeline.inferences, len(judge.looks)
    return [
        ("who stands: kept behind the gate", f"{kept / hits:.3f} of {hits}", ">= 0.95"),
        ("who stands: inferences, beside a look at every other picture", f"{used}, {without}", ""),
    ]


def _strong(seen: Sequence[Detection], label: str) -> list[Box]:
    return [item.box for item in seen if item.label == label and item.score >= MIN_SCORE]
