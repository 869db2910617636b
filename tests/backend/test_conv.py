"""The convolution kernels against naive loops, and the CPU's own against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend import numpy_conv
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.ops import Ops
from tests import naive_images as naive

KERNELS = {"reference": Ops(np), "numpy": NumpyOps()}

# (N, H, W, C), out, kernel, stride, padding, dilation, groups
CASES = {
    "3x3": ((2, 5, 6, 3), 4, 3, 1, 1, 1, 1),
    "1x1": ((3, 4, 3, 5), 2, 1, 1, 0, 1, 1),
    "1x1 strided": ((2, 5, 4, 3), 2, 1, 2, 0, 1, 1),
    "valid": ((2, 7, 6, 2), 3, (5, 4), 1, 0, 1, 1),
    "valid, much smaller": ((2, 5, 5, 2), 3, 4, 1, 0, 1, 1),
    "stride": ((2, 7, 8, 2), 3, 3, (2, 3), 1, 1, 1),
    "stride beyond kernel": ((1, 9, 8, 2), 2, 2, 3, 0, 1, 1),
    "dilation": ((2, 8, 9, 2), 3, 3, 1, (2, 1), (2, 3), 1),
    "asymmetric": ((2, 5, 5, 2), 3, (2, 4), 1, ((0, 1), (1, 2)), 1, 1),
    "padding on the right alone": ((2, 3, 4, 2), 2, 2, 1, ((0, 0), (0, 1)), 1, 1),
    "everything at once": ((2, 9, 8, 4), 6, (3, 2), (2, 1), ((2, 0), (0, 3)), (1, 2), 2),
    "wide padding": ((1, 3, 3, 2), 2, 2, 1, 4, 1, 1),
    "groups": ((2, 5, 5, 6), 9, 3, 1, 1, 1, 3),
    "depthwise": ((2, 6, 5, 4), 4, 3, 1, 1, 1, 4),
    "depthwise, two filters each": ((2, 6, 5, 3), 6, 3, 2, 1, 1, 3),
    "one image, one pixel": ((1, 1, 1, 1), 1, 1, 1, 0, 1, 1),
    "one pixel, padded": ((1, 1, 1, 2), 3, 3, 1, 1, 1, 1),
    "windows that see padding alone": ((1, 1, 2, 1), 1, 2, 1, 1, 2, 1),
}


def arrays(case, dtype="float64", seed=0):
    shape, out, kernel, stride, padding, dilation, groups = case
    window = naive.window(kernel, stride, padding, dilation)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(dtype)
    weight = rng.standard_normal((out, *window.kernel, shape[3] // groups)).astype(dtype)
    bias = rng.standard_normal(out).astype(dtype)
    dy = rng.standard_normal((shape[0], *window.out_size(shape[1:3]), out)).astype(dtype)
    return x, weight, bias, dy, window, groups


def read_only(*values):
    for value in values:
        value.flags.writeable = False


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_against_loops(kernels, case):
    x, weight, bias, dy, window, groups = arrays(case)
    read_only(x, weight, bias, dy)
    y, res = kernels.conv2d(x, weight, bias, window, groups)
    np.testing.assert_allclose(y, naive.conv2d(x, weight, bias, window, groups), rtol=1e-12, atol=1e-12)
    expected = naive.conv2d_backward(dy, x, weight, window, groups)
    for mine, theirs in zip(kernels.conv2d_backward(dy, res), expected, strict=True):
        assert mine.flags.c_contiguous
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_float32_stays_float32_and_close(kernels, case):
    x, weight, bias, dy, window, groups = arrays(case, "float32")
    y, res = kernels.conv2d(x, weight, bias, window, groups)
    got = (y, *kernels.conv2d_backward(dy, res))
    expected = (
        naive.conv2d(x, weight, bias, window, groups),
        *naive.conv2d_backward(dy, x, weight, window, groups),
    )
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, rtol=3e-6, atol=1e-5)  # worst: a quarter of it


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("name", ["3x3", "1x1", "valid", "valid, much smaller", "stride", "groups"])
def test_non_contiguous_arrays_give_the_same(kernels, name):
    x, weight, bias, dy, window, groups = arrays(CASES[name])
    y, res = kernels.conv2d(x, weight, bias, window, groups)
    expected = (y, *kernels.conv2d_backward(dy, res))
    x = np.asfortranarray(x)
    weight = np.stack([weight, weight], axis=-1)[..., 0]
    dy = dy[::-1].transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3)[::-1]
    y, res = kernels.conv2d(x, weight, bias, window, groups)
    for mine, theirs in zip((y, *kernels.conv2d_backward(dy, res)), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kernels", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("groups", [1, 2])
def test_only_what_is_needed_is_computed(kernels, groups):
    x, weight, _bias, dy, window, groups = arrays(((2, 5, 5, 4), 4, 3, 1, 1, 1, groups))
    y, res = kernels.conv2d(x, weight, None, window, groups)
    np.testing.assert_allclose(y, naive.conv2d(x, weight, None, window, groups), rtol=1e-12, atol=1e-12)
    full = kernels.conv2d_backward(dy, res)
    for wanted in range(3):
        flags = {flag: i == wanted for i, flag in enumerate(("need_dx", "need_dw", "need_db"))}
        got = kernels.conv2d_backward(dy, res, **flags)
        for i in range(3):
            if i == wanted:
                np.testing.assert_array_equal(got[i], full[i])
            else:
                assert got[i] is None


@st.composite
def drawn_cases(draw):
    groups = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    least = [max(1, dilation[a] * (kernel[a] - 1) + 1 - sum(padding[a])) for a in (0, 1)]
    size = [n + draw(st.integers(0, 6)) for n in least]
    channels, out = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 5))
    return (draw(st.integers(1, 7)), *size, channels), out, kernel, stride, padding, dilation, groups


@settings(max_examples=150, deadline=None)
@given(drawn_cases(), st.sampled_from([1, 2000, 1 << 20]), st.booleans())
def test_the_cpu_kernels_equal_the_reference(case, block_bytes, with_bias):
    """To the rounding of float64; whatever the number of images in a block, a short last one included."""
    x, weight, bias, dy, window, groups = arrays(case)
    bias = bias if with_bias else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_conv, "_BLOCK_BYTES", block_bytes)
        y, res = KERNELS["numpy"].conv2d(x, weight, bias, window, groups)
        got = (y, *KERNELS["numpy"].conv2d_backward(dy, res))
    y, res = KERNELS["reference"].conv2d(x, weight, bias, window, groups)
    for mine, theirs in zip(got, (y, *KERNELS["reference"].conv2d_backward(dy, res)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)


def test_memory_of_the_cpu_kernel_does_not_grow_with_the_batch():
    """The columns of a whole batch would take 9 times the input; a block of them takes a fixed number of bytes."""
    import tracemalloc

    x, weight, bias, dy, window, _ = arrays(((64, 32, 32, 16), 16, 3, 1, 1, 1, 1), "float32")
    tracemalloc.start()
    try:
        y, res = KERNELS["numpy"].conv2d(x, weight, bias, window)
        results = KERNELS["numpy"].conv2d_backward(dy, res)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < y.nbytes + sum(r.nbytes for r in results) + 4 * numpy_conv._BLOCK_BYTES
