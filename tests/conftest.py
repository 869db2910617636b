"""What all tests share."""

import os
import sys
from collections.abc import Iterator

import pytest

# one thread: the arrays of tests are small, and threads that wait for each other on a busy machine take seconds.
# Compiled kernels may have three where a test asks for them, so that shares of work are tested on any machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "3")

from layernet.backend import compiled

if compiled.problem() is None:
    import numba

    numba.set_num_threads(1)


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine where numba cannot be imported."""
    from layernet.backend.device import _find

    monkeypatch.setitem(sys.modules, "numba", None)
    compiled.problem.cache_clear()
    _find.cache_clear()
    yield
    monkeypatch.undo()
    compiled.problem.cache_clear()
    _find.cache_clear()
