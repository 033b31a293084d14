"""A short, seeded slice of `./run chaos` on both brokers, and the README's first command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_sim.broker import mosquitto_path
from firmware_sim.demo import MARKER, fresh
from tests.crash import chaos
from tests.crash.faults import FAULTS
from tests.crash.tally import Tally

ROOT = Path(__file__).parent.parent.parent
# Killing everything, as ever, and one fault of each family that needs no right and no program.
CI_FAULTS = ("kill-agent", "kill-analysis", "kill-broker", "kill-receiver", "kill-all")
CI_FAULTS += ("half-open", "quota", "broker-forgets")
pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.video]


def run(tmp_path: Path, *words: str) -> str:
    """Run a module of ours; gives what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", *words, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=420,
        check=False,
    )
    logs = "\n".join(
        f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
        for path in sorted((tmp_path / "out").glob("*.log"))
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{logs}"
    return result.stdout


@pytest.mark.crash
@pytest.mark.parametrize(("broker", "seed"), [("embedded", 11), ("mosquitto", 12)])
def test_nothing_is_lost_or_doubled_when_everything_goes_wrong(
    tmp_path: Path, broker: str, seed: int
) -> None:
    if broker == "mosquitto" and mosquitto_path() is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    only = [word for name in CI_FAULTS for word in ("--only", name)]
    words = ("--rounds", "8", "--settle-every", "8", "--seed", str(seed), "--broker", broker)
    printed = run(tmp_path, "tests.crash.chaos", *words, *only)
    assert "round   8/8" in printed
    assert "8 rounds, 0 broken" in printed


def test_every_fault_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name:22}{fault.about}" in printed for name, fault in FAULTS.items())
    assert set(CI_FAULTS) <= set(FAULTS)


def test_suites_that_ran_at_once_are_counted_together() -> None:
    one, other = Tally(), Tally()
    one.held["quota"] += 2
    one.seconds["quota"] = [20.0, 22.0]
    other.broken["quota"] += 1
    other.seconds["quota"] = [30.0]
    other.skipped["cpu-20"] = "needs root"
    one.add(json.loads(json.dumps(other.document())))
    assert (one.held["quota"], one.broken["quota"]) == (2, 1)
    assert "quota                       3     2       1      0     24.0" in one.table()
    assert one.table().endswith("skipped: needs root\n3 rounds, 1 broken")


def test_the_demo_holds_what_it_promises(tmp_path: Path) -> None:
    printed = run(tmp_path, "firmware_sim.demo", "--broker", "embedded")
    assert "BROKER TAKEN AWAY" in printed
    assert printed.count("  yes  ") == 7
    assert "All of it held." in printed


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "thesis.txt"
    kept.write_text("five years of work")
    with pytest.raises(SystemExit, match="holds other files"):
        fresh(tmp_path)
    assert kept.read_text() == "five years of work"


def test_the_folder_of_an_earlier_run_is_emptied(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "out")
    (folder / "agent.log").write_text("old")
    assert [path.name for path in fresh(folder).iterdir()] == [MARKER]
