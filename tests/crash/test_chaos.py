"""A short, seeded slice of `./run chaos` on both brokers, and the README's first command."""

import subprocess
import sys
from pathlib import Path

import pytest

from firmware_sim.broker import mosquitto_path
from firmware_sim.demo import MARKER, fresh

ROOT = Path(__file__).parent.parent.parent
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
def test_nothing_is_lost_or_doubled_when_everything_is_killed(
    tmp_path: Path, broker: str, seed: int
) -> None:
    if broker == "mosquitto" and mosquitto_path() is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    words = ("--rounds", "5", "--seed", str(seed), "--broker", broker)
    printed = run(tmp_path, "tests.crash.chaos", *words)
    assert "round   5/5" in printed
    assert "NO " not in printed
    assert "  yes  everything drained" in printed


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
