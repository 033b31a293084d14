"""Files that are whole or not there."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core import files

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_writes_with_mode_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "device.key"
    files.write_atomic(path, b"secret", mode=0o600)
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path.parent) == ["device.key"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "config"
    files.write_atomic(path, b"old")
    with pytest.raises(TypeError), files.atomic(path) as stream:
        stream.writelines([b"half of the n", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["config"]


def test_a_leftover_of_a_killed_write_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.with_name("config.tmp").write_bytes(b"left over, and longer than the new one")
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["config"]


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.with_name("link.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(path, b"x")
    assert names(tmp_path) == []


def test_killed_at_any_moment_the_file_is_old_or_new_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    files.write_atomic(path, b"0" * 65536)
    writer = (
        "import sys\nfrom pathlib import Path\nfrom agent.core import files\n"
        "for n in range(1, 10**9):\n"
        "    files.write_atomic(Path(sys.argv[1]), str(n % 10).encode() * 65536)\n"
        "    print(n, flush=True)\n"
    )
    for round_number in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", writer, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(3 + round_number):
                last = int(process.stdout.readline())
            process.kill()
            last = max([last, *map(int, process.stdout.read().split())])
        content = path.read_bytes()
        assert len(content) == 65536
        assert len(set(content)) == 1
        assert content[:1] in (str(last % 10).encode(), str((last + 1) % 10).encode())


def test_syncs_name_what_is_missing(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "x", b"")
    files.sync_file(tmp_path / "x")
    files.sync_directory(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.sync_file(tmp_path / "gone")
    with pytest.raises(NotADirectoryError):
        files.sync_directory(tmp_path / "x")
