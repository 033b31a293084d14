"""Figures of real processes, and of made-up boards."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.core.errors import StorageError
from agent.device import proc

MIB = 1 << 20
BUSY = """
import os, sys, time
block = bytearray(64 << 20)
block[::4096] = b"x" * len(block[::4096])
begun = os.times()
while os.times().user + os.times().system < 0.5:
    pass
print(os.times().user + os.times().system, flush=True)
sys.stdin.read()
"""


def test_counts_the_memory_and_time_of_a_living_child() -> None:
    before = proc.usage(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        burnt_s = float(child.stdout.readline())
        alone = proc.usage(child.pid)
        with_child = proc.usage(os.getpid())
        child.communicate("")
    assert alone.processes == 1
    assert alone.rss_bytes > 64 * MIB
    assert alone.cpu_s == pytest.approx(burnt_s, abs=0.1)
    assert with_child.processes == before.processes + 1
    assert with_child.rss_bytes - before.rss_bytes > 60 * MIB
    assert with_child.cpu_s - before.cpu_s > 0.4


def test_keeps_the_time_of_a_child_that_has_ended() -> None:
    before = proc.usage(os.getpid())
    subprocess.run([sys.executable, "-c", BUSY], input=b"", check=True, capture_output=True)
    after = proc.usage(os.getpid())
    assert after.processes == before.processes
    assert after.cpu_s - before.cpu_s > 0.4


def test_counts_grandchildren() -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'print(1, flush=True); input()'])\n"
        "child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert proc.usage(child.pid).processes == 2
        child.communicate(b"\n")


def test_an_ended_process_counts_for_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert proc.usage(child.pid) == proc.Usage(0.0, 0, 0)


def test_reads_a_name_with_brackets_and_spaces(tmp_path: Path) -> None:
    process = tmp_path / "7"
    (process / "task" / "7").mkdir(parents=True)
    (process / "task" / "7" / "children").write_text("")
    fields = "S 1 7 7 0 -1 0 0 0 0 0 200 100 30 20 20 0 1 0 5 0 0"
    (process / "stat").write_text(f"7 (a) (b) c) {fields}\n")
    (process / "statm").write_text("1000 300 10 1 0 1 0\n")
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    assert proc.usage(7, tmp_path) == proc.Usage(350 / ticks_per_s, 300 * page_bytes, 1)


def test_gives_the_hottest_sound_zone(tmp_path: Path) -> None:
    for number, text in enumerate(["41200\n", "55000\n", "-273000\n", "junk\n", "999000\n"]):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(text)
    (tmp_path / "thermal_zone9").mkdir()
    (tmp_path / "cooling_device0").mkdir()
    assert proc.temperature_c(tmp_path) == 55.0


def test_no_zone_is_no_temperature(tmp_path: Path) -> None:
    assert proc.temperature_c(tmp_path) is None


def test_free_space_shrinks_when_something_is_written(tmp_path: Path) -> None:
    before = proc.disk_free_bytes(tmp_path)
    disk = os.statvfs(tmp_path)
    assert 0 < before <= disk.f_blocks * disk.f_frsize
    with (tmp_path / "large").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, 256 * MIB)
        os.fsync(stream.fileno())
    deadline = time.monotonic() + 5
    while before - proc.disk_free_bytes(tmp_path) < 128 * MIB:
        assert time.monotonic() < deadline


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone: free space unknown: No such file"):
        proc.disk_free_bytes(tmp_path / "gone")
