"""Compiled sums of arrays, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 16, 16, 33)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_add(shape, dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    y = CompiledOps().add(a, b)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, a + b)
    strided = np.repeat(b, 2, axis=-1)[..., ::2]
    np.testing.assert_array_equal(CompiledOps().add(a, strided), a + b)
    CompiledOps().add_to(a, strided)
    np.testing.assert_array_equal(a, y)
