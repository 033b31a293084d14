"""Cameras, zones, lines and rules as a technician writes them, and every mistake in them."""

import subprocess
import sys
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, get_type_hints

import pytest

from agent.core import config as loader
from agent.core.config import Doc, Pattern, Range, hint_parts, note
from agent.core.errors import ConfigError
from agent.vision import analytics
from agent.vision.config import (
    CameraConfig,
    DetectorConfig,
    EventConfig,
    LineConfig,
    MotionConfig,
    RecordConfig,
    TrackConfig,
    ZoneConfig,
)

GOOD = """
[detector]
min_score = 0.4

[[cameras]]
id = "west"
[cameras.main]
driver = "null"

[[cameras.zones]]
name = "gate"
points = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]

[[cameras.lines]]
name = "kerb"
start = [0.5, 0.2]
end = [0.5, 0.9]

[[cameras.rules]]
kind = "zone_enter"
name = "in"
zone = "gate"
labels = ["person"]

[[cameras.rules]]
kind = "line_cross"
name = "over"
line = "kerb"
"""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A driver without keys."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The tables of this test."""

    cameras: Annotated[tuple[CameraConfig, ...], Doc("cameras")] = ()
    detector: Annotated[DetectorConfig, Doc("detector")] = field(default_factory=DetectorConfig)
    recording: Annotated[RecordConfig, Doc("recording")] = field(default_factory=RecordConfig)


def resolver(group: str):
    return {"null": lambda: Nothing} if group == "driver" else analytics.kinds()


def load(tmp_path, text: str, *overrides: str) -> Whole:
    file = tmp_path / "box.toml"
    file.write_text(text)
    return loader.load(file, Whole, resolver, overrides)


def problems(tmp_path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    return "\n".join(caught.value.problems)


def test_a_camera_is_read_with_its_places_and_rules(tmp_path):
    camera = load(tmp_path, GOOD).cameras[0]
    assert camera.sub is None
    assert camera.max_rate_per_s == 2.5
    assert [rule.kind for rule in camera.rules] == ["zone_enter", "line_cross"]
    assert camera.rules[0].settings.labels == ("person",)
    assert camera.rules[1].settings.labels == ("person", "vehicle", "bicycle")
    assert camera.places.zones["gate"].points[2].x == 0.9
    assert camera.places.lines["kerb"].end.y == 0.9


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cameras.0.id='West!'", "cameras[0].id"),
        ("cameras.0.max_rate_per_s=0", "from 0.1 to 30"),
        ("cameras.0.zones.0.points=[[0,0],[1,1]]", "2 items; allowed: 3 to 64"),
        ("cameras.0.zones.0.points=[[0,0],[1,1],[1,0],[0,1]]", "cross or repeat"),
        ("cameras.0.zones.0.points=[[0,0],[0.5,0.5],[0.5,0.5],[0,1]]", "cross or repeat"),
        ("cameras.0.zones.0.points=[[0,0],[0.01,0],[0.01,0.01]]", "more than 0.0005"),
        ("cameras.0.zones.0.points=[[0,0],[1.5,0],[1,1]]", "1.5 is out of range"),
        ("cameras.0.zones.0.name='door'", "no zone 'gate'; allowed: door"),
        ("cameras.0.zones=[]", "no zone 'gate'; allowed: none, this camera has no zone"),
        ("cameras.0.lines.0.name='wall'", "no line 'kerb'; allowed: wall"),
        ("cameras.0.lines.0.end=[0.5,0.21]", "at least 0.02"),
        ("cameras.0.lines.0.start=[0.5]", "1 items; allowed: 2"),
        ("cameras.0.rules.1.name='in'", "two rules are called 'in'"),
        ("cameras.0.rules.0.kind='zone_entr'", "did you mean 'zone_enter'"),
        ("cameras.0.rules.0.labels=['cat']", "allowed: person, vehicle, bicycle"),
        ("cameras.0.rules.0.labels=[]", "0 items; allowed: 1 to 3"),
        ("cameras.0.rules.0.zon='gate'", "unknown key; did you mean 'zone'"),
        ("cameras.0.rules.1.direction='up'", "a_to_b, b_to_a, both"),
        ("cameras.0.rules.1.pre_s=-1", "from 0 to 60"),
        ("detector.low_score=0.6", "low_score 0.6; allowed: up to min_score, 0.4"),
        ("detector.view='half'", "whole, crops, tiles"),
        ("detector.min_score='high'", "is not a number"),
        ("recording.segment_s=1", "from 2 to 300"),
        ("recording.keep_days=0.5", "is not a whole number"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(tmp_path, override, said):
    text = problems(tmp_path, GOOD, override)
    assert said in text
    assert str(tmp_path / "box.toml") in text


def test_two_zones_of_one_name_are_refused(tmp_path):
    second = '\n[[cameras.zones]]\nname = "gate"\npoints = [[0,0],[1,0],[1,1]]\n'
    head, tail = GOOD.split("[[cameras.lines]]")
    text = problems(tmp_path, f"{head}{second}[[cameras.lines]]{tail}")
    assert "two zones are called 'gate'" in text


def test_all_mistakes_come_at_once(tmp_path):
    text = problems(tmp_path, GOOD, "cameras.0.rules.0.zone='x'", "cameras.0.rules.1.line='y'")
    assert "rules[0].zone: no zone 'x'" in text
    assert "rules[1].line: no line 'y'" in text


@pytest.mark.parametrize(
    "shape",
    [
        CameraConfig,
        DetectorConfig,
        EventConfig,
        LineConfig,
        MotionConfig,
        RecordConfig,
        TrackConfig,
        ZoneConfig,
        *(load_shape() for load_shape in analytics.kinds().values()),
    ],
)
def test_every_key_is_documented_and_every_number_bounded(shape):
    hints = get_type_hints(shape, include_extras=True)
    for item in fields(shape):
        plain, notes = hint_parts(hints[item.name])
        assert note(notes, Doc) is not None, f"{shape.__name__}.{item.name} has no Doc"
        if plain in (int, float):
            limit = note(notes, Range)
            assert limit is not None, f"{shape.__name__}.{item.name} has no Range"
            levels = getattr(shape, "LEVELS", {}).get(item.name)
            if item.default is not MISSING:
                assert all(limit.low <= one <= limit.high for one in levels or (item.default,))
        if plain is str and item.name in ("id", "name", "zone", "line"):
            assert note(notes, Pattern) is not None


def test_what_the_recording_process_imports_is_light():
    code = (
        "import sys, agent.vision.config, agent.vision.lines, agent.vision.event\n"
        "from agent.vision import analytics\n"
        "for load in analytics.kinds().values(): load()\n"
        "heavy = {'numpy', 'cv2', 'av', 'ai_edge_litert', 'tflite_runtime'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
