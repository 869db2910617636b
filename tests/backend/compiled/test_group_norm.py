"""The compiled group norm against the reference in float64, on random shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.group_norm import _Kept
from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.ops import Ops

COMPILED, REFERENCE = CompiledOps(), Ops(np)
places = st.lists(st.integers(1, 13), max_size=2)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 4),
    places,
    st.integers(1, 9),
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 100]),
    st.integers(0, 2**32 - 1),
)
def test_as_the_reference(count, places, groups, width, scaled, shifted, mean, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, count, *places, groups * width)).astype(np.float32)
    x += mean
    weight, bias = (
        rng.standard_normal(groups * width).astype(np.float32) if wanted else None for wanted in (scaled, shifted)
    )
    y, means, variances, res = COMPILED.group_norm(x, groups, weight, bias, 1e-2)
    assert isinstance(res, _Kept)
    exact, exact_means, exact_variances, exact_res = REFERENCE.group_norm(
        x.astype(np.float64), groups, weight, bias, 1e-2
    )
    # the mean's rounding, over the least deviation; worst of 3300 draws: 1.6e-6 and 8e-5, of gradients 2e-5 and 6e-4
    atol = 1e-5 if mean == 0 else 5e-4
    np.testing.assert_allclose(means, exact_means, rtol=5e-7, atol=5e-7)  # worst: a third of it
    np.testing.assert_allclose(variances, exact_variances, rtol=2e-6, atol=1e-6)  # worst: a fifth, whatever the mean
    np.testing.assert_allclose(y, exact, rtol=0, atol=atol)
    exact_parts = REFERENCE.group_norm_backward(dy.astype(np.float64), exact_res)
    for part, wanted in zip(COMPILED.group_norm_backward(dy, res), exact_parts, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=10 * atol)
    assert COMPILED.group_norm_backward(dy, res, need_dx=False)[0] is None


def test_one_large_number_among_small_ones():
    x = np.random.default_rng(0).standard_normal((2, 9, 9, 8)).astype(np.float32)
    x[:, 1:] *= 1e-6
    y, *_ = COMPILED.group_norm(x, 2, None, None, 1e-12)
    exact, *_ = REFERENCE.group_norm(x.astype(np.float64), 2, None, None, 1e-12)
    np.testing.assert_allclose(y, exact, rtol=0, atol=5e-6)  # found: 8e-7


@pytest.mark.parametrize("size", [1e18, 1e19])
def test_squares_beyond_float32_are_the_references(size):
    x = (size * np.random.default_rng(0).standard_normal((2, 40, 40, 4)).clip(-1, 1)).astype(np.float32)
    y, _, _, res = COMPILED.group_norm(x, 1, None, None, 1e-5)
    with np.errstate(over="ignore"):
        exact, _, _, exact_res = REFERENCE.group_norm(x.astype(np.float64), 1, None, None, 1e-5)
    if size == 1e18:
        np.testing.assert_allclose(y, exact, rtol=0, atol=5e-6)  # found: 6e-7
        dx = COMPILED.group_norm_backward(np.sign(x), res)[0]
        exact_dx = REFERENCE.group_norm_backward(np.sign(x).astype(np.float64), exact_res)[0]
        np.testing.assert_allclose(dx, exact_dx, rtol=0, atol=4e-5 * abs(exact_dx).max())  # found: 6e-6
