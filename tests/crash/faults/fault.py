"""What every fault is: a name, what it needs, how it comes and how it goes."""

import os
import random
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from tests.crash.scene import Scene

ROOT_ONLY = "needs root"


class Fault(ABC):
    """One kind of trouble; a new object for every round."""

    name: ClassVar[str]
    about: ClassVar[str]  # one line for --list
    lasts_s: ClassVar[tuple[float, float]] = (1.0, 5.0)
    may_lose: ClassVar[bool] = False  # what was not delivered yet may go, and is counted
    has_steps: ClassVar[bool] = True  # whether it may also strike at a marked step
    is_agent_expected: ClassVar[bool] = False  # to be started again when it ends meanwhile

    def needs(self, scene: Scene) -> str:
        """Say what is missing here; empty when the fault can be made."""
        return ""

    @abstractmethod
    def inject(self, scene: Scene, dice: random.Random) -> str:
        """Make the trouble; gives what exactly was done, for the line of the round."""

    @abstractmethod
    def heal(self, scene: Scene) -> None:
        """Take it away: what the round needs to go on runs again."""

    def judge(self, scene: Scene) -> list[str]:
        """Say what this fault in particular should have left behind and did not."""
        return []


def needs_root() -> str:
    """Say so when we are not root."""
    return "" if os.geteuid() == 0 else ROOT_ONLY


def needs_program(*names: str) -> str:
    """Name the first program that is not installed."""
    missing = next((name for name in names if shutil.which(name) is None), "")
    return f"needs {missing}" if missing else ""


def has_said(log: Path, *words: str, since: int = 0) -> bool:
    """Whether a log holds, from a byte on, a line with all the words."""
    lines = log.read_bytes()[since:].decode(errors="replace").splitlines()
    return any(all(word in line for word in words) for line in lines)
