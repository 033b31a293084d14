"""The calibration's file: what was written comes back, and nothing that was bent passes."""

import json
from dataclasses import replace

import jsonschema
import pytest

from agent.core import wire
from agent.core.errors import ConfigError
from agent.vision import calibrate, calibration
from agent.vision.calibration import Calibration
from tests.vision.poses import YARD, Pose


def made(count: int = 8, noise_px: float = 1.0) -> Calibration:
    survey = Pose().survey(YARD[:count], noise_px, seed=4)
    fit = calibrate.fit(survey)
    return Calibration(
        calibration_id="yard",
        snapshot_sha256="ab" * 32,
        width_px=survey.width_px,
        height_px=survey.height_px,
        marks=fit.marks(survey),
        straights=(),
        matrix=fit.matrix,
        k1=fit.k1,
        residual_px=fit.residual_px,
        residual_m=fit.residual_m,
        scale_sd_frac=fit.scale_sd_frac,
        foot_sd_px=5.76,
        is_verified=fit.is_verified,
        made_by="somebody",
        made_utc_ms=1_700_000_000_000,
    )


@pytest.fixture
def path(tmp_path):
    calibration.write(made(), tmp_path / "yard.json")
    return tmp_path / "yard.json"


def test_what_was_written_is_read(path):
    found, wanted = calibration.read(path), made()
    assert found.matrix == wanted.matrix
    assert [(mark.x, mark.y, mark.x_m, mark.y_m) for mark in found.marks] == [
        (mark.x, mark.y, mark.x_m, mark.y_m) for mark in wanted.marks
    ]
    assert found.residual_px == pytest.approx(wanted.residual_px, abs=0.01)
    calibration.write(found, path.with_name("again.json"))
    assert path.with_name("again.json").read_text() == path.read_text()


def test_the_ground_of_the_file_is_what_rules_get(path):
    ground = calibration.load(path)
    assert (ground.calibration_id, ground.width_px, ground.height_px) == ("yard", 1920, 1080)
    spot = ground.locate(*Pose().see([(1.0, 12.0)])[0])
    assert (spot.x_m, spot.y_m) == pytest.approx((1.0, 12.0), abs=0.1)
    assert ground.scale_sd_frac > 0


def test_its_schema_is_valid_by_an_independent_check(path):
    schema = json.loads(wire.schema_text("calibration"))
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(json.loads(path.read_text()))


def test_the_summary_says_whether_the_residual_is_known():
    assert "residual" in made().summary
    assert "UNVERIFIED, 4 points" in made(4, 0.0).summary


def refused(path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        calibration.load(path)
    assert str(path) in str(caught.value)
    assert "allowed" in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_none_is_named(path):
    with pytest.raises(ConfigError, match=r"No such file.*allowed"):
        calibration.load(path.with_name("gone.json"))
    for content in (b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"sv": NaN}'):
        refused(path, content)
    assert "bytes" in refused(path, b" " * (calibration.MAX_BYTES + 1))


def change(path, **parts) -> bytes:
    return json.dumps(json.loads(path.read_text()) | parts).encode()


@pytest.mark.parametrize("part", list(json.loads(wire.schema_text("calibration"))["required"]))
def test_a_missing_part_is_refused(path, part):
    document = json.loads(path.read_text())
    del document[part]
    refused(path, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("sv", 2),
        ("k1", 0.9),
        ("matrix", [1.0] * 8),
        ("matrix", [0.0] * 9),
        ("width_px", 0),
        ("surprise", 1),
        ("points", []),
    ],
)
def test_a_wrong_part_is_refused(path, part, value):
    refused(path, change(path, **{part: value}))


def test_a_matrix_of_another_camera_is_seen(path):
    other = calibrate.fit(Pose(tilt_deg=30).survey(YARD[:7])).matrix
    assert "from where it was measured" in refused(path, change(path, matrix=list(other)))


def test_a_turned_matrix_is_seen(path):
    turned = [-item for item in made().matrix]
    assert "above the horizon" in refused(path, change(path, matrix=turned))


def test_a_number_out_of_all_bounds_is_seen(path):
    content = path.read_text().replace('"k1": 0.0', '"k1": 1e999')
    refused(path, content.encode())


def test_a_disk_that_refuses_leaves_a_clear_word(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        calibration.write(replace(made()), tmp_path / "file" / "yard.json")
