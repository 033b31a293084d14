"""One power cut of a virtual machine, where one can be made."""

import os
from pathlib import Path

import pytest

from tests.crash import vmcut

KERNEL = Path(os.environ.get("OUTPOST_VM_KERNEL", "/"))  # a folder with boot/ and lib/modules/


@pytest.mark.crash
@pytest.mark.slow
def test_what_was_promised_before_the_power_went_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if why := vmcut.missing(KERNEL):
        pytest.skip(why)
    assert vmcut.main(["--rounds", "1", "--seed", "3", "--kernel", str(KERNEL)]) == 0
    assert "1 cuts, 0 broken" in capsys.readouterr().out


def test_only_whole_lines_of_the_console_count() -> None:
    seen = vmcut.Seen()
    for line in ("put aa", "put", "file a b", "file a", "loose cc", "check ok", "told", "[ 1.0] x"):
        seen.take(line)
    assert (seen.puts, seen.files, seen.loose) == ({"aa"}, {"a": "b"}, {"cc"})
    assert (seen.check, seen.is_told) == ("ok", True)
    assert seen.other == ["put", "file a", "[ 1.0] x"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert vmcut.missing(tmp_path).startswith("needs ")
