"""The compiled depthwise convolution against the reference in float64, on random shapes and windows."""

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
    size = st.integers(1, 9)
    shape = (draw(st.integers(1, 3)), draw(size), draw(size), draw(st.sampled_from([2, 3, 16, 19, 40])))
    edges = st.tuples(st.integers(0, 2), st.integers(0, 2))
    window = Window(draw(pairs), draw(pairs), (draw(edges), draw(edges)), draw(pairs))
    assume(min(window.out_size(shape[1:3])) > 0)
    return shape, window


@settings(max_examples=150, deadline=None)
@given(cases(), st.booleans(), st.integers(0, 2**32 - 1))
def test_as_the_reference(case, biased, seed):
    shape, window = case
    rng = np.random.default_rng(seed)
    channels = shape[3]
    x = rng.standard_normal(shape).astype(np.float32)
    weight = rng.standard_normal((channels, *window.kernel, 1)).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32) if biased else None
    y, res = COMPILED.conv2d(x, weight, bias, window, channels)
    exact, exact_res = REFERENCE.conv2d(x.astype(np.float64), weight.astype(np.float64), bias, window, channels)
    np.testing.assert_allclose(y, exact, rtol=0, atol=1e-5)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    exact_parts = REFERENCE.conv2d_backward(dy.astype(np.float64), exact_res)
    for part, wanted in zip(COMPILED.conv2d_backward(dy, res), exact_parts, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=4e-5)
