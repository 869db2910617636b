"""The pooling kernels against naive loops, and the CPU's own against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend import numpy_pool
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.ops import Ops
from tests import naive_images as naive

KERNELS = {"reference": Ops(np), "numpy": NumpyOps()}

# (N, H, W, C), kernel, stride, padding, dilation
CASES = {
    "2/2": ((2, 6, 4, 3), 2, 2, 0, 1),
    "3/2": ((2, 7, 9, 2), 3, 2, 0, 1),
    "overlapping": ((2, 5, 6, 2), 3, 1, 1, 1),
    "gaps": ((1, 8, 7, 2), 2, 3, 0, 1),
    "odd, clipped at the end": ((2, 5, 7, 3), (3, 2), 2, ((0, 1), (0, 1)), 1),
    "unequal sides": ((2, 7, 6, 2), (1, 4), (2, 1), ((0, 0), (2, 1)), 1),
    "dilation": ((2, 8, 7, 2), 3, 2, 1, (2, 1)),
    "whole image": ((1, 4, 5, 2), (4, 5), 1, 0, 1),
    "one pixel": ((1, 1, 1, 1), 1, 1, 0, 1),
}


def batch(shape, seed=0, dtype="float64"):
    """Few distinct values, so that ties are everywhere; negative ones too, so that padding would show."""
    return np.random.default_rng(seed).integers(-4, 0, shape).astype(dtype)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_max_against_loops_with_ties(kernels, case):
    shape, *geometry = case
    window, x = naive.window(*geometry), batch(shape)
    dy = np.random.default_rng(1).standard_normal((len(x), *window.out_size(shape[1:3]), shape[3]))
    x.flags.writeable = dy.flags.writeable = False
    y, res = kernels.max_pool2d(x, window)
    expected_y, expected_dx = naive.max_pool2d(x, dy, window)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(kernels.max_pool2d_backward(dy, res), expected_dx, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_max_and_relu_against_loops_with_ties(kernels, case):
    shape, *geometry = case
    window, x = naive.window(*geometry), batch(shape) + 2.0
    dy = np.random.default_rng(1).standard_normal((len(x), *window.out_size(shape[1:3]), shape[3]))
    x.flags.writeable = dy.flags.writeable = False
    y, res = kernels.max_pool2d_relu(x, window)
    expected_y = naive.max_pool2d(x, dy, window)[0]
    expected_dx = naive.max_pool2d(x, dy * (expected_y > 0), window)[1]
    np.testing.assert_array_equal(y, np.maximum(expected_y, 0))
    np.testing.assert_allclose(kernels.max_pool2d_relu_backward(dy, res), expected_dx, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_avg_against_loops(kernels, case, dtype):
    shape, *geometry = case
    window, rng = naive.window(*geometry), np.random.default_rng(0)
    out = window.out_size(shape[1:3])
    x = rng.standard_normal(shape).astype(dtype)
    dy = rng.standard_normal((len(x), *out, shape[3])).astype(dtype)
    divisor = rng.integers(1, 5, (*out, 1)).astype(dtype)
    x.flags.writeable = dy.flags.writeable = False
    y, res = kernels.avg_pool2d(x, window, divisor)
    dx = kernels.avg_pool2d_backward(dy, res)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    for mine, theirs in zip((y, dx), naive.avg_pool2d(x, dy, window, divisor), strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("peak", ["max", "max_abs"])
@pytest.mark.parametrize("ties", ["first", "all"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_peaks_against_loops_with_ties(kernels, peak, ties, case):
    shape, *geometry = case
    window, rng = naive.window(*geometry), np.random.default_rng(0)
    x = rng.integers(-2, 3, shape).astype("float64")
    dy = rng.standard_normal((len(x), *window.out_size(shape[1:3]), shape[3]))
    x.flags.writeable = dy.flags.writeable = False
    y, res = kernels.peak_pool2d(x, window, peak, ties)
    expected_y, expected_dx = naive.peak_pool2d(x, dy, window, peak, ties)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_allclose(kernels.peak_pool2d_backward(dy, res), expected_dx, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("peak", ["max", "max_abs"])
def test_a_peak_does_not_swallow_nan(peak):
    x = np.array([[np.nan, 1.0, 5.0], [2.0, 3.0, np.nan]])[None, :, :, None]
    y, _ = KERNELS["reference"].peak_pool2d(x, naive.window((1, 2)), peak, "first")
    np.testing.assert_array_equal(y[0, :, :, 0], [[np.nan, 5.0], [3.0, np.nan]])


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
def test_max_of_minus_infinity_is_a_pixel_and_never_padding(kernels):
    x = np.full((1, 2, 2, 1), -np.inf, dtype="float32")
    window = naive.window(2, 1, 1)
    y, res = kernels.max_pool2d(x, window)
    assert np.all(y == -np.inf)
    dx = kernels.max_pool2d_backward(np.ones_like(y), res)
    assert dx.dtype == np.float32
    assert dx.sum() == y.size  # 9 windows, each with a pixel that gets its gradient
    np.testing.assert_array_equal(dx[0, :, :, 0], naive.max_pool2d(x, np.ones_like(y), window)[1][0, :, :, 0])


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
def test_nan_is_not_swallowed(kernels):
    x = np.zeros((1, 4, 4, 1))
    x[0, 3, 0, 0] = np.nan
    y, res = kernels.max_pool2d(x, naive.window(2, 2))
    np.testing.assert_array_equal(np.isnan(y[0, :, :, 0]), [[False, False], [True, False]])
    assert kernels.max_pool2d_backward(np.ones_like(y), res).sum() == 3  # the NaN's window gives nobody its gradient


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(5, 9), st.integers(5, 9), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 2))] * 2),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    block_bytes=st.sampled_from([1, 2000, 1 << 20]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_cpu_kernels_equal_the_reference_bit_for_bit(shape, kernel, stride, padding, dilation, block_bytes, dtype):
    window, x = naive.window(kernel, stride, padding, dilation), batch(shape, dtype=dtype)
    x = x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3)  # not contiguous
    expected, reference_res = KERNELS["reference"].max_pool2d(x, window)
    dy = np.random.default_rng(2).standard_normal(expected.shape).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_pool, "_BLOCK_BYTES", block_bytes)
        y, res = KERNELS["numpy"].max_pool2d(x, window)
        dx = KERNELS["numpy"].max_pool2d_backward(dy, res)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, KERNELS["reference"].max_pool2d_backward(dy, reference_res))
