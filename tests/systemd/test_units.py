"""The units as systemd itself judges them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[2] / "systemd").glob("*.service"))
PROGRAM = "/opt/outpost/.venv/bin/outpost"
MOST_EXPOSURE = 2.0  # of 10; an unhardened unit has 9.6

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (systemd)"
)


@pytest.fixture(params=UNITS, ids=lambda path: path.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit whose program exists, since verify looks for it."""
    text = request.param.read_text()
    assert PROGRAM in text
    path = tmp_path / request.param.name
    path.write_text(text.replace(PROGRAM, "/bin/true"))
    return path


def test_there_are_two_units() -> None:
    assert [path.name for path in UNITS] == ["outpost-receiver.service", "outpost.service"]


def test_verify_finds_nothing(unit: Path) -> None:
    result = analyze("verify", str(unit))
    assert result.stderr == "", "systemd-analyze exits with 0 even for unknown keys"
    assert result.returncode == 0


def test_verify_would_find_a_misspelt_key(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec", "WatchDogSeconds"))
    assert "WatchDogSeconds" in analyze("verify", str(unit)).stderr


def test_the_sandbox_is_tight(unit: Path) -> None:
    result = analyze("security", "--offline=true", "--no-pager", str(unit))
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", result.stdout)
    assert exposure is not None, result.stderr
    assert float(exposure[1]) <= MOST_EXPOSURE


def test_the_system_call_filter_leaves_what_the_program_uses(unit: Path) -> None:
    rows = json.loads(analyze("security", "--offline=true", "--json=short", str(unit)).stdout)
    by_name = {row["json_field"]: row for row in rows}
    assert by_name["SystemCallFilter_privileged"]["set"] is True
    assert "SystemCallErrorNumber=EPERM" in unit.read_text(), "refused, not killed"
    assert not re.search(
        r"^SystemCallFilter=.*@(network-io|file-system)", unit.read_text(), re.MULTILINE
    )


def test_a_mistake_for_a_person_is_not_retried(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    for line in ("Type=notify", "Restart=always", "RestartPreventExitStatus=78", "WatchdogSec=30"):
        assert line in lines
    assert "StartLimitIntervalSec=0" in lines, "a box on a pole is never given up"


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60
    )
