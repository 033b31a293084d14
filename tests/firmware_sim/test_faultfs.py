"""The file system that fails on request, and what it forgets when the power is cut."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK), reason="needs root and /dev/fuse"
)

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA synchronous=FULL")
connection.execute("CREATE TABLE row (id INTEGER PRIMARY KEY)")
for number in range(1, 1_000_000):
    connection.execute("INSERT INTO row VALUES (?)", (number,))
    print(number, flush=True)
"""


class Mounted:
    def __init__(self, folder):
        self.root, self.place = folder / "root", folder / "mount"
        self.root.mkdir(exist_ok=True)
        self.place.mkdir(exist_ok=True)
        argv = [sys.executable, "-m", "firmware_sim.faultfs", str(self.root), str(self.place)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(argv, cwd=ROOT, **pipes)
        assert self.process.stdout.readline() == "mounted\n"

    def order(self, **words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        if "end" not in words:
            assert self.process.stdout.readline() == "done\n"

    def end(self, how):
        self.order(end=how)
        self.process.communicate(timeout=20)
        return sorted(path.name for path in self.root.iterdir())


def test_only_what_was_synced_survives_a_power_cut(tmp_path):
    disk = Mounted(tmp_path)
    (disk.place / "plain").write_bytes(b"x")
    with (disk.place / "synced").open("wb") as stream:
        stream.write(b"one")
        stream.flush()
        os.fsync(stream.fileno())
        stream.write(b" two")
    (disk.place / "synced").rename(disk.place / "renamed")
    assert sorted(path.name for path in disk.place.iterdir()) == ["plain", "renamed"]
    assert disk.end("cut") == ["synced"]
    assert (disk.root / "synced").read_bytes() == b"one"


def test_a_synced_folder_keeps_its_names(tmp_path):
    disk = Mounted(tmp_path)
    (disk.place / "old").mkdir()
    with (disk.place / "old" / "file").open("wb") as stream:
        stream.write(b"kept")
        stream.flush()
        os.fsync(stream.fileno())
    (disk.place / "old").rename(disk.place / "new")
    folder = os.open(disk.place, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    assert disk.end("cut") == ["new"]
    assert (disk.root / "new" / "file").read_bytes() == b"kept"


def test_another_name_of_a_file_lasts_when_its_folder_is_synced(tmp_path):
    disk = Mounted(tmp_path)
    with (disk.place / "first").open("wb") as stream:
        stream.write(b"kept")
        stream.flush()
        os.fsync(stream.fileno())
    (disk.place / "second").hardlink_to(disk.place / "first")
    (disk.place / "first").unlink()
    folder = os.open(disk.place, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    (disk.place / "third").hardlink_to(disk.place / "second")
    assert disk.end("cut") == ["second"]
    assert (disk.root / "second").read_bytes() == b"kept"


def test_an_orderly_end_keeps_everything(tmp_path):
    disk = Mounted(tmp_path)
    content = os.urandom(3_000_000)
    (disk.place / "a" / "b").mkdir(parents=True)
    (disk.place / "a" / "b" / "file").write_bytes(content)
    (disk.place / "gone").mkdir()
    shutil.rmtree(disk.place / "gone")
    assert disk.end("sync") == ["a"]
    assert (disk.root / "a" / "b" / "file").read_bytes() == content


def test_it_fails_as_it_is_told_and_is_well_again(tmp_path):
    disk = Mounted(tmp_path)
    disk.order(fail=["fsync"])
    with (disk.place / "file").open("wb") as stream:
        stream.write(b"x")
        stream.flush()
        with pytest.raises(OSError, match="Input/output error"):
            os.fsync(stream.fileno())
    disk.order(read_only=True)
    with pytest.raises(OSError, match="Read-only file system"):
        (disk.place / "other").touch()
    disk.order()
    (disk.place / "other").touch()
    assert disk.end("sync") == ["file", "other"]


def test_sqlite_loses_no_row_that_it_had_synced(tmp_path):
    disk = Mounted(tmp_path)
    argv = [sys.executable, "-c", WRITER, str(disk.place / "rows.db")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(300):
            writer.stdout.readline()
        disk.order(fail=["all"])
        writer.kill()
        said = [int(line) for line in writer.stdout.read().split()]
    disk.end("cut")
    connection = sqlite3.connect(tmp_path / "root" / "rows.db")
    found = connection.execute("SELECT max(id) FROM row").fetchone()[0]
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()
    assert found >= max(said, default=300)
