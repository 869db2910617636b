"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
