"""Too little memory, too little processor: control groups, version 1 or 2."""

import os
from pathlib import Path

from tests.crash.faults.fault import Fault, needs_root

GROUPS = Path("/sys/fs/cgroup")
NAME = "outpost-chaos"
MEMORY_BYTES = 256 << 20
CPU_PERIOD_US, CPU_QUOTA_US = 100_000, 20_000


class _Limited(Fault):
    lasts_s = (8.0, 15.0)
    is_agent_expected = True
    controller = ""
    limits: tuple = ()  # of version 1, then of version 2: file and text

    def needs(self, scene):
        if needs_root():
            return needs_root()
        return "" if self._parent() else f"needs the {self.controller} control group"

    def inject(self, scene, dice):
        self._group = self._parent() / f"{NAME}-{os.getpid()}"
        self._group.mkdir(exist_ok=True)
        name, text = self.limits[0 if (GROUPS / self.controller).is_dir() else 1]
        (self._group / name).write_text(text)
        for pid in (scene.processes["agent"].pid, *scene.children("agent")):
            (self._group / "cgroup.procs").write_text(str(pid))
        return self.what

    def heal(self, scene):
        for pid in (self._group / "cgroup.procs").read_text().split():
            (self._group.parent / "cgroup.procs").write_text(pid)
        self._group.rmdir()

    def _parent(self):
        if (GROUPS / self.controller / "cgroup.procs").exists():
            return GROUPS / self.controller
        granted = GROUPS / "cgroup.subtree_control"
        is_granted = granted.exists() and self.controller in granted.read_text().split()
        return GROUPS if is_granted else None


class Memory(_Limited):
    name = "memory-256m"
    about = "256 MiB for both processes of the agent"
    controller = "memory"
    what = "agent limited to 256 MiB"
    limits = (("memory.limit_in_bytes", str(MEMORY_BYTES)), ("memory.max", str(MEMORY_BYTES)))


class Cpu(_Limited):
    name = "cpu-20"
    about = "a fifth of one core for both processes of the agent"
    controller = "cpu"
    what = "agent limited to 20 % of a core"
    limits = (
        ("cpu.cfs_quota_us", str(CPU_QUOTA_US)),
        ("cpu.max", f"{CPU_QUOTA_US} {CPU_PERIOD_US}"),
    )


FAMILY = (Memory, Cpu)
