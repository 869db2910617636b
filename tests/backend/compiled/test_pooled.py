"""Convolution and the max pool behind it, in one: as the reference in float64, on whole numbers, which are exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled import pooled
from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops
from layernet.backend.window import Window
from tests.backend.compiled.test_pool import cases as pools

COMPILED, REFERENCE = CompiledOps(), Ops(np)
AT_THE_START = {"need_dx": False}


@st.composite
def convolutions(draw):
    """(x's shape, filters' shape, window): of few channels, as they are before the first pool."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in kernel)
    size = draw(st.tuples(st.integers(5, 15), st.integers(5, 15)))
    ins, outs = draw(st.integers(1, 9)), draw(st.sampled_from([1, 5, 16, 20, 32, 37]))
    return (draw(st.integers(1, 4)), *size, ins), (outs, *kernel, ins), Window(kernel, stride, padding)


@settings(max_examples=150, deadline=None)
@given(
    convolutions(), pools(), st.booleans(), st.booleans(), st.sampled_from([{}, AT_THE_START]), st.sampled_from([1, 3]),
    st.integers(0, 99),
)  # fmt: skip
@example(
    ((3, 12, 11, 3), (20, 5, 5, 3), Window((5, 5), padding=((2, 2), (2, 2)))), (None, Window((3, 3), (2, 2))), True,
    True, AT_THE_START, 3, 0,
)  # fmt: skip
def test_as_the_reference_exactly(convolution, pooling, bias, relu, needs, threads, seed):
    shape, filters, window = convolution
    pool = pooling[1]
    size = window.out_size(shape[1:3])
    assume(min(pool.out_size(size)) > 0 and min(map(min, pool.counts(size))) > 0)
    rng = np.random.default_rng(seed)

    def whole(*shape):
        return rng.integers(-3, 4, shape).astype(np.float32)

    x, w, b = whole(*shape), whole(*filters), whole(filters[0]) if bias else None
    dy = whole(shape[0], *pool.out_size(size), filters[0])
    found = {}
    for ops, dtype in ((COMPILED, np.float32), (REFERENCE, np.float64)):
        cast = [a if a is None else a.astype(dtype) for a in (x, w, b)]
        with ops.limited(threads):
            y, res = ops.conv2d_max_pool2d(*cast, window, 1, pool, relu)
            found[ops] = y, *ops.conv2d_max_pool2d_backward(dy.astype(dtype), res, **needs)
    for name, ours, exact in zip(("y", "dx", "dw", "db"), found[COMPILED], found[REFERENCE], strict=True):
        if exact is None:
            assert ours is None, name
        else:
            np.testing.assert_array_equal(ours, exact, err_msg=name)
            assert ours.dtype == np.float32


def net_input(channels=3):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 16, 16, channels), dtype=np.float32)
    w = rng.standard_normal((20, 5, 5, channels), dtype=np.float32)
    return x, w, None, Window((5, 5), padding=((2, 2), (2, 2))), 1, Window((2, 2), (2, 2)), True


def test_what_lies_between_is_never_whole(monkeypatch):
    """The first layer of a net goes by the fused kernels, both ways: what they replace is not called."""

    def refuse(*arguments, **settings):
        raise AssertionError("an image was convolved into memory")

    monkeypatch.setattr(CompiledOps, "conv2d", refuse)
    monkeypatch.setattr(CompiledOps, "conv2d_backward", refuse)
    monkeypatch.setattr(pooled, "maximum_gradient", refuse)
    y, res = COMPILED.conv2d_max_pool2d(*net_input())
    COMPILED.conv2d_max_pool2d_backward(np.ones_like(y), res, need_dx=False)


@pytest.mark.parametrize("channels", [3, 19])
def test_nan_of_an_image_stays_in_it(channels):
    x, *more = net_input(channels)
    x[1, 3, 3, 1] = np.nan
    y, res = COMPILED.conv2d_max_pool2d(x, *more)
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).any()
    dy = np.ones_like(y)
    dy[1] = 0
    _, dw, db = COMPILED.conv2d_max_pool2d_backward(dy, res, need_dx=False)
    assert np.isnan(dw).any()  # 0 times NaN
    assert np.isfinite(db).all()
