"""Compiled transposed and grouped convolution against the reference in float64, on random shapes and windows."""

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
    groups = draw(st.sampled_from([1, 2, 3]))
    shape = (draw(st.integers(1, 3)), draw(size), draw(size), groups * draw(st.sampled_from([1, 3, 16, 19])))
    edges = st.tuples(st.integers(0, 2), st.integers(0, 2))
    window = Window(draw(pairs), draw(pairs), (draw(edges), draw(edges)), draw(st.sampled_from([(1, 1), (2, 1)])))
    assume(min(window.out_size(shape[1:3])) > 0)
    return shape, window, groups, groups * draw(st.sampled_from([1, 2, 17]))


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
