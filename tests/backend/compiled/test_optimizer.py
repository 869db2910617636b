"""The compiled updates of optimizers against the reference in float64, over several steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops

COMPILED, REFERENCE = CompiledOps(), Ops(np)
sizes = st.integers(1, 100)
seeds = st.integers(0, 2**32 - 1)


def run(kernel, names, arrays, gradients, settings_of):
    """Run the update over the gradients; what it has made of w and the state."""
    w, *state = arrays
    for t, g in enumerate(gradients, start=1):
        before = g.copy()
        getattr(kernel, names)(w, g, *state, **settings_of(t))
        np.testing.assert_array_equal(g, before)
    return [a for a in arrays if a is not None]


def compare(name, size, seed, count, settings_of):
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(size).astype(np.float32)
    gradients = list(rng.standard_normal((3, size)).astype(np.float32))

    def arrays(dtype):
        return [start.astype(dtype), *[np.zeros(size, dtype) if i < count else None for i in range(max(1, count))]]

    ours = run(COMPILED, name, arrays(np.float32), gradients, settings_of)
    exact = run(REFERENCE, name, arrays(np.float64), [g.astype(np.float64) for g in gradients], settings_of)
    for a, b in zip(ours, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, st.sampled_from([0.0, 0.9]), st.sampled_from([0.0, 0.1]), st.booleans(), st.sampled_from([1, 0.7]))
def test_sgd_as_the_reference(size, seed, momentum, decay, nesterov, gain):
    compare(
        "sgd_update",
        size,
        seed,
        int(momentum > 0),
        lambda t: {"lr": 0.1, "decay": decay, "momentum": momentum, "gain": gain, "nesterov": nesterov},
    )


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, st.sampled_from([0.0, 0.1]), st.sampled_from([1.0, 0.99]))
def test_adam_as_the_reference(size, seed, decay, shrink):
    compare(
        "adam_update",
        size,
        seed,
        2,
        lambda t: {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "decay": decay, "shrink": shrink, "t": t},
    )


def test_nothing_beyond_the_end_is_touched():
    room = np.ones(64, dtype=np.float32)
    g = np.ones(64, dtype=np.float32)
    COMPILED.sgd_update(room[:19], g[:19], None, lr=0.5, decay=0.0, momentum=0.0, gain=1.0, nesterov=False)
    assert (room[:19] == 0.5).all()
    assert (room[19:] == 1).all()


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, st.sampled_from([0.0, 0.1]))
def test_adagrad_as_the_reference(size, seed, decay):
    compare("adagrad_update", size, seed, 1, lambda t: {"lr": 0.1, "decay": decay, "eps": 1e-10})


@settings(max_examples=40, deadline=None)
@given(sizes, seeds, st.sampled_from([0.001, 0.5, 1.0]))
def test_averages_as_the_reference(size, seed, share):
    average, values = np.random.default_rng(seed).standard_normal((2, size)).astype(np.float32)
    exact = average.astype(np.float64)
    REFERENCE.average_update(exact, values.astype(np.float64), share)
    COMPILED.average_update(average, values, share)
    np.testing.assert_allclose(average, exact, rtol=0, atol=1e-6)
