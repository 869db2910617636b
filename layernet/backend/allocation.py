"""The host's memory: how much there is, and that what a step gives back stays with the process, for the next step.

Every step asks for the same large arrays as the one before. By default glibc maps each of them anew and unmaps it when
it is freed, so the kernel clears and enters every page of it in every step: 19 000 page faults in a step of ResNet-20,
a fifth of its time. With the thresholds raised it keeps the pages; the peak of the memory in use is the same.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_SIZES = (1 << 30, 1 << 25)  # the second is the most that older versions take


@cache
def keep_pages() -> bool:
    """Ask the C library of this process to keep what is freed; whether it does. It can be asked for by glibc alone.

    Left as it is where the environment sets one of the thresholds (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_,
    or GLIBC_TUNABLES).
    """
    chosen = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys()
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return any(mallopt(_MMAP_THRESHOLD, size) for size in _SIZES) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))


def available() -> int | None:
    """Bytes that this process may still take on the host, as far as can be told: None where nothing is.

    The least of what the system has to give (Linux), what a container's limit is (cgroup), and RLIMIT_AS.
    """
    known = [_number("/proc/meminfo", r"MemAvailable:\s+(\d+) kB", 1024)]
    known += [_number(f"/sys/fs/cgroup/{name}", r"(\d+)") for name in ("memory.max", "memory/memory.limit_in_bytes")]
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        known.append(None if limit == resource.RLIM_INFINITY else limit)
    return min((each for each in known if each is not None), default=None)


def _number(file: str, pattern: str, unit: int = 1) -> int | None:
    try:
        with open(file, encoding="ascii") as stream:
            found = re.search(pattern, stream.read(4096))
    except OSError:
        return None
    return int(found[1]) * unit if found else None
