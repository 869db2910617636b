"""The compiled response normalisation against the reference in float64, on random shapes and windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops
from layernet.backend.reference.local_norm import Neighbourhood

COMPILED, REFERENCE = CompiledOps(), Ops(np)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(1, 40))


@settings(max_examples=100, deadline=None)
@given(
    shapes,
    st.integers(1, 9),
    st.sampled_from([0.75, 0.5]),
    st.sampled_from([1.0, 2.0]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_as_the_reference(shape, size, beta, k, blocked, seed):
    rng = np.random.default_rng(seed)
    x, dy = (2 * rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    around = Neighbourhood(size, (-1,), blocked)
    y, res = COMPILED.local_response_norm(x, around, 0.1, beta, k)
    exact, exact_res = REFERENCE.local_response_norm(x.astype(np.float64), around, 0.1, beta, k)
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=1e-6)
    exact = REFERENCE.local_response_norm_backward(dy.astype(np.float64), exact_res)
    np.testing.assert_allclose(COMPILED.local_response_norm_backward(dy, res), exact, rtol=2e-6, atol=4e-6)
