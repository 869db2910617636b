"""Kernels that numba compiles are tested where they can be used; CI has numba."""

from __future__ import annotations

import pytest

from layernet.backend import compiled

collect_ignore = [] if compiled.problem() is None else ["test_kernels.py"]


@pytest.fixture
def needs_numba() -> None:
    if problem := compiled.problem():
        pytest.skip(problem)
