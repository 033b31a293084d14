"""The process that meets hostile media: it limits itself, does one thing, tells in JSON.

`python -m agent.docking.mediachild WORD ARGUMENTS`; `agent/docking/confined.py` starts it.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.core.errors import AgentError
from agent.evidence.hashing import hash_file

_MOST_FILES = 64  # open at once
_NICE = 5  # what is copied goes first
_FIRST_TO_GO = "1000"  # where memory is short for all
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main(words: Sequence[str]) -> int:
    """Do what the words say: CPU seconds, MiB, bytes of a written file, word, arguments."""
    _confine(*(int(word) for word in words[:3]))
    try:
        told = _JOBS[words[3]](*words[4:])
    except (AgentError, OSError) as error:
        told = {"why": str(error)}
    except MemoryError:
        told = {"why": "needs more memory than allowed"}
    sys.stdout.write(json.dumps(told))
    return 0


def _confine(cpu_s: int, memory_mib: int, file_bytes: int) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with suppress(OSError):  # the unit's system call filter refuses it
        os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),  # at the first a signal that says so
        resource.RLIMIT_AS: (memory_mib << 20, memory_mib << 20),
        resource.RLIMIT_FSIZE: (file_bytes, file_bytes),
        resource.RLIMIT_NOFILE: (_MOST_FILES, _MOST_FILES),
        resource.RLIMIT_CORE: (0, 0),
    }
    for limit, values in limits.items():
        resource.setrlimit(limit, values)


def _probe(path: str) -> Mapping[str, Any]:
    from agent.docking.mp4.look import look  # noqa: PLC0415 - heavy, and only under limits

    return look(Path(path))


def _header(path: str, target: str, sha256: str) -> Mapping[str, Any]:
    from agent.docking.mp4 import modelheader  # noqa: PLC0415

    digest = sha256 or hash_file(Path(path)).sha256
    modelheader.learn(Path(path), digest).keep(Path(target))
    return {}


def _rescue(broken: str, like: str, target: str) -> Mapping[str, Any]:
    from agent.docking.rescue import rescue  # noqa: PLC0415

    made = rescue(Path(broken), Path(like), Path(target))
    header = made.header
    return asdict(made.outcome) | {
        "lost_bytes": made.lost_bytes,
        "lost_ms": round(made.lost_s * 1000),
        "duration_ms": round(made.seconds * 1000),
        "zero_bytes": made.zero_bytes,
        "codec": header.codec,
        "width_px": header.width_px,
        "height_px": header.height_px,
        "reference_sha256": header.reference_sha256,
        "original_sha256": made.original.sha256,
    }


_JOBS: dict[str, Callable[..., Mapping[str, Any]]] = {
    "probe": _probe,
    "header": _header,
    "rescue": _rescue,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
