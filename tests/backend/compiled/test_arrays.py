"""Where arrays that kernels write begin."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from layernet.backend.compiled.arrays import empty, takes


@pytest.mark.parametrize("shape", [(3,), (2, 5, 7), (1 << 14,), (40, 33, 31, 3), (1 << 10, 129)])
def test_large_arrays_begin_a_cache_line(shape):
    kept = [empty(shape) for _ in range(5)]  # alive side by side: malloc cannot give the same place again
    for number, array in enumerate(kept):
        assert array.shape == shape
        assert takes(array)
        assert array.flags.writeable
        if array.nbytes >= 1 << 16:
            assert array.ctypes.data % 64 == 0
        array[...] = number
    assert all((array == np.float32(number)).all() for number, array in enumerate(kept))
