"""The limits of the C library's memory are taken, and a process with many threads lives on."""

import subprocess
import sys

CHURN = """
import threading
from agent.core import memory
print(memory.stay_small())
def churn():
    kept = []
    for size in range(1, 100):
        kept.append(bytearray(size * 5000))
        if size % 3 == 0:
            kept.pop(0)
threads = [threading.Thread(target=churn) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_glibc_takes_the_limits() -> None:
    result = subprocess.run(
        [sys.executable, "-c", CHURN], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[0] == "True"
