"""The limits of the C library's memory are set, and the process lives on."""

import subprocess
import sys

from agent.core import memory

CHURN = """
import threading
from agent.core import memory
assert memory.stay_small()
def churn():
    kept = []
    for size in range(1, 200):
        kept.append(bytearray(size * 5000))
        if size % 3 == 0:
            kept.pop(0)
threads = [threading.Thread(target=churn) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
"""


def test_limits_are_taken_by_glibc() -> None:
    assert memory.stay_small() is True


def test_what_is_freed_goes_back() -> None:
    result = subprocess.run(
        [sys.executable, "-c", CHURN], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 80_000  # KiB; 12 threads held up to 800 MB in turn
