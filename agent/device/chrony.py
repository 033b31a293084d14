"""What chrony says of the clock: `chronyc -c tracking`, where chrony is installed.

systemd-timesyncd and ntpd need no such question: they keep the kernel's own state up to date,
which delivery/clockstate.py reads. chrony does so too, but its own bound is much closer.
Fields: https://chrony-project.org/doc/4.6/chronyc.html, command `tracking`, in their order.
"""

import math
import shutil
import subprocess
from collections.abc import Mapping

TIMEOUT_S = 2.0
_NAME, _SYSTEM_S, _ROOT_DELAY_S, _ROOT_DISPERSION_S, _LEAP = 1, 4, 10, 11, 13
_FIELDS = 14
_RADIO = ("GPS", "PPS", "NMEA", "GNSS", "SHM")  # reference ids of receivers of satellites


def tracking() -> Mapping[str, object] | None:
    """Ask chrony; None when it is not there, does not answer or is not synchronised."""
    program = shutil.which("chronyc")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-c", "tracking"],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parsed(done.stdout.decode("ascii", "replace")) if done.returncode == 0 else None


def parsed(line: str) -> Mapping[str, object] | None:
    """Give the envelope's clock field of a line; the error is chrony's bound, rounded up to ms."""
    parts = line.strip().split(",")
    if len(parts) < _FIELDS or parts[_LEAP] == "Not synchronised":
        return None
    try:
        system_s, delay_s, dispersion_s = (
            float(parts[place]) for place in (_SYSTEM_S, _ROOT_DELAY_S, _ROOT_DISPERSION_S)
        )
        error_ms = math.ceil(1000 * (abs(system_s) + dispersion_s + delay_s / 2))
    except (ValueError, OverflowError):
        return None
    is_radio = parts[_NAME].upper().startswith(_RADIO)
    return {"source": "gps" if is_radio else "ntp", "error_ms": max(0, error_ms)}
