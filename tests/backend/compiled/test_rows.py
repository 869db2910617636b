"""The compiled kernels of rows against the reference in float64, on random shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops

COMPILED, REFERENCE = CompiledOps(), Ops(np)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 70))
seeds = st.integers(0, 2**32 - 1)


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(shapes, seeds, st.sampled_from([1, 30]))
def test_softmax(shape, seed, scale):
    rng = np.random.default_rng(seed)
    x, dy = scale * draw(rng, *shape), draw(rng, *shape)
    y, res = COMPILED.softmax(x)
    exact, exact_res = REFERENCE.softmax(x.astype(np.float64))
    # beside exp's own error, that of x - max x, absolute, is one of the value, relative
    rtol = 1e-6 + 2.0**-24 * np.ptp(x)
    np.testing.assert_allclose(y, exact, rtol=rtol, atol=1e-37)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-6)  # found, of 960 draws: 2.4e-7
    exact = REFERENCE.softmax_backward(dy.astype(np.float64), exact_res)
    np.testing.assert_allclose(COMPILED.softmax_backward(dy, res), exact, rtol=0, atol=2e-6)


def test_softmax_of_classes_masked_out():
    x = np.full((2, 21), -np.inf, dtype=np.float32)
    x[:, 18] = [5, -1e30]
    np.testing.assert_array_equal(COMPILED.softmax(x)[0], np.eye(21)[[18, 18]])


@settings(max_examples=80, deadline=None)
@given(shapes, seeds, st.sampled_from([1, 30]))
def test_log_softmax(shape, seed, scale):
    rng = np.random.default_rng(seed)
    x, dy = scale * draw(rng, *shape), draw(rng, *shape)
    y, res = COMPILED.log_softmax(x)
    exact, exact_res = REFERENCE.log_softmax(x.astype(np.float64))
    np.testing.assert_allclose(y, exact, rtol=5e-7, atol=5e-7)  # worst of 960 draws: a third of it
    exact = REFERENCE.log_softmax_backward(dy.astype(np.float64), exact_res)
    np.testing.assert_allclose(COMPILED.log_softmax_backward(dy, res), exact, rtol=0, atol=2e-5)  # worst: 2.7e-6


def test_log_softmax_of_extremes():
    x = np.array([[3e38, -3e38, 0], [-np.inf, 0, 0], [np.nan, 0, 0]], dtype=np.float32)
    y, res = COMPILED.log_softmax(x)
    lowest = np.finfo(np.float32).min
    np.testing.assert_allclose(y[0], [0, lowest, -3e38], rtol=1.2e-7)
    np.testing.assert_allclose(y[1], [lowest, -np.log(2), -np.log(2)], rtol=1.2e-7)
    assert np.isnan(y[2]).all()
    assert np.isfinite(COMPILED.log_softmax_backward(np.ones_like(x), res)[:2]).all()


@settings(max_examples=80, deadline=None)
@given(shapes, seeds, st.booleans(), st.booleans(), st.sampled_from([0, 100]))
def test_layer_norm(shape, seed, scaled, shifted, mean):
    rng = np.random.default_rng(seed)
    x, dy = draw(rng, *shape) + mean, draw(rng, *shape)
    weight, bias = (draw(rng, shape[-1]) if wanted else None for wanted in (scaled, shifted))
    y, res = COMPILED.layer_norm(x, weight, bias, 1e-2)
    exact, exact_res = REFERENCE.layer_norm(x.astype(np.float64), weight, bias, 1e-2)
    # the mean's rounding, over the least deviation; worst of 1280 draws: 1.4e-6 and 1e-4, of gradients 6e-6 and 6e-4
    atol = 1e-5 if mean == 0 else 5e-4
    np.testing.assert_allclose(y, exact, rtol=0, atol=atol)
    exact_parts = REFERENCE.layer_norm_backward(dy.astype(np.float64), exact_res)
    for part, wanted in zip(COMPILED.layer_norm_backward(dy, res), exact_parts, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=5 * atol)


@settings(max_examples=80, deadline=None)
@given(shapes, seeds, st.booleans())
def test_rms_norm(shape, seed, scaled):
    rng = np.random.default_rng(seed)
    x, dy = draw(rng, *shape), draw(rng, *shape)
    weight = draw(rng, shape[-1]) if scaled else None
    y, res = COMPILED.rms_norm(x, weight, 1e-2)
    exact, exact_res = REFERENCE.rms_norm(x.astype(np.float64), weight, 1e-2)
    np.testing.assert_allclose(y, exact, rtol=0, atol=6e-6)  # worst of 960 draws: 9e-7
    exact_parts = REFERENCE.rms_norm_backward(dy.astype(np.float64), exact_res)
    for part, wanted in zip(COMPILED.rms_norm_backward(dy, res), exact_parts, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=2e-5)  # worst: 2.5e-6


def test_sums_over_many_rows_keep_their_digits():
    rng = np.random.default_rng(0)
    x, dy = draw(rng, 100_000, 16), 1 + draw(rng, 100_000, 16)
    _, res = COMPILED.layer_norm(x, None, None, 1e-5)
    _, dw, db = COMPILED.layer_norm_backward(dy, res)
    np.testing.assert_allclose(db, dy.sum(axis=0, dtype=np.float64), rtol=2e-6)
    xhat = REFERENCE.layer_norm(x.astype(np.float64), None, None, 1e-5)[0]
    np.testing.assert_allclose(dw, (xhat * dy).sum(axis=0), rtol=0, atol=3e-3)  # found: 5e-4, of sums up to 1000
