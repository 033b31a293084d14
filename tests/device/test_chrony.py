"""What chrony says, in lines as it prints them."""

import os

import pytest

from agent.device import chrony

GOOD = (
    "C0A80001,ntp.example,3,1700000000.1,0.000120000,0.000001,0.000002,-1.2,0.0,0.1,"
    "0.004000000,0.001500000,64.2,Normal"
)


def test_the_bound_is_offset_dispersion_and_half_the_delay():
    assert chrony.parsed(GOOD + "\n") == {"source": "ntp", "error_ms": 4}
    radio = GOOD.replace("C0A80001,ntp.example,3", "50505300,PPS0,1")
    assert chrony.parsed(radio)["source"] == "gps"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "506 Cannot talk to daemon",
        GOOD.replace("Normal", "Not synchronised"),
        GOOD.replace("0.004000000", "much"),
        GOOD.replace("0.004000000", "inf"),
        GOOD.replace("0.004000000", "nan"),
    ],
)
def test_no_answer_is_no_answer(line):
    assert chrony.parsed(line) is None


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        (f"echo '{GOOD}'", {"source": "ntp", "error_ms": 4}),
        ("exit 1", None),
        ("echo 506; exit 0", None),
        (r"printf '\377\376'", None),
    ],
)
def test_the_program_is_asked_where_there_is_one(tmp_path, monkeypatch, script, answer):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chrony.tracking() is None
    program = tmp_path / "chronyc"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-c tracking" ] || exit 3\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert chrony.tracking() == answer
