"""The detector on real footage with known truth, and every way in which a model is refused."""

import itertools
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import RealClock
from agent.core.errors import ModelRejected
from agent.vision import boxes, detect, ssd
from agent.vision.config import DetectorConfig
from tests.vision.support import (
    BIKES,
    PLAZA,
    SHARED,
    average_precision,
    frames,
    overlap,
    ranked_hits,
    true_people,
)

TRUTH = SHARED / "data" / "plaza_people.csv"
INT8 = detect.MODELS / "ssd_mobilenetv2_oidv4_int8.json"
FIRST, SECOND = ("int8", "fp16") if detect.find_runtime()[0] == detect.LITERT else ("fp16", "int8")
IDS = {
    "int8": "ssd_mobilenetv2_oidv4_int8@0830e93f343b",
    "fp16": "ssd_mobilenetv2_oidv4_fp16@d0a5255bf8c4",
}
LABELS = {"person", "vehicle", "bicycle"}


@pytest.fixture(scope="module")
def detector():
    return detect.load(DetectorConfig(model=FIRST, low_score=0.1), RealClock())


@pytest.fixture(scope="module")
def people(detector):
    """Persons found in the 13 annotated frames, by frame."""
    truth = _truth()
    return {
        frame.index: [
            (item.score, item.box) for item in detector.detect(frame) if item.label == "person"
        ]
        for frame in itertools.islice(frames(PLAZA), max(truth))
        if frame.index in truth
    }


def _truth():
    if not TRUTH.exists():
        pytest.skip("the annotation may not be committed and ../shared is absent")
    return {frame: list(found.values()) for frame, found in true_people(TRUTH, 768, 576).items()}


@pytest.mark.video
def test_persons_of_the_plaza_are_found_as_well_as_measured(people):
    truth = _truth()
    assert len(truth) == 13
    assert average_precision(people, truth, 0.5) >= 0.65
    assert average_precision(people, truth, 0.3) >= 0.82


@pytest.mark.video
def test_recall_and_precision_at_the_default_score(people):
    truth = _truth()
    at_default = {
        frame: [item for item in found if item[0] >= 0.4] for frame, found in people.items()
    }
    hits = ranked_hits(at_default, truth, 0.5)
    assert sum(hits) / sum(len(found) for found in truth.values()) >= 0.70
    assert sum(hits) / len(hits) >= 0.70


@pytest.mark.video
def test_the_score_of_the_score(people):
    """The measure itself: truth against itself is 1, shifted truth is 0."""
    truth = _truth()
    same = {frame: [(0.9, box) for box in found] for frame, found in truth.items()}
    away = {
        frame: [(0.9, box._replace(x=box.x + 0.5)) for box in found]
        for frame, found in truth.items()
    }
    assert average_precision(same, truth, 0.5) == pytest.approx(1.0)
    assert average_precision(away, truth, 0.5) < 0.1
    assert average_precision(people, truth, 0.99) < 0.1


@pytest.mark.video
def test_several_persons_on_the_plaza(detector):
    frame = next(itertools.islice(frames(PLAZA), 29, None))
    found = [item for item in detector.detect(frame) if item.score >= 0.4]
    assert frame.index == 30
    assert sum(item.label == "person" for item in found) >= 3
    assert {item.label for item in found} <= LABELS
    for item in found:
        assert 0 <= item.box.x <= item.box.x + item.box.w <= 1.0001
        assert 0 <= item.box.y <= item.box.y + item.box.h <= 1.0001


@pytest.mark.video
def test_bicycles_persons_and_cars_of_a_moving_camera(detector):
    seen = dict.fromkeys(LABELS, 0)
    for frame in itertools.islice(frames(BIKES), 4, None, 5):
        for label in {item.label for item in detector.detect(frame) if item.score >= 0.4}:
            seen[label] += 1
    assert seen["bicycle"] >= 8
    assert seen["person"] >= 8
    assert seen["vehicle"] >= 20


