"""Images by two matrices, read as bands, against a float64 einsum over the whole matrices."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled import resample
from layernet.backend.compiled.ops import CompiledOps

COMPILED = CompiledOps()
EPS = float(np.finfo(np.float32).eps)


@st.composite
def matrices(draw, new, old, rng):
    """Bands of a few numbers, whole rows, rows of zeros, zeros within a band."""
    matrix = rng.standard_normal((new, old))
    width = draw(st.integers(1, old))
    first = rng.integers(-1, old, (new, 1))
    matrix[(np.arange(old) < first) | (np.arange(old) >= first + width)] = 0
    matrix[rng.random((new, old)) < draw(st.sampled_from([0.0, 0.3]))] = 0
    return matrix.astype(np.float32)


@settings(max_examples=120, deadline=None)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_as_a_product_of_matrices(data, seed):
    rng = np.random.default_rng(seed)
    height, width, new_height, new_width = (data.draw(st.integers(1, 9)) for _ in range(4))
    n, channels = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 3, 8, 16, 19, 33, 64]))
    rows, columns = (data.draw(matrices(*s, rng)) for s in ((new_height, height), (new_width, width)))
    x = rng.standard_normal((n, height, width, channels)).astype(np.float32)
    y, res = COMPILED.resample2d(x, rows, columns)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx = COMPILED.resample2d_backward(dy, res)
    for found, image, down, across in ((y, x, rows, columns), (dx, dy, rows.T, columns.T)):
        terms = down.astype(np.float64), image.astype(np.float64), across.astype(np.float64)
        expected = np.einsum("ih,nhwc,jw->nijc", *terms)
        bound = np.einsum("ih,nhwc,jw->nijc", *map(np.abs, terms)) * EPS * (down.shape[1] + across.shape[1] + 2)
        assert (np.abs(found - expected) <= bound).all()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_gradient_of_pixels_that_were_taken(data, seed):
    rng = np.random.default_rng(seed)
    shape = (2, *(data.draw(st.integers(1, 7)) for _ in range(2)), data.draw(st.sampled_from([1, 3, 16, 37])))
    rows, columns = (rng.integers(0, n, data.draw(st.integers(1, 9))) for n in shape[1:3])
    x = rng.standard_normal(shape).astype(np.float32)
    y, res = COMPILED.sample2d(x, rows, columns)
    dy = rng.integers(-9, 10, y.shape).astype(np.float32)
    expected = np.zeros(shape)
    for (i, row), (j, column) in ((a, b) for a in enumerate(rows) for b in enumerate(columns)):
        np.testing.assert_array_equal(y[:, i, j], x[:, row, column])
        expected[:, row, column] += dy[:, i, j]
    np.testing.assert_array_equal(COMPILED.sample2d_backward(dy, res), expected)


def test_nan_reaches_what_is_made_of_it_and_nothing_else():
    x = np.ones((1, 4, 4, 19), dtype=np.float32)
    x[0, 1, 2, 5] = np.nan
    rows = np.array([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]], dtype=np.float32)
    y, _ = COMPILED.resample2d(x, rows, rows)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 1, 1, 5]]


def test_bands_are_forgotten_with_their_matrix():
    before = len(resample._BANDS)
    rows = np.eye(3, dtype=np.float32)
    x = np.ones((1, 3, 3, 2), dtype=np.float32)
    COMPILED.resample2d(x, rows, rows)
    assert len(resample._BANDS) == before  # somebody may write to the matrix
    rows.setflags(write=False)
    COMPILED.resample2d(x, rows, rows)
    assert len(resample._BANDS) == before + 1
    del rows
    gc.collect()
    assert len(resample._BANDS) == before


@pytest.mark.parametrize("kind", ["float64", "turned"])
def test_what_kernels_do_not_take_is_numpys(kind):
    rng = np.random.default_rng(0)
    x, rows = rng.standard_normal((2, 4, 4, 3)), rng.standard_normal((5, 4))
    if kind == "turned":
        x, rows = x.astype(np.float32).transpose(0, 2, 1, 3), rows.astype(np.float32)
    y, res = COMPILED.resample2d(x, rows, rows)
    expected = np.einsum("ih,nhwc,jw->nijc", *(a.astype(np.float64) for a in (rows, x, rows)))
    bound = 4e-6 if kind == "turned" else 1e-14  # found: a fifth of it
    np.testing.assert_allclose(y, expected, rtol=bound, atol=bound)
    assert COMPILED.resample2d_backward(y, res).shape == x.shape
