"""`outpost flights` on the real flight day."""

import json
from pathlib import Path

import pytest

from agent import cli

REAL = Path(__file__).parents[2] / "shared" / "data" / "flight.tlog.gz"
ARMED_S = (364.6, 527.3, 604.6, 990.2, 1082.4, 1121.5, 1150.2, 1782.6, 1941.8, 2101.5, 2173.1)
ABOVE_HOME_M = (10.6, 10.1, 8.6, 0.5, 10.2, 3.4, 11.4, 9.7, 14.1, 6.7, 3.3)


@pytest.fixture
def real() -> Path:
    if not REAL.exists():
        pytest.skip(f"needs {REAL.name} of the shared data")
    return REAL


def test_the_real_day_has_ten_flights_and_one_ground_run(
    real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["flights", str(real), "--json"]) == 0
    day = json.loads(capsys.readouterr().out)
    assert (day["messages"], day["bad_bytes"]) == (163_851, 0)
    sessions = day["sessions"]
    assert [row["start_s"] for row in sessions] == pytest.approx(ARMED_S, abs=1)
    kinds = [row["kind"] for row in sessions]
    assert (kinds.count("flight"), kinds.count("ground-run")) == (10, 1)
    assert kinds[3] == "ground-run"
    for row, above_home_m in zip(sessions, ABOVE_HOME_M, strict=True):
        assert row["max_height_m"] == pytest.approx(above_home_m, abs=0.4)
        assert row["start_utc_ms"] < row["end_utc_ms"]
        assert row["is_whole"]


def test_people_see_a_table_and_a_sum(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["flights", str(real)]) == 0
    said = capsys.readouterr()
    assert "2015-07-18 05:37:43" in said.out
    assert said.out.endswith("163851 messages; 10 flights, 1 ground run\n")
    assert said.err == ""


def test_a_file_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "photo.jpg"
    wrong.write_bytes(b"\xff\xd8" * 9000)
    assert cli.main(["flights", str(wrong)]) == 78
    assert "photo.jpg: no tlog" in capsys.readouterr().err
    assert cli.main(["flights", str(tmp_path / "none.tlog")]) == 78
