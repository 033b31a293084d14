"""Virtual environments for tests that need other packages than ours: made once, kept for later."""

import hashlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MADE = "made"
LIMIT_S = 240.0


def wanted(extra: str, *names: str) -> list[str]:
    """The requirements of one of our extras, and those of our own that are named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return [
        *project["optional-dependencies"][extra],
        *(item for item in own if item.startswith(names)),
    ]


def python_with(requirements: Sequence[str]) -> Path:
    """A Python that has these packages; skips the test where they cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "outpost-tests"
    digest = hashlib.sha256("\n".join([sys.version, *sorted(requirements)]).encode()).hexdigest()
    folder = cache / f"venv-{digest[:12]}"
    python = folder / "bin" / "python"
    if (folder / MADE).exists():
        return python
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "-q", "--only-binary", ":all:", *requirements])
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "no reason told").strip().splitlines()[-1]
        pytest.skip(f"no venv with {requirements[0]}: {last[:200]}")
    except subprocess.TimeoutExpired:
        pytest.skip(f"no venv with {requirements[0]} within {LIMIT_S:.0f} s")
    (folder / MADE).touch()
    return python


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=LIMIT_S)
