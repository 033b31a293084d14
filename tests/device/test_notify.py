"""What systemd's variables mean, and that a broken socket harms nobody."""

import logging
import os
import socket
from pathlib import Path

import pytest

from agent.device.notify import Notifier, from_environment, without


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Notifier()),
        ({"NOTIFY_SOCKET": ""}, Notifier()),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, Notifier()),
        ({"NOTIFY_SOCKET": "relative"}, Notifier()),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, Notifier("/run/systemd/notify")),
        ({"NOTIFY_SOCKET": "@abstract"}, Notifier("@abstract")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000"}, Notifier("/n", 30.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, Notifier("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, Notifier("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}, Notifier("/n")),
        (
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5", "WATCHDOG_PID": str(os.getpid())},
            Notifier("/n", 5e-6),
        ),
        ({"WATCHDOG_USEC": "5"}, Notifier()),
    ],
)
def test_reads_the_environment(environ: dict[str, str], expected: Notifier) -> None:
    assert from_environment(environ) == expected


def test_takes_the_variables_away_from_children() -> None:
    environ = {"PATH": "/bin", "NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}
    assert without(environ) == {"PATH": "/bin"}


def test_one_datagram_a_call_and_a_line_break_forges_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(2)
        notifier = Notifier(str(tmp_path / "notify"))
        assert notifier.send("READY=1", "STATUS=camera\nWATCHDOG=1")
        assert receiver.recv(4096) == b"READY=1\nSTATUS=camera WATCHDOG=1"


def test_nobody_to_tell(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert not Notifier().send("READY=1")
    assert not caplog.records
    assert not Notifier(str(tmp_path / "gone")).send("READY=1")
    assert [line.levelno for line in caplog.records] == [logging.WARNING]
