"""The compiled losses against the reference in float64, on random shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.loss import _Known
from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.ops import Ops

COMPILED, REFERENCE = CompiledOps(), Ops(np)
seeds = st.integers(0, 2**32 - 1)
smoothings = st.sampled_from([0.0, 0.1, 1.0])


def weights(rng, size, weighted):
    return rng.choice([0.0, 0.5, 2.0], size).astype(np.float32) if weighted else None


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), seeds, st.sampled_from([None, -100, 0]), st.booleans(), smoothings)
def test_cross_entropy(rows, classes, seed, ignore_index, weighted, smoothing):
    rng = np.random.default_rng(seed)
    z, labels = 5 * rng.standard_normal((rows, classes)).astype(np.float32), rng.integers(-1, classes + 1, rows)
    if ignore_index == -100:
        labels[0] = -100
    options = {"weight": weights(rng, classes, weighted), "smoothing": smoothing, "ignore_index": ignore_index}
    (losses, counts), res = COMPILED.cross_entropy(z, labels, **options)
    (exact, exact_counts), exact_res = REFERENCE.cross_entropy(z.astype(np.float64), labels, **options)
    assert isinstance(res, _Known)
    np.testing.assert_allclose(losses, exact, rtol=1e-6, atol=2e-6)  # worst of 1200 draws: a quarter of it
    np.testing.assert_array_equal(counts, exact_counts)
    exact = REFERENCE.cross_entropy_backward(exact_res)
    np.testing.assert_allclose(COMPILED.cross_entropy_backward(res), exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_class_masked_out_counts_nothing(smoothing):
    z = np.array([[1, 2, -np.inf], [0, 0, -np.inf]], dtype=np.float32)
    weight = np.array([1, 1, 0], dtype=np.float32)
    (losses, _), res = COMPILED.cross_entropy(z, np.array([0, 1]), weight=weight, smoothing=smoothing)
    (exact, _), exact_res = REFERENCE.cross_entropy(z, np.array([0, 1]), weight=weight, smoothing=smoothing)
    np.testing.assert_allclose(losses, exact, rtol=1e-6)
    exact = REFERENCE.cross_entropy_backward(exact_res)
    np.testing.assert_allclose(COMPILED.cross_entropy_backward(res), exact, rtol=0, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), seeds, st.booleans(), smoothings)
def test_soft_cross_entropy(rows, classes, seed, weighted, smoothing):
    rng = np.random.default_rng(seed)
    z, q = 5 * rng.standard_normal((rows, classes)).astype(np.float32), rng.random((rows, classes)).astype(np.float32)
    options = {"weight": weights(rng, classes, weighted), "smoothing": smoothing}
    losses, res = COMPILED.soft_cross_entropy(z, q, **options)
    exact, exact_res = REFERENCE.soft_cross_entropy(z.astype(np.float64), q.astype(np.float64), **options)
    assert isinstance(res, _Known)
    scale = 1 + q.sum(axis=1, dtype=np.float64)
    assert (abs(losses - exact) <= 1e-5 * scale).all()  # worst of 2000 draws: 2e-6
    exact = REFERENCE.soft_cross_entropy_backward(exact_res)
    np.testing.assert_allclose(COMPILED.soft_cross_entropy_backward(res), exact, rtol=0, atol=2e-6 * scale.max())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=2), st.integers(1, 40), seeds, st.booleans(), st.sampled_from([1, 50]))
def test_binary_cross_entropy(places, columns, seed, weighted, scale):
    rng = np.random.default_rng(seed)
    z = scale * rng.standard_normal((*places, columns)).astype(np.float32)
    y, weight = rng.random(z.shape).astype(np.float32), weights(rng, columns, weighted)
    loss, res = COMPILED.binary_cross_entropy(z, y, weight)
    exact, exact_res = REFERENCE.binary_cross_entropy(z.astype(np.float64), y.astype(np.float64), weight)
    assert isinstance(res, _Known)
    assert loss == pytest.approx(exact, rel=5e-7, abs=2e-6)  # worst of 2000 draws: a quarter of it
    exact = REFERENCE.binary_cross_entropy_backward(exact_res)
    np.testing.assert_allclose(COMPILED.binary_cross_entropy_backward(res), exact, rtol=0, atol=2e-6)


def test_nan_stays():
    z = np.array([[1, np.nan], [0, 0]], dtype=np.float32)
    y = np.eye(2, dtype=np.float32)
    for loss, res in (COMPILED.soft_cross_entropy(z, y), COMPILED.cross_entropy(z, np.array([0, 0]), smoothing=0.1)):
        assert np.isnan(np.asarray(loss)[..., 0]).any()
        assert np.isnan(res.dz[0]).all()
    loss, res = COMPILED.binary_cross_entropy(z, y, None)
    assert np.isnan(loss)
    assert np.isnan(res.dz).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("ops", [COMPILED, NumpyOps()], ids=["numba", "numpy"])
@pytest.mark.parametrize("z", [-30.0, -16.0, -14.0, -3.0, 0.0, 3.0, 14.0, 16.0, 30.0])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_sure_answers_have_small_losses_that_do_not_cancel(ops, z, y):
    loss, _ = ops.binary_cross_entropy(np.full((1, 1), z, np.float32), np.full((1, 1), y, np.float32), None)
    exact = math.log1p(math.exp(-abs(z))) + max(z if y == 0 else -z, 0.0)
    assert float(loss) == pytest.approx(exact, rel=1e-5, abs=0)