@pytest.mark.video
def test_detections_come_best_first_and_the_same_again(detector):
    frame = next(frames(PLAZA))
    first = detector.detect(frame)
    assert first == detector.detect(frame)
    scores = [item.score for item in first]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0.1


@pytest.mark.video
def test_tiles_find_more_and_at_the_same_places(detector):
    truth = _truth()
    tiles = detect.load(DetectorConfig(model=FIRST, view="tiles", low_score=0.1), RealClock())
    found = {}
    for frame in itertools.islice(frames(PLAZA), max(truth)):
        if frame.index in truth:
            found[frame.index] = [
                (item.score, item.box) for item in tiles.detect(frame) if item.label == "person"
            ]
    assert average_precision(found, truth, 0.5) >= 0.74


@pytest.mark.video
def test_fp16_sees_what_int8_sees(detector):
    other = detect.load(DetectorConfig(model=SECOND, low_score=0.1), RealClock())
    frame = next(itertools.islice(frames(PLAZA), 29, None))
    strong = [item for item in detector.detect(frame) if item.score >= 0.5]
    assert strong
    for item in strong:
        near = [other_item for other_item in other.detect(frame) if other_item.label == item.label]
        assert max(overlap(item.box, one.box) for one in near) > 0.6


def test_the_id_names_model_and_hash(detector):
    assert detector.model_id == IDS[FIRST]
    assert detector.best_ms > 0


def test_auto_falls_to_the_other_model_only_when_the_first_is_slow():
    class Watch(RealClock):
        """Counts the runs of the benchmark: one costs 10 ms, from the fifth on 1 ms."""

        def __init__(self) -> None:
            self.calls = 0

        def mono_ns(self) -> int:
            self.calls += 1
            run = self.calls // 2
            return run * 10_000_000 if self.calls <= 9 else 90_000_000 + run * 1_000_000

    quick = detect.load(DetectorConfig(slow_ms=50.0), Watch())
    assert quick.model_id == IDS[FIRST]
    assert quick.best_ms == 10.0
    slow = detect.load(DetectorConfig(slow_ms=5.0), Watch())
    assert slow.model_id == IDS[SECOND]
    assert slow.best_ms == 1.0


def test_auto_keeps_a_slow_model_when_the_other_is_no_faster():
    class Watch(RealClock):
        def __init__(self) -> None:
            self.calls = 0

        def mono_ns(self) -> int:
            self.calls += 1
            return (self.calls // 2) * 10_000_000

    kept = detect.load(DetectorConfig(slow_ms=5.0), Watch())
    assert kept.model_id == IDS[FIRST]


def copy_model(folder: Path, **changes) -> Path:
    """A manifest of its own beside a copy of the model."""
    said = json.loads(INT8.read_text())
    said.update(changes)
    shutil.copy(INT8.with_suffix(".tflite"), folder)
    manifest = folder / "model.json"
    manifest.write_text(json.dumps(said))
    return manifest


def refused(manifest: Path) -> str:
    with pytest.raises(ModelRejected) as caught:
        detect.load(DetectorConfig(model=str(manifest)), RealClock())
    return str(caught.value)


def test_a_model_given_by_its_manifest_is_loaded(tmp_path):
    manifest = copy_model(tmp_path, id="mine")
    loaded = detect.load(DetectorConfig(model=str(manifest)), RealClock())
    assert loaded.model_id == "mine@0830e93f343b"


def test_a_model_cut_short_is_refused(tmp_path):
    manifest = copy_model(tmp_path)
    model = tmp_path / "ssd_mobilenetv2_oidv4_int8.tflite"
    model.write_bytes(model.read_bytes()[:1_000_000])
    said = refused(manifest)
    assert str(model) in said
    assert "1000000 bytes" in said
    assert "0830e93f343b2d9ff27d39f5fb5cb6845b2a42b51b4e1181fde7451041b6b3f5" in said


def test_a_model_with_one_other_bit_is_refused(tmp_path):
    manifest = copy_model(tmp_path)
    model = tmp_path / "ssd_mobilenetv2_oidv4_int8.tflite"
    content = bytearray(model.read_bytes())
    content[4_000_000] ^= 1
    model.write_bytes(content)
    assert "wanted by its manifest: 0830e93f" in refused(manifest)


def test_what_is_no_model_is_refused_even_with_the_right_hash(tmp_path):
    import hashlib

    content = b"this is no model" * 100
    manifest = copy_model(tmp_path, sha256=hashlib.sha256(content).hexdigest())
    (tmp_path / "ssd_mobilenetv2_oidv4_int8.tflite").write_bytes(content)
    assert "wanted: a TFLite model" in refused(manifest)


def test_a_model_of_another_shape_is_refused(tmp_path):
    manifest = copy_model(tmp_path, input={"shape": [1, 192, 192, 3], "scale": 1.0, "offset": 0.0})
    said = refused(manifest)
    assert "input of shape [(1, 300, 300, 3)]" in said
    assert "(1, 192, 192, 3) float32" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["Person"]}, "1 labels, classes of shape (1, 1917, 24)"),
        ({"label_map": {"Elephant": "vehicle"}}, "Elephant"),
        ({"outputs": {"boxes": [1, 10, 4], "classes": [1, 1917, 24]}}, "(1, 10, 4)"),
        ({"input": {"shape": [300, 300], "scale": 1, "offset": 0}}, "wanted: id, file"),
        ({"input": "rgb"}, "wanted: id, file"),
        ({"file": "elsewhere.tflite"}, "elsewhere.tflite cannot be read: No such file"),
        ({"file": "../../../../etc/hostname"}, "hostname cannot be read"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path, changes, said):
    assert said in refused(copy_model(tmp_path, **changes))


