"""The units as systemd itself judges them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
MOUNT = SYSTEMD / "outpost-mount@.service"
UNITS = sorted(set(SYSTEMD.glob("*.service")) - {MOUNT})
PROGRAM = "/opt/outpost/.venv/bin/outpost"
PYTHON = "/opt/outpost/.venv/bin/python"
MOST_EXPOSURE = 2.0  # of 10; an unhardened unit has 9.6
MOST_EXPOSURE_OF_ROOT = 3.5  # it must mount where others see it: no namespace of its own

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


# The part of a dock that mounts.


@pytest.fixture
def dock_units(tmp_path: Path) -> list[str]:
    """The dock's units and what it adds to the agent's, with programs that exist."""
    names = (
        MOUNT.name,
        "outpost-mount.socket",
        "outpost.service",
        "outpost.service.d/dock.conf",
    )
    for name in names:
        text = (SYSTEMD / name).read_text().replace(PROGRAM, "/bin/true")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.replace(PYTHON, "/bin/true"))
    return [str(tmp_path / name) for name in names if not name.endswith(".conf")]


def test_verify_finds_nothing_in_the_units_of_a_dock(dock_units: list[str]) -> None:
    assert analyze("verify", *dock_units).stderr == ""


@pytest.mark.parametrize(("index", "most"), [(0, MOST_EXPOSURE_OF_ROOT), (2, MOST_EXPOSURE)])
def test_the_units_of_a_dock_are_tight(dock_units: list[str], index: int, most: float) -> None:
    result = analyze("security", "--offline=true", "--no-pager", dock_units[index])
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", result.stdout)
    assert exposure is not None, result.stderr
    assert float(exposure[1]) <= most


def test_what_mounts_has_no_namespace_of_its_own() -> None:
    """A mount in one would be seen by nobody; all of these make one: systemd.exec(5)."""
    keys = re.findall(r"^(\w+)=", MOUNT.read_text(), re.MULTILINE)
    allowed = {"ProtectClock"}
    made = re.compile(r"Private|Protect|ReadOnly|ReadWrite|Inaccessible|Bind|Root|.*Directory$")
    assert [key for key in keys if made.match(key) and key not in allowed] == []
    assert re.findall(r"^CapabilityBoundingSet=(.*)$", MOUNT.read_text(), re.MULTILINE) == [
        "CAP_SYS_ADMIN"
    ]


def test_its_filter_leaves_the_calls_that_mount(dock_units: list[str]) -> None:
    listed = analyze("syscall-filter", "@privileged", "@resources", "@keyring", "@timer").stdout
    removed = {line.strip() for line in listed.splitlines()}
    allowed = re.search(r"^SystemCallFilter=@system-service (.*)$", MOUNT.read_text(), re.MULTILINE)
    assert allowed is not None
    assert set(allowed[1].split()) == {
        "fsopen",
        "fsconfig",
        "fsmount",
        "move_mount",
        "mount",
        "umount2",
    }
    assert not set(allowed[1].split()) & removed


def test_what_mounts_is_started_as_the_unit_says() -> None:
    words = re.search(r"^ExecStart=(.*?[^\\])$", MOUNT.read_text(), re.MULTILINE | re.DOTALL)
    assert words is not None
    argv = words[1].replace("\\\n", " ").split()[2:]
    assert argv[0] == "-m"
    result = subprocess.run(
        [sys.executable, *argv, "--help"],
        cwd=SYSTEMD.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    for option in re.findall(r"--\w+", words[1]):
        assert option in result.stdout


RULE = re.compile(r'(\w+)(?:\{([\w/]+)\})?(==|!=|=|\+=)"([^"]*)"')
MATCHES = {"ACTION", "SUBSYSTEM", "SUBSYSTEMS", "KERNEL"}
SETS = {"GOTO", "LABEL", "OWNER", "GROUP", "MODE"}


def test_the_udev_rules_match_and_set_what_they_may() -> None:
    """As far as it can be told without udevd: `udevadm verify` came with systemd 254."""
    lines = (SYSTEMD / "outpost-dock.rules").read_text().splitlines()
    rules = [line.removeprefix("#") for line in lines if re.match(r"#?[A-Z]+[={]", line)]
    assert len(rules) >= 8
    for rule in rules:
        for piece in rule.split(", "):
            found = RULE.fullmatch(piece)
            assert found is not None, piece
            key, operator = found[1], found[3]
            if key in MATCHES:
                assert operator in ("==", "!="), piece
            elif key in SETS:
                assert operator == "=", piece
            else:
                assert key in ("ENV", "ATTR"), piece
    labels = [re.findall(rf'{word}="(\w+)"', "\n".join(rules)) for word in ("GOTO", "LABEL")]
    assert labels[0] == labels[1]


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60
    )
