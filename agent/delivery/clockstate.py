"""What the kernel says of its own clock: synchronised or not, and how wrong at most.

Source: adjtimex(2), read only. chrony and ntpd both keep it up to date.
"""

import ctypes
import os
from collections.abc import Mapping
from functools import cache

from agent.core.errors import Unsupported

STA_UNSYNC = 0x40
TIME_ERROR = 5  # return value: not synchronised
UNKNOWN: Mapping[str, object] = {"source": "none", "error_ms": -1}

_long = ctypes.c_long
_FIELDS = (
    *(("modes", ctypes.c_uint), ("offset", _long), ("freq", _long), ("maxerror", _long)),
    *(("esterror", _long), ("status", ctypes.c_int), ("constant", _long), ("precision", _long)),
    *(("tolerance", _long), ("seconds", _long), ("fraction", _long), ("tick", _long)),
    *(("ppsfreq", _long), ("jitter", _long), ("shift", ctypes.c_int), ("stabil", _long)),
    *(("jitcnt", _long), ("calcnt", _long), ("errcnt", _long), ("stbcnt", _long)),
    *(("tai", ctypes.c_int), ("reserved", ctypes.c_int * 11)),
)


class _Timex(ctypes.Structure):
    _fields_ = _FIELDS


def kernel_clock() -> Mapping[str, object]:
    """Give the envelope's clock field: `ntp` with the largest error in ms, else `none` and -1."""
    try:
        state, status, max_error_us = _adjtimex()
    except Unsupported:
        return UNKNOWN
    if state == TIME_ERROR or status & STA_UNSYNC:
        return UNKNOWN
    return {"source": "ntp", "error_ms": -(-max_error_us // 1000)}


def _adjtimex() -> tuple[int, int, int]:
    timex = _Timex()  # modes 0: nothing is set
    try:
        state = _libc().adjtimex(ctypes.byref(timex))
    except (AttributeError, OSError) as error:
        raise Unsupported("adjtimex: not in this libc") from error
    if state < 0:
        raise Unsupported(f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return state, timex.status, timex.maxerror


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