def test_a_manifest_without_labels_is_refused(tmp_path):
    manifest = copy_model(tmp_path)
    content = json.loads(manifest.read_text())
    del content["labels"]
    manifest.write_text(json.dumps(content))
    assert "KeyError('labels')" in refused(manifest)


def test_a_missing_or_broken_manifest_is_refused(tmp_path):
    assert "cannot be read: No such file" in refused(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert str(broken) in refused(broken)


def test_every_shipped_model_is_what_its_manifest_says():
    manifests = sorted(detect.MODELS.glob("*.json"))
    models = sorted(path.stem for path in detect.MODELS.glob("*.tflite"))
    assert [path.stem for path in manifests] == models
    import hashlib

    for path in manifests:
        said = json.loads(path.read_text())
        content = (path.parent / said["file"]).read_bytes()
        assert said["size_bytes"] == len(content)
        assert said["sha256"] == hashlib.sha256(content).hexdigest()
        assert said["licence"] == "Apache-2.0"
        assert said["origin"]
        assert said["measured"]


def importer(**modules):
    def load_module(name: str) -> types.ModuleType:
        if name.split(".", maxsplit=1)[0] not in modules:
            raise ImportError(name)
        return modules[name.split(".", maxsplit=1)[0]]

    return load_module


def test_the_runtime_is_chosen_in_order():
    litert, tflite = types.ModuleType("a"), types.ModuleType("b")
    both = importer(ai_edge_litert=litert, tflite_runtime=tflite)
    assert detect.find_runtime(both, "2.4.6") == ("ai_edge_litert", litert)
    only = importer(tflite_runtime=tflite)
    assert detect.find_runtime(only, "1.26.4") == ("tflite_runtime", tflite)


def test_tflite_runtime_beside_numpy_2_is_refused_with_its_cure():
    only = importer(tflite_runtime=types.ModuleType("b"))
    with pytest.raises(ModelRejected, match=r"does not work with numpy 2\.4\.6.*ai-edge-litert"):
        detect.find_runtime(only, "2.4.6")


def test_no_runtime_at_all_is_refused_with_its_cure():
    with pytest.raises(ModelRejected, match=r"no TFLite runtime is installed.*ai-edge-litert"):
        detect.find_runtime(importer(), "1.26.4")


def test_anchors_are_those_of_the_model():
    anchors = ssd.anchors()
    assert anchors.shape == (ssd.ANCHORS, 4)
    assert np.allclose(anchors[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1])
    assert np.allclose(anchors[1, 2:], [0.2 / 2**0.5, 0.2 * 2**0.5])
    assert np.allclose(anchors[-1], [0.5, 0.5, (0.95 * 1.0) ** 0.5, (0.95 * 1.0) ** 0.5])
    assert anchors[:, :2].min() > 0
    assert anchors[:, :2].max() < 1


def test_an_encoding_of_zero_is_the_anchor_itself():
    encodings = np.zeros((ssd.ANCHORS, 4), np.float32)
    logits = np.full((ssd.ANCHORS, 24), -10, np.float32)
    row = 3 * (19 * 9 + 9)  # in the middle of the finest map: nothing is cut at the edge
    logits[row, 4] = 2.0
    found = ssd.detections(ssd.candidates(encodings, logits, {"person": [4]}, 0.3))
    assert len(found) == 1
    y, x, h, w = ssd.anchors()[row]
    box = found[0].box
    assert (box.x + box.w / 2, box.y + box.h / 2) == pytest.approx((x, y), abs=1e-4)
    assert (box.w, box.h) == pytest.approx((w, h), abs=1e-4)
    assert found[0].score == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-4)


