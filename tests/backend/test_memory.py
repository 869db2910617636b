"""Freed memory that stays with the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource
import sys

import numpy as np

from layernet.backend.allocation import keep_pages

if sys.argv[1] == "keep":
    assert keep_pages()


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


for _ in range(3):
    np.ones(5 << 20)
before = faults()
for _ in range(10):
    np.ones(5 << 20)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory")
def test_large_arrays_come_from_memory_that_was_freed() -> None:
    def faults(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", CODE, how],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"},
        )
        return int(done.stdout)

    assert faults("keep") < 100 < faults("leave")
