"""Inputs without ties, and which elements are looked at."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layernet.testing.sampling import projection, stratified, stream, tie_free

shapes = st.lists(st.integers(1, 9), min_size=0, max_size=4).map(tuple)


@given(shapes, st.integers(0, 5))
def test_a_tie_free_input_has_no_ties_and_no_zeros(shape, seed):
    x = tie_free(shape, stream(seed))
    assert x.shape == shape
    assert x.dtype == np.float64
    distances = np.diff(np.sort(np.append(x.ravel(), 0.0)))
    assert (distances > 0.5 / max(1, x.size)).all()
    assert abs(x).max() < 2


def test_the_same_key_gives_the_same_input_and_another_another():
    assert (tie_free((50,), stream(1)) == tie_free((50,), stream(1))).all()
    assert (tie_free((50,), stream(1)) != tie_free((50,), stream(2))).any()


def test_weights_of_outputs_stay_away_from_zero_and_have_both_signs():
    r = projection((1000,), stream(0))
    assert (abs(r) > 0.4).all()
    assert 400 < (r > 0).sum() < 600
    assert (r != r.astype("float32")).all()


@given(shapes, st.integers(1, 70), st.integers(0, 3))
def test_stratified_indices_are_different_elements(shape, count, seed):
    indices = stratified(shape, count, stream(seed))
    size = math.prod(shape)
    assert len(indices) == len(set(indices)) == min(size, count)
    assert ((indices >= 0) & (indices < size)).all()


@pytest.mark.parametrize("shape", [(10_000,), (100, 100), (64, 5, 5, 32), (3, 32, 32, 3)])
def test_stratified_indices_reach_first_last_and_corners(shape):
    found = {tuple(int(i) for i in np.unravel_index(i, shape)) for i in stratified(shape, 64, stream(0))}
    assert len(found) == 64
    corners = [tuple(0 for _ in shape), tuple(n - 1 for n in shape)]
    assert found.issuperset(corners)
    for axis, n in enumerate(shape):
        seen = {index[axis] for index in found}
        assert {0, n - 1} <= seen
        assert len(seen) >= min(n, 14)


@pytest.mark.parametrize("channels", [3, 10, 16])
def test_every_channel_is_looked_at_while_there_are_few(channels):
    indices = stratified((32, 5, 5, channels), 64, stream(0))
    assert {int(i) % channels for i in indices} == set(range(channels))
