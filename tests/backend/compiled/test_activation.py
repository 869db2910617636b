"""The compiled nonlinearities against the reference in float64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops

COMPILED, REFERENCE = CompiledOps(), Ops(np)
FUNCTIONS = {
    "sigmoid": ("sigmoid", ()),
    "tanh": ("tanh", ()),
    "silu": ("silu", ()),
    "gelu": ("gelu", ("none",)),
    "gelu by tanh": ("gelu", ("tanh",)),
    "leaky_relu": ("leaky_relu", (0.1,)),
    "leaky_relu, steep": ("leaky_relu", (1.5,)),
}
UNIT = 2.0**-24
RELATIVE = {"sigmoid": 4, "tanh": 5, "leaky_relu": 2, "leaky_relu, steep": 2}
"""Bounds in units of relative precision, where the value is a normal number."""


def numbers():
    """All magnitudes, both signs; few near each other."""
    magnitudes = np.concatenate([np.geomspace(1e-30, 1e30, 4001), np.linspace(0, 20, 40001)])
    return np.concatenate([magnitudes, -magnitudes, [0.0]]).astype(np.float32)


@pytest.mark.parametrize(("case", "name", "options"), [(case, *f) for case, f in FUNCTIONS.items()])
def test_values_everywhere(case, name, options):
    x = numbers()
    with np.errstate(all="raise", under="ignore"):
        y, _ = getattr(COMPILED, name)(x, *options)
    exact = getattr(REFERENCE, name)(x.astype(np.float64), *options)[0]
    error = abs(y - exact)
    if case in RELATIVE:
        normal = abs(exact) > 1e-37
        assert (error[normal] / abs(exact[normal])).max() <= RELATIVE[case] * UNIT
        assert error[~normal].max() <= 1e-37
    else:
        assert (error / np.maximum(abs(x), 1)).max() <= 5 * UNIT


@pytest.mark.parametrize(("name", "options"), FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 17, 33)])
def test_gradients(name, options, shape):
    rng = np.random.default_rng(0)
    x, dy = (3 * rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    _, res = getattr(COMPILED, name)(x, *options)
    _, exact_res = getattr(REFERENCE, name)(x.astype(np.float64), *options)
    dx = getattr(COMPILED, f"{name}_backward")(dy, res)
    exact = getattr(REFERENCE, f"{name}_backward")(dy.astype(np.float64), exact_res)
    np.testing.assert_allclose(dx, exact, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize(("name", "options"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_gradients_of_extremes_are_finite(name, options):
    x = numbers()
    _, res = getattr(COMPILED, name)(x, *options)
    dx = getattr(COMPILED, f"{name}_backward")(np.ones_like(x), res)
    assert np.isfinite(dx).all()
    assert abs(dx).max() <= 1.6


@pytest.mark.parametrize(("name", "options"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_nan_stays(name, options):
    y, _ = getattr(COMPILED, name)(np.array([1.0, np.nan, 2.0], dtype=np.float32), *options)
    assert np.isnan(y).tolist() == [False, True, False]


@pytest.mark.parametrize("shape", [(2,), (3, 34), (2, 5, 128)])
def test_glu(shape):
    rng = np.random.default_rng(0)
    x = 5 * rng.standard_normal(shape).astype(np.float32)
    y, res = COMPILED.glu(x)
    exact, exact_res = REFERENCE.glu(x.astype(np.float64))
    np.testing.assert_allclose(y, exact, rtol=5 * UNIT, atol=0)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    exact = REFERENCE.glu_backward(dy.astype(np.float64), exact_res)
    np.testing.assert_allclose(COMPILED.glu_backward(dy, res), exact, rtol=0, atol=3e-6)
