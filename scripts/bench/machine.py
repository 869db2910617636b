"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def with_threads(count: int) -> dict[str, str]:
    """The environment of a process in which every library has so many threads. They read it when they are imported."""
    return dict.fromkeys(_THREADS, str(count))


def cores() -> int:
    """The cores that this process may use: two processors that share one count once, as for PyTorch."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = [Path(topology.format(number)) for number in os.sched_getaffinity(0)]
    return len({file.read_text() if file.exists() else str(file) for file in files})


def machine() -> dict[str, str]:
    """Processor, cores, versions and the day."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    found = {
        "date": date.today().isoformat(),
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": str(cores()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in ("numpy", "numba", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def described() -> str:
    """The same in a line."""
    facts = machine()
    packages = ", ".join(f"{name} {facts[name]}" for name in ("python", "numpy", "numba", "torch"))
    return f"{facts['date']}  {facts['processor']}, {facts['cores']} cores  {facts['system']}  {packages}"
