"""The compiled rectifiers and the gradient of a table against the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops

COMPILED, REFERENCE = CompiledOps(), Ops(np)
UNIT = 2.0**-24
FUNCTIONS = {
    "hardtanh": ("hardtanh", (-1.0, 2.0), 1),
    "elu": ("elu", (1.5, 1.0), 5),
    "selu": ("elu", (1.67, 1.05), 6),
    "hardswish": ("hardswish", (), 5),
    "softplus": ("softplus", (1.0, 20.0), 6),
    "softplus, steep": ("softplus", (3.0, 30.0), 8),
    "log_sigmoid": ("log_sigmoid", (), 6),
    "mish": ("mish", (), 8),
}
"""The kernel, its options, and its bound: in units of relative precision of max(|y|, min(|x|, 1))."""


def numbers():
    """All magnitudes, both signs; few near each other."""
    magnitudes = np.concatenate([np.geomspace(1e-30, 1e30, 2001), np.linspace(0, 100, 40001)])
    return np.concatenate([magnitudes, -magnitudes, [0.0]]).astype(np.float32)


@pytest.mark.parametrize(("name", "options", "units"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_values_and_slopes_everywhere(name, options, units):
    x = numbers()
    y, res = getattr(COMPILED, name)(x, *options)
    exact, exact_res = getattr(REFERENCE, name)(x.astype(np.float64), *options)
    allowed = units * UNIT * np.maximum(abs(exact), np.minimum(abs(x), 1)) + 1e-37
    assert (abs(y - exact) <= allowed).all()
    dx = getattr(COMPILED, f"{name}_backward")(np.ones_like(x), res)
    exact = getattr(REFERENCE, f"{name}_backward")(np.ones(x.shape), exact_res)
    assert np.isfinite(dx).all()
    assert abs(dx - exact).max() <= 12 * UNIT


@pytest.mark.parametrize(("name", "options", "units"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_nan_stays(name, options, units):
    y, res = getattr(COMPILED, name)(np.array([1.0, np.nan, 2.0], dtype=np.float32), *options)
    assert np.isnan(y).tolist() == [False, True, False]
    dx = getattr(COMPILED, f"{name}_backward")(np.array([np.nan, 1, 1], dtype=np.float32), res)
    assert np.isnan(dx)[0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=0, max_size=3),
    st.integers(1, 70),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_prelu(places, channels, need_dx, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, *places, channels)).astype(np.float32)
    weight = rng.standard_normal(channels).astype(np.float32)
    y, res = COMPILED.prelu(x, weight)
    exact, exact_res = REFERENCE.prelu(x.astype(np.float64), weight.astype(np.float64))
    np.testing.assert_allclose(y, exact, rtol=UNIT, atol=0)
    dx, dw = COMPILED.prelu_backward(dy, res, need_dx=need_dx)
    exact_dx, exact_dw = REFERENCE.prelu_backward(dy.astype(np.float64), exact_res)
    terms = abs(dy * np.minimum(x, 0, dtype=np.float64)).reshape(-1, channels).sum(axis=0)
    assert (abs(dw - exact_dw) <= 10 * UNIT * terms).all()  # of 3000 draws the worst is 2.5: sums are of short pieces
    if need_dx:
        np.testing.assert_allclose(dx, exact_dx, rtol=UNIT, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 40),
    st.integers(0, 50),
    st.sampled_from(["int64", "int32", "uint8"]),
    st.integers(0, 2**32 - 1),
)
def test_gradient_of_a_table(rows, features, count, dtype, seed):
    rng = np.random.default_rng(seed)
    weight, x = rng.standard_normal((rows, features)).astype(np.float32), rng.integers(0, rows, count).astype(dtype)
    dy = rng.standard_normal((count, features)).astype(np.float32)
    _, res = COMPILED.embedding(x, weight)
    exact = REFERENCE.embedding_backward(dy.astype(np.float64), res)
    np.testing.assert_allclose(COMPILED.embedding_backward(dy, res), exact, rtol=0, atol=count * 4e-7)
