"""No kernel reads or writes beyond its arrays: see guarded.py, run in a process of its own, since it may be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layernet.backend import compiled

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
def test_no_kernel_leaves_its_arrays() -> None:
    command = [sys.executable, str(Path(__file__).with_name("guarded.py"))]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}
    )
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"in {last}: exit code {done.returncode}\n{done.stderr[-3000:]}"
