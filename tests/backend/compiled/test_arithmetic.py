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


@pytest.mark.parametrize("places", [(1,), (3, 5), (4, 0)])
@pytest.mark.parametrize("widths", [(1,), (3, 16, 33), (40, 2)])
def test_side_by_side_and_apart_again(places, widths):
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((*places, width)).astype(np.float32) for width in widths]
    y = CompiledOps().concat(parts)
    np.testing.assert_array_equal(y, np.concatenate(parts, axis=-1))
    for found, part in zip(CompiledOps().cut(y, widths), parts, strict=True):
        np.testing.assert_array_equal(found, part)
        assert found.flags.c_contiguous
    strided = np.repeat(y, 2, axis=-1)[..., ::2]
    np.testing.assert_array_equal(CompiledOps().cut(strided, widths)[0], parts[0])


def test_arrays_that_do_not_fit_side_by_side_are_refused():
    a, b = np.ones((3, 4), np.float32), np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="dimension"):
        CompiledOps().concat([a, b])
