"""What the kernel says of the box and of our processes: /proc, /sys and statvfs.

Source: proc(5); kernel documentation of the thermal sysfs interface.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from agent.core.errors import StorageError

PROC = Path("/proc")
THERMAL = Path("/sys/class/thermal")
MILLI = 1000.0
LOWEST_C, HIGHEST_C = -60.0, 150.0  # outside: a zone that is off or not wired
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/<pid>/stat after the name in brackets, which may itself hold spaces.
_UTIME, _CSTIME = 11, 14


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process and its living descendants."""

    cpu_s: float  # includes children that have ended and were waited for
    rss_bytes: int  # pages shared between processes count in each
    processes: int


def usage(pid: int, proc: Path = PROC) -> Usage:
    """Sum over a process and its descendants; those that end meanwhile count for nothing."""
    cpu_s, rss_bytes, processes = 0.0, 0, 0
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        try:
            cpu_s += _cpu_s(proc / str(each))
            rss_bytes += _rss_bytes(proc / str(each))
            waiting += _children(proc / str(each))
        except (FileNotFoundError, ProcessLookupError):
            continue
        processes += 1
    return Usage(cpu_s, rss_bytes, processes)


def temperature_c(thermal: Path = THERMAL) -> float | None:
    """Give the hottest thermal zone in degrees Celsius; None where the board has none."""
    found = [_zone_c(path) for path in sorted(thermal.glob("thermal_zone*/temp"))]
    sound = [each for each in found if each is not None and LOWEST_C < each < HIGHEST_C]
    return max(sound, default=None)


def disk_free_bytes(folder: Path) -> int:
    """Give what may still be written below `folder` without being root.

    Raises:
        StorageError: there is no such folder.
    """
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        raise StorageError(f"{folder}: free space unknown: {error.strerror}") from error
    return disk.f_bavail * disk.f_frsize


def _cpu_s(process: Path) -> float:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[_UTIME : _CSTIME + 1]) / _TICKS_PER_S


def _rss_bytes(process: Path) -> int:
    return int((process / "statm").read_text().split()[1]) * _PAGE_BYTES


def _children(process: Path) -> list[int]:
    return [
        int(pid)
        for thread in (process / "task").iterdir()
        for pid in (thread / "children").read_text().split()
    ]


def _zone_c(path: Path) -> float | None:
    try:
        return int(path.read_text()) / MILLI
    except (OSError, ValueError):
        return None


def kernel_boot_id() -> str:
    """Name this start of the kernel; empty when it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
