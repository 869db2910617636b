"""Compiled transposed, grouped and dilated convolution against the reference in float64, on random shapes."""

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
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def cases(draw):
    size = st.integers(1, 8)
    groups = draw(st.sampled_from([1, 2, 3, 8]))
    shape = (draw(st.integers(1, 3)), draw(size), draw(size), groups * draw(st.sampled_from([1, 3, 4, 16, 19])))
    edges = st.tuples(st.integers(0, 2), st.integers(0, 2))
    window = Window(
        draw(pairs), draw(pairs), (draw(edges), draw(edges)), draw(st.sampled_from([(1, 1), (2, 1), (3, 2), (1, 4)]))
    )
    assume(min(window.out_size(shape[1:3])) > 0)
    return shape, window, groups, groups * draw(st.sampled_from([1, 2, 5, 17]))


def compare(ours, exact, terms):
    for part, wanted in zip(ours, exact, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=2e-6 * terms**0.5 + 1e-5)


@settings(max_examples=80, deadline=None)
@given(cases(), st.booleans(), st.integers(0, 2**32 - 1))
def test_both_as_the_reference(case, transposed, seed):
    shape, window, groups, outs = case
    rng = np.random.default_rng(seed)
    places = (shape[0], *window.out_size(shape[1:3]), outs)
    small, large = rng.standard_normal(places).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    weight = rng.standard_normal((outs, *window.kernel, shape[3] // groups)).astype(np.float32)
    bias = rng.standard_normal(shape[3] if transposed else outs).astype(np.float32)
    name, x, dy, size = "conv2d", large, small, ()
    if transposed:
        name, x, dy, size = "conv_transpose2d", small, large, (shape[1:3],)
    y, res = getattr(COMPILED, name)(x, weight, bias, window, *size, groups)
    exact, exact_res = getattr(REFERENCE, name)(
        x.astype(np.float64), weight.astype(np.float64), bias, window, *size, groups
    )
    compare([y], [exact], weight.size)
    ours = getattr(COMPILED, f"{name}_backward")(dy, res)
    compare(ours, getattr(REFERENCE, f"{name}_backward")(dy.astype(np.float64), exact_res), 10 * x.size)


@pytest.mark.parametrize(("groups", "ins", "outs"), [(5, 3, 4), (21, 1, 2), (16, 2, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_groups_of_few_channels_keep_a_nan_to_themselves(groups, ins, outs, stride):
    rng = np.random.default_rng(0)
    window = Window((3, 3), (stride, stride), ((1, 1), (1, 1)))
    x = rng.standard_normal((2, 7, 6, groups * ins)).astype(np.float32)
    weight = rng.standard_normal((groups * outs, 3, 3, ins)).astype(np.float32)
    x[1, 3, 2, ins] = np.nan
    y, res = COMPILED.conv2d(x, weight, None, window, groups)
    exact, exact_res = REFERENCE.conv2d(x, weight, None, window, groups)
    assert (np.isnan(y) == np.isnan(exact)).all()
    assert np.isnan(y).any()
    dy = np.ones_like(y)
    dy[0, 2, 1, outs] = np.nan
    for part, wanted in zip(COMPILED.conv2d_backward(dy, res), REFERENCE.conv2d_backward(dy, exact_res), strict=True):
        # what is beside the image or between strided places is multiplied by zeros here, and left out there
        assert np.isnan(part)[np.isnan(wanted)].all()
        assert np.isnan(part).any()
        assert not np.isnan(part).all()


@pytest.mark.parametrize("channels", [3, 17])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_nan_goes_through_a_dilated_convolution(channels, stride):
    rng = np.random.default_rng(0)
    window = Window((3, 3), (stride, stride), ((2, 2), (2, 2)), (2, 2))
    x = rng.standard_normal((2, 9, 8, channels)).astype(np.float32)
    weight = rng.standard_normal((5, 3, 3, channels)).astype(np.float32)
    x[1, 4, 4, 1] = np.nan
    y, res = COMPILED.conv2d(x, weight, None, window)
    exact, exact_res = REFERENCE.conv2d(x, weight, None, window)
    dy = np.ones_like(y)
    dy[0, 1, 1, 2] = np.nan
    ours = (y, *COMPILED.conv2d_backward(dy, res))
    for part, wanted in zip(ours, (exact, *REFERENCE.conv2d_backward(dy, exact_res)), strict=True):
        assert np.isnan(wanted).any()
        assert np.isnan(part)[np.isnan(wanted)].all()
    assert not np.isnan(y[0]).any()


def test_one_pixel_under_a_dilated_window():
    """The bounds are seven to nine times what is found: units in the last place of numbers up to 60."""
    window = Window((3, 3), (1, 1), ((4, 4), (4, 4)), (4, 4))
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((1, 1, 1, 19), (7, 3, 3, 19)))
    y, res = COMPILED.conv2d(x, weight, None, window)
    np.testing.assert_allclose(y[0, 0, 0], weight[:, 1, 1] @ x[0, 0, 0], rtol=0, atol=2e-6)
    dx, dw, _ = COMPILED.conv2d_backward(y, res)
    np.testing.assert_allclose(dx[0, 0, 0], y[0, 0, 0] @ weight[:, 1, 1], rtol=0, atol=2e-5)
    wanted = np.zeros_like(weight)
    wanted[:, 1, 1] = np.outer(y[0, 0, 0], x[0, 0, 0])
    np.testing.assert_allclose(dw, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 7])
def test_windows_that_see_nothing_of_the_image(groups, dilation):
    window = Window((2, 2), (50, 50), ((40, 0), (40, 0)), (dilation, dilation))
    x, weight = np.ones((2, 1, 3, 21), np.float32), np.ones((7, 2, 2, 21 // groups), np.float32)
    y, res = COMPILED.conv2d(x, weight, np.arange(7, dtype=np.float32), window, groups)
    assert (y == np.arange(7)).all()
    dx, dw, _ = COMPILED.conv2d_backward(y, res)
    assert not dx.any()
    assert not dw.any()
