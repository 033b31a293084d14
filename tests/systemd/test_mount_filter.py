"""What mounts, seen from the kernel: it makes no call that its unit's filter refuses."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.drivers import machine
from tests.drivers.test_mount_service import Box

UNIT = Path(__file__).parents[2] / "systemd" / "outpost-mount@.service"

pytestmark = [
    pytest.mark.skipif(bool(machine.needs_mounting()), reason=machine.needs_mounting()),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (strace)"),
    pytest.mark.skipif(
        shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (systemd)"
    ),
]


def calls_of(name: str) -> set[str]:
    """Give the system calls of a group, or the one of that name."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout
    words = {line.strip() for line in listed.splitlines()[1:]}
    return set().union(*(calls_of(word) for word in words if word and word[0] != "#"))


def allowed() -> set[str]:
    """Read the unit's filter as systemd does: a list of calls, then lists that are taken away."""
    found: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        calls = set().union(*(calls_of(word) for word in line.lstrip("~").split()))
        found = found - calls if line.startswith("~") else found | calls
    return found | calls_of("@default")


def test_it_makes_no_call_that_its_filter_refuses(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with contextlib.closing(Box(tmp_path)) as box:
        box.base.mkdir(mode=0o750)  # systemd-tmpfiles has
        box.unit.program[:0] = ["strace", "-f", "-qq", "-A", "-o", str(trace)]
        with machine.loop(machine.ext4(tmp_path / "card.img")) as card:
            box.tree.plug("1-1.1", machine.camera(machine.disk(card)))
            for word in ("mount", "rw", "ro", "eject"):
                box.ask(word)
    made = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"fsopen", "move_mount", "umount2", "getsockopt"} <= made
    assert made - allowed() == set()
