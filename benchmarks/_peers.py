"""Virtual environments with the stores that ours is compared with; made once, kept for later."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

LIMIT_S = 300.0
MADE = "made"


def python_with(*requirements: str) -> tuple[Path | None, str]:
    """Give a Python that has these packages, or None and why they cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "outpost-bench"
    name = hashlib.sha256("\n".join([sys.version, *sorted(requirements)]).encode()).hexdigest()[:12]
    folder = cache / name
    python = folder / "bin" / "python"
    if (folder / MADE).exists():
        return python, ""
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "-q", *requirements])
    except subprocess.SubprocessError as error:
        told = str(getattr(error, "stderr", "") or error).strip().splitlines()
        return None, f"{requirements[0]} cannot be installed: {told[-1][:100]}"
    (folder / MADE).touch()
    return python, ""


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=LIMIT_S)
