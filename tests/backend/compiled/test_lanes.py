"""The kernels of other processors, forced on this one: of 4 floats, which any has, and of 8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layernet.backend import compiled

pytestmark = pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
ROOT = Path(__file__).parents[3]


HERE = "tests/backend/compiled"
OURS = f"{HERE}/test_lanes.py"


def run(lanes: int, *arguments: str, examples: str) -> None:
    """Tests of the compiled kernels in a process where they have so many lanes."""
    processor = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""} if lanes == 4 else {}  # no FMA, no AVX
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **processor, "LAYERNET_LANES": str(lanes), "LAYERNET_EXAMPLES": examples},
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("lanes", [4, 8])
def test_kernels_of_so_many_lanes_compute_the_same(lanes: int) -> None:
    run(lanes, f"{HERE}/test_kernels.py", examples="12")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lanes", [4, 8])
def test_all_that_is_tested_of_kernels_holds_with_so_many_lanes(lanes: int) -> None:
    run(lanes, HERE, f"--ignore={OURS}", examples="1000")


def test_lanes_that_no_processor_has_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from layernet.backend.device import get_device; get_device('cpu', 'numba')"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "LAYERNET_LANES": "5"},
    )
    assert done.returncode == 1
    assert "LAYERNET_LANES must be 4, 8 or 16, got '5'" in done.stderr
