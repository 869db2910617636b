"""The compiled pooling kernels against the reference in float64, on random shapes and windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops
from layernet.backend.window import Window

COMPILED, REFERENCE = CompiledOps(), Ops(np)
small = st.integers(1, 4)


@st.composite
def cases(draw, dilated=True):
    """(shape, window): odd channels, one pixel, padding, clipped windows at the end, unequal sides."""
    size, pairs = st.integers(1, 11), st.tuples(small, small)
    shape = (draw(st.integers(1, 3)), draw(size), draw(size), draw(st.sampled_from([1, 3, 8, 16, 19, 33])))
    kernel, stride = draw(st.sampled_from([None, (2, 2), (3, 3)])) or draw(pairs), draw(pairs)
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if dilated else (1, 1)
    padding = tuple((draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))) for k in kernel)
    window = Window(kernel, stride, padding, dilation)
    if draw(st.booleans()):
        window = window.covering(shape[1:3])
    assume(min(window.out_size(shape[1:3])) > 0)
    return shape, window


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_max_as_the_reference_ties_and_all(case, seed):
    shape, window = case
    x = np.random.default_rng(seed).integers(-4, 0, shape).astype(np.float32)
    agree("max_pool2d", x, window, seed)


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1), st.booleans())
def test_max_and_relu_as_the_reference(case, seed, nan):
    shape, window = case
    x = np.random.default_rng(seed).integers(-3, 3, shape).astype(np.float32)
    if nan:
        x.flat[seed % x.size] = np.nan
    agree("max_pool2d", x, window, seed)
    agree("max_pool2d_relu", x, window, seed)


def agree(name, x, window, seed):
    """Forward and backward of an operation as the reference's in float64; sums of at most 16 numbers about 1."""
    y, res = getattr(COMPILED, name)(x, window)
    expected, reference_res = getattr(REFERENCE, name)(x.astype(np.float64), window)
    np.testing.assert_array_equal(y, expected)
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(np.float32)
    dx = getattr(COMPILED, f"{name}_backward")(dy, res)
    expected = getattr(REFERENCE, f"{name}_backward")(dy.astype(np.float64), reference_res)
    np.testing.assert_allclose(dx, expected, rtol=0, atol=4e-6)


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_avg_as_the_reference(case, seed):
    shape, window = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    divisor = rng.integers(1, 9, (*window.out_size(shape[1:3]), 1)).astype(np.float32)
    y, res = COMPILED.avg_pool2d(x, window, divisor)
    expected, reference_res = REFERENCE.avg_pool2d(x.astype(np.float64), window, divisor)
    np.testing.assert_allclose(y, expected, rtol=0, atol=4e-6)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx = COMPILED.avg_pool2d_backward(dy, res)
    np.testing.assert_allclose(
        dx, REFERENCE.avg_pool2d_backward(dy.astype(np.float64), reference_res), rtol=0, atol=4e-6
    )


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 7, 5, 19), (2, 64, 64, 32)])
def test_global_avg_as_the_reference(shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32) + 10
    y, res = COMPILED.global_avg_pool2d(x)
    np.testing.assert_allclose(y, REFERENCE.global_avg_pool2d(x.astype(np.float64))[0], rtol=1e-6)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx = COMPILED.global_avg_pool2d_backward(dy, res)
    np.testing.assert_allclose(dx, REFERENCE.global_avg_pool2d_backward(dy, x.shape), rtol=1e-6)


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (1, 4), (5, 2)])
@pytest.mark.parametrize("channels", [1, 16, 20])
def test_windows_that_tile_the_image(kernel, channels):
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 0, (2, 3 * kernel[0], 2 * kernel[1], channels)).astype(np.float32)
    window = Window(kernel, kernel)
    y, res = COMPILED.max_pool2d(x, window)
    expected, reference_res = REFERENCE.max_pool2d(x, window)
    np.testing.assert_array_equal(y, expected)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    np.testing.assert_array_equal(
        COMPILED.max_pool2d_backward(dy, res), REFERENCE.max_pool2d_backward(dy, reference_res)
    )


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_nan_wins_wherever_it_is(kernel):
    window = Window((kernel, kernel))
    for tap in range(kernel * kernel):
        x = np.ones((1, kernel, kernel, 5), dtype=np.float32)
        x.reshape(-1, 5)[tap, 2] = np.nan
        y, res = COMPILED.max_pool2d(x, window)
        assert np.isnan(y[0, 0, 0]).tolist() == [False, False, True, False, False]
        assert COMPILED.max_pool2d_backward(np.ones_like(y), res).sum(axis=(0, 1, 2)).tolist() == [1, 1, 0, 1, 1]


def test_infinities_compete():
    x = np.full((1, 2, 2, 3), -np.inf, dtype=np.float32)
    y, res = COMPILED.max_pool2d(x, Window((2, 2)))
    assert (y == -np.inf).all()
    dx = COMPILED.max_pool2d_backward(np.ones_like(y), res)
    assert (dx[0, 0, 0] == 1).all()
    assert dx.sum() == 3