def test_merged_labels_give_one_box():
    encodings = np.zeros((ssd.ANCHORS, 4), np.float32)
    logits = np.full((ssd.ANCHORS, 24), -10, np.float32)
    logits[1800, [18, 23]] = [1.0, 2.0]
    columns = ssd.columns(
        json.loads(INT8.read_text())["labels"], json.loads(INT8.read_text())["label_map"]
    )
    assert columns == {"person": [4], "bicycle": [1], "vehicle": [18, 23]}
    found = ssd.detections(ssd.candidates(encodings, logits, columns, 0.3))
    assert [item.label for item in found] == ["vehicle"]
    assert found[0].score == pytest.approx(0.8808, abs=1e-4)


def test_a_wild_encoding_stays_a_box_in_the_frame():
    encodings = np.full((ssd.ANCHORS, 4), 1e4, np.float32)
    logits = np.full((ssd.ANCHORS, 24), 5, np.float32)
    for item in ssd.detections(ssd.candidates(encodings, logits, {"person": [4]}, 0.3)):
        assert all(0 <= value <= 1 for value in item.box)


corner = st.floats(0, 1)
box_rows = st.lists(
    st.tuples(corner, corner, st.floats(0.01, 1), st.floats(0.01, 1)).map(
        lambda row: (row[0], row[1], row[0] + row[2], row[1] + row[3])
    ),
    min_size=1,
    max_size=12,
)


@given(first=box_rows, second=box_rows)
@settings(max_examples=60, deadline=None)
def test_overlap_is_that_of_the_textbook(first, second):
    found = boxes.iou(np.array(first), np.array(second))
    for row, a in enumerate(first):
        for column, b in enumerate(second):
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
            assert found[row, column] == pytest.approx(w * h / union, abs=1e-9)


@given(rows=box_rows, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_suppression_keeps_the_best_of_every_heap(rows, seed):
    table = np.array(rows)
    scores = np.random.default_rng(seed).random(len(rows))
    kept = boxes.suppress(table, scores, 0.5)
    overlaps = boxes.iou(table, table)
    assert kept[0] == int(np.argmax(scores))
    for one, other in itertools.combinations(kept.tolist(), 2):
        assert overlaps[one, other] <= 0.5
    for row in set(range(len(rows))) - set(kept.tolist()):
        assert any(overlaps[row, keeper] > 0.5 and scores[keeper] >= scores[row] for keeper in kept)


def test_growing_keeps_the_centre():
    grown = boxes.grown(np.array([[0.2, 0.2, 0.4, 0.8]]), 0.5)
    assert np.allclose(grown, [[0.1, -0.1, 0.5, 1.1]])
    assert boxes.areas(np.array([[0.5, 0.5, 0.4, 0.9]])).tolist() == [0.0]
