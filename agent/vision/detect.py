"""The detector: a TFLite model that passes its manifest, on the runtime that is there.

LiteRT (`ai_edge_litert`) is tried first, then `tflite_runtime`, which breaks beside numpy 2. With
`auto` the int8 model is taken on LiteRT and the fp16 one on tflite_runtime, where int8 has no fast
path. Only the chosen model is timed, since two loaded models would double the memory; when its best
of a few runs is above `slow_ms`, the other is loaded in its place and the faster one is kept.
"""

import contextlib
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import ModelRejected
from agent.core.model import Box, Detection
from agent.vision import crops, ssd
from agent.vision.boxes import Floats
from agent.vision.config import DetectorConfig
from agent.vision.decode import Frame

MODELS: Final = Path(__file__).parent / "models"
NAMED: Final = {
    "int8": "ssd_mobilenetv2_oidv4_int8.json",
    "fp16": "ssd_mobilenetv2_oidv4_fp16.json",
}
LITERT: Final = "ai_edge_litert"
TFLITE: Final = "tflite_runtime"

_CURE: Final = "install ai-edge-litert (`./run setup` does), or on Python 3.11 the extra [tflite]"
_RUNS: Final = 4  # of the self-benchmark, after one that warms up
_ID_DIGITS: Final = 12

Import = Callable[[str], ModuleType]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a model file; its hash is checked at every load."""

    model: str
    path: Path
    sha256: str
    input_shape: tuple[int, ...]
    scale: float
    offset: float
    boxes_shape: tuple[int, ...]
    classes_shape: tuple[int, ...]
    labels: tuple[str, ...]
    label_map: Mapping[str, str]

    @property
    def model_id(self) -> str:
        """What stands in every event: name and the hash's first digits."""
        return f"{self.model}@{self.sha256[:_ID_DIGITS]}"


class Detector:
    """Finds objects in frames; for one thread. Made by `load`."""

    def __init__(
        self, manifest: Manifest, interpreter: Any, config: DetectorConfig, runtime: str
    ) -> None:
        self._manifest = manifest
        self._interpreter = interpreter
        self._areas = crops.TILES if config.view == "tiles" else (crops.WHOLE,)
        self.is_cropping = config.view == "crops"
        self._low_score = config.low_score
        self._columns = ssd.columns(manifest.labels, manifest.label_map)
        self._input = np.zeros(manifest.input_shape, dtype=np.float32)
        self._input_index, self._boxes_index, self._classes_index = _indexes(interpreter, manifest)
        self.runtime = runtime
        self.best_ms = 0.0  # of the self-benchmark

    @property
    def model_id(self) -> str:
        """Name of the model and the first digits of its hash."""
        return self._manifest.model_id

    def detect(self, frame: Frame, areas: Sequence[Box] = ()) -> tuple[Detection, ...]:
        """Give what is seen from `low_score` on, best first; boxes in fractions of the frame.

        Args:
            frame: the picture.
            areas: where to look, one run of the model each; none: as the view says.
        """
        found: dict[str, list[Floats]] = {}
        for area in areas or self._areas:
            for label, rows in self._look(self._pixels(frame, area)).items():
                found.setdefault(label, []).append(crops.placed(rows, area))
        seen = ssd.detections(
            {label: crops.merged(pieces, ssd.NMS_IOU) for label, pieces in found.items()}
        )
        return tuple(item for item in seen if item.score >= self._low_score)

    def time_ms(self, clock: Clock) -> float:
        """Run a few times and give the best, in milliseconds."""
        self._interpreter.invoke()
        best_ns = min(self._timed_ns(clock) for _ in range(_RUNS))
        self.best_ms = round(best_ns / NS_PER_MS, 2)
        return self.best_ms

    def _timed_ns(self, clock: Clock) -> int:
        begun_ns = clock.mono_ns()
        self._interpreter.invoke()
        return clock.mono_ns() - begun_ns

    def _look(self, rgb: NDArray[np.uint8]) -> dict[str, Floats]:
        np.multiply(rgb, np.float32(self._manifest.scale), out=self._input[0])
        self._input += np.float32(self._manifest.offset)
        self._interpreter.set_tensor(self._input_index, self._input)
        self._interpreter.invoke()
        encodings = self._interpreter.get_tensor(self._boxes_index)[0]
        logits = self._interpreter.get_tensor(self._classes_index)[0]
        return ssd.candidates(encodings, logits, self._columns, self._low_score)

    def _pixels(self, frame: Frame, area: Box) -> NDArray[np.uint8]:
        """Give an area as the model wants it; the scaler keeps the whole picture for the next."""
        _, height, width, _ = self._manifest.input_shape
        if area == crops.WHOLE:
            return frame.rgb(width, height)
        picture = frame.rgb(frame.width_px, frame.height_px)
        left, top = round(area.x * frame.width_px), round(area.y * frame.height_px)
        right = round((area.x + area.w) * frame.width_px)
        bottom = round((area.y + area.h) * frame.height_px)
        part = picture[top:bottom, left:right]
        way = cv2.INTER_AREA if part.shape[0] > height else cv2.INTER_LINEAR
        return cv2.resize(part, (width, height), interpolation=way).astype(np.uint8, copy=False)


