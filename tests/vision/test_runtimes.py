"""Each TFLite runtime in an environment of its own, with the packages that its extra pins."""

import os
import subprocess
import sys

import pytest

from agent.vision import detect
from tests.venvs import ROOT, python_with, wanted

WHICH = "from agent.vision import detect; print(detect.find_runtime()[0])"
LIMIT_S = 300.0


@pytest.mark.slow
@pytest.mark.video
@pytest.mark.parametrize(
    ("extra", "runtime"), [("litert", detect.LITERT), ("tflite", detect.TFLITE)]
)
def test_the_detector_works_on_the_runtime(extra, runtime):
    if runtime == detect.TFLITE and sys.version_info[:2] != (3, 11):
        pytest.skip("tflite-runtime 2.14 is there for Python 3.11")
    python = python_with(wanted(extra, "av>", "fastjsonschema", "pytest>", "hypothesis"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python), *argv],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    assert run("-c", WHICH).stdout.strip() == runtime
    tests = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/vision/test_detect.py")
    assert tests.returncode == 0, tests.stdout[-3000:]
    assert " passed" in tests.stdout
