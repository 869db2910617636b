"""Arrays made again find the pages of those before; whoever set the thresholds is left alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from layernet.backend.device import get_device
get_device("cpu", "numpy")
def use():
    a = np.ones(4_000_000, dtype="float32")
    b = a + a
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_pages_are_kept() -> None:
    assert faults() < 100
    assert faults(MALLOC_MMAP_THRESHOLD_="100000") > 100