def load(config: DetectorConfig, clock: Clock, models: Path = MODELS) -> Detector:
    """Load the detector that the configuration asks for, and time it.

    Raises:
        ModelRejected: no runtime, a manifest or model that is not what it should be, or a model
            that the runtime turns down; the message names file, found and wanted.
    """
    runtime, module = find_runtime()
    if config.model != "auto":
        detector = _load_one(_manifest_path(config.model, models), config, runtime, module)
        detector.time_ms(clock)
        return detector
    first, second = ("int8", "fp16") if runtime == LITERT else ("fp16", "int8")
    detector = _load_one(models / NAMED[first], config, runtime, module)
    if detector.time_ms(clock) <= config.slow_ms:
        return detector
    with contextlib.suppress(ModelRejected):  # then the slow one has to do
        other = _load_one(models / NAMED[second], config, runtime, module)
        if other.time_ms(clock) < detector.best_ms:
            return other
    return detector


def find_runtime(
    load_module: Import = importlib.import_module, numpy_version: str = np.__version__
) -> tuple[str, ModuleType]:
    """Give the name and the interpreter module of the TFLite runtime to use.

    Raises:
        ModelRejected: none is installed, or one that cannot work beside this numpy.
    """
    with contextlib.suppress(ImportError):
        return LITERT, load_module(f"{LITERT}.interpreter")
    if int(numpy_version.split(".", maxsplit=1)[0]) < 2:  # noqa: PLR2004 - the major version it breaks on
        with contextlib.suppress(ImportError):
            return TFLITE, load_module(f"{TFLITE}.interpreter")
        raise ModelRejected(f"no TFLite runtime is installed; {_CURE}")
    raise ModelRejected(
        f"{LITERT} is not installed and {TFLITE} does not work with numpy {numpy_version}; {_CURE}"
    )


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a detector.

    Raises:
        ModelRejected: it cannot be read or lacks something.
    """
    try:
        said = json.loads(path.read_bytes())
        manifest = Manifest(
            model=str(said["id"]),
            path=path.parent / Path(said["file"]).name,
            sha256=str(said["sha256"]),
            input_shape=tuple(said["input"]["shape"]),
            scale=float(said["input"]["scale"]),
            offset=float(said["input"]["offset"]),
            boxes_shape=tuple(said["outputs"]["boxes"]),
            classes_shape=tuple(said["outputs"]["classes"]),
            labels=tuple(said["labels"]),
            label_map=dict(said["label_map"]),
        )
        _check_shapes(manifest)
    except OSError as error:
        raise ModelRejected(f"manifest {path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelRejected(
            f"manifest {path}: {error!r}; wanted: id, file, sha256, input, outputs, labels,"
            " label_map"
        ) from error
    return manifest


def _check_shapes(manifest: Manifest) -> None:
    classes, boxes = len(manifest.labels), (1, ssd.ANCHORS, 4)
    if manifest.classes_shape != (1, ssd.ANCHORS, classes):
        raise ValueError(f"{classes} labels, classes of shape {manifest.classes_shape}")
    if manifest.boxes_shape != boxes or len(manifest.input_shape) != len(boxes) + 1:
        raise ValueError(f"boxes of shape {manifest.boxes_shape}, only {boxes} is understood")
    if unknown := set(manifest.label_map) - set(manifest.labels):
        raise ValueError(f"label_map has {sorted(unknown)}, which are no labels")


def _manifest_path(model: str, models: Path) -> Path:
    return models / NAMED[model] if model in NAMED else Path(model)


def _load_one(path: Path, config: DetectorConfig, runtime: str, module: ModuleType) -> Detector:
    manifest = read_manifest(path)
    content = _checked(manifest)
    try:
        interpreter = module.Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, SystemError) as error:
        raise ModelRejected(
            f"{runtime} turns {manifest.path} down: {str(error)[:200]}; wanted: a TFLite model"
        ) from error
    return Detector(manifest, interpreter, config, runtime)


def _checked(manifest: Manifest) -> bytes:
    try:
        content = manifest.path.read_bytes()
    except OSError as error:
        raise ModelRejected(f"model {manifest.path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.sha256:
        raise ModelRejected(
            f"model {manifest.path} ({len(content)} bytes) has sha256 {found};"
            f" wanted by its manifest: {manifest.sha256}"
        )
    return content


def _indexes(interpreter: Any, manifest: Manifest) -> tuple[int, int, int]:
    """Find input and outputs by shape: their order differs from one conversion to the next."""
    outputs = interpreter.get_output_details()
    return (
        _with_shape(interpreter.get_input_details(), manifest.input_shape, manifest, "input"),
        _with_shape(outputs, manifest.boxes_shape, manifest, "boxes"),
        _with_shape(outputs, manifest.classes_shape, manifest, "classes"),
    )


def _with_shape(details: Any, shape: tuple[int, ...], manifest: Manifest, what: str) -> int:
    for detail in details:
        if tuple(detail["shape"]) == shape and detail["dtype"] is np.float32:
            return int(detail["index"])
    found = [(*(int(side) for side in detail["shape"]),) for detail in details]
    raise ModelRejected(
        f"model {manifest.path}: {what} of shape {found}; wanted by its manifest: {shape} float32"
    )
