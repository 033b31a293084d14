"""`./run` before anything is installed: its words, its exit codes, and what it says when stuck."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = ("setup", "demo", "demo-dock", "test", "check", "bench", "chaos", "install")
TOOLS = ("sh", "cat", "cksum", "sed", "sort", "wc", "dirname", "id", "uname", "rm", "env")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script in a folder of its own, where nothing is set up."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("run", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with the tools of any machine, and without Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        program = shutil.which(name)
        assert program is not None
        (folder / name).symlink_to(program)
    return folder


def run(
    folder: Path, *words: str, path: Path | None = None, shell: str = "sh"
) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": str(path) if path else os.environ["PATH"], "HOME": str(folder)}
    program = shutil.which(shell)
    assert program is not None
    return subprocess.run(
        [program, str(folder / "run"), *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )


def stub(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.unlink(missing_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
@pytest.mark.parametrize("script", ["run", "systemd/install.sh"])
def test_is_posix(shell: str, script: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    result = subprocess.run(
        [shell, "-n", str(ROOT / script)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    text = (ROOT / script).read_text()
    assert text.startswith("#!/bin/sh\n")
    assert not any(word in text for word in ("[[", "function ", "local ", "source ", "pipefail"))
    assert os.access(ROOT / script, os.X_OK)


def test_help_names_every_word(copy: Path) -> None:
    result = run(copy, "help")
    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == list(WORDS)


@pytest.mark.parametrize("words", [(), ("nonsense",), ("--version",), ("",)])
def test_other_words_are_told_the_right_ones(copy: Path, words: tuple[str, ...]) -> None:
    result = run(copy, *words)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "usage: ./run WORD" in result.stderr
    if words and words[0]:
        assert f"unknown word: {words[0]}" in result.stderr


@pytest.mark.parametrize("word", ["setup", "demo", "test", "check", "bench", "chaos"])
def test_a_machine_without_python_is_told_what_to_install(
    copy: Path, bare: Path, word: str
) -> None:
    result = run(copy, word, path=bare)
    assert result.returncode == 1
    assert "needs a 64-bit Python 3.11 or newer; found: none" in result.stderr
    assert "apt-get install python3 python3-venv" in result.stderr
    assert result.stdout == ""


def test_an_old_python_is_named(copy: Path, bare: Path) -> None:
    stub(bare, "python3", 'case $2 in *sys.exit*) exit 1;; esac; echo "3.9.2 64bit"')
    result = run(copy, "setup", path=bare)
    assert result.returncode == 1
    assert "found: python3 (3.9.2 64bit)" in result.stderr


def test_a_broken_python_is_passed_over_for_a_good_one(copy: Path, bare: Path) -> None:
    stub(bare, "python3", "exit 127")
    stub(
        bare,
        "python3.12",
        'case $2 in *"import ensurepip"*) exit 1;; *%d*) echo python3.12-venv;; esac',
    )
    stub(bare, "id", "echo 1000")
    result = run(copy, "setup", path=bare)
    assert result.returncode == 1
    assert "Python lacks ensurepip; as root: apt-get install python3.12-venv" in result.stderr


def test_root_gets_the_missing_package_installed(copy: Path, bare: Path) -> None:
    answers = (
        f'*"import ensurepip"*) test -e "{copy}/got";;',
        "*%d*) echo python3.11-venv;;",
        "venv) exit 9;;",
    )
    stub(bare, "python3", f"case $2 in {' '.join(answers)} esac")
    stub(bare, "id", "echo 0")
    stub(bare, "true", "exit 0")
    stub(
        bare, "apt-get", f'echo "$@" >>"{copy}/asked"; case $* in *install*) : >"{copy}/got";; esac'
    )
    result = run(copy, "setup", path=bare)
    assert result.returncode == 9, "the exit code of what failed passes through"
    assert (copy / "asked").read_text().splitlines() == [
        "-qq update",
        "-qq install -y python3.11-venv",
    ]


def set_up(folder: Path) -> None:
    """Make it look as it does after `setup`, with a Python that tells how it was called."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    stub(folder / ".venv" / "bin", "python", 'printf "%s|" "$@"; exit 7')
    lock = (folder / "requirements.lock").read_bytes()
    found = subprocess.run(["cksum"], input=lock, capture_output=True, check=True).stdout.decode()
    (folder / ".venv" / "outpost.stamp").write_text(f"{found.strip()} {folder}\n")


@pytest.mark.parametrize(
    ("words", "called"),
    [
        (("demo",), "-m|firmware_sim.demo|"),
        (("test", "-k", "a or b", "tests/core"), "-m|pytest|-k|a or b|tests/core|"),
        (("bench", "outbox"), "-m|benchmarks|outbox|"),
        (
            ("chaos", "--rounds", "2", "--seed", "x y"),
            "-m|tests.crash.chaos|--rounds|2|--seed|x y|",
        ),
    ],
)
def test_once_set_up_words_run_without_network_and_pass_arguments_and_codes(
    copy: Path, bare: Path, words: tuple[str, ...], called: str
) -> None:
    set_up(copy)
    result = run(copy, *words, path=bare)  # no python3, no pip, no apt-get on this PATH
    assert (result.returncode, result.stdout, result.stderr) == (7, called, "")


def test_runs_in_its_own_folder_wherever_it_is_called_from(copy: Path, bare: Path) -> None:
    set_up(copy)
    stub(copy / ".venv" / "bin", "python", "pwd")
    assert run(copy, "demo", path=bare).stdout == f"{copy}\n"


def test_check_stops_at_the_first_tool_that_complains(copy: Path, bare: Path) -> None:
    set_up(copy)
    result = run(copy, "check", path=bare)
    assert (result.returncode, result.stdout) == (7, "-m|ruff|check|.|")


@pytest.mark.parametrize("change", ["lock", "moved"])
def test_a_changed_lock_or_a_moved_folder_is_set_up_again(
    copy: Path, bare: Path, change: str
) -> None:
    set_up(copy)
    if change == "lock":
        with (copy / "requirements.lock").open("a") as lock:
            lock.write("# one more\n")
    else:
        copy = copy.rename(copy.with_name("elsewhere"))
    result = run(copy, "test", path=bare)
    assert result.returncode == 1
    assert "needs a 64-bit Python" in result.stderr, "it went on to set up"
    assert not (copy / ".venv" / "outpost.stamp").exists()


def test_install_knows_its_roles(copy: Path, bare: Path) -> None:
    shutil.copytree(ROOT / "systemd", copy / "systemd")
    result = run(copy, "install", "doc", path=bare)
    assert result.returncode == 2
    assert "unknown role: doc; allowed: camera, dock" in result.stderr


def test_install_needs_root(copy: Path, bare: Path) -> None:
    shutil.copytree(ROOT / "systemd", copy / "systemd")
    stub(bare, "id", "echo 1000")
    result = run(copy, "install", path=bare)
    assert result.returncode == 1
    assert "sudo ./run install" in result.stderr
