"""Pooling of the furthest from 0, of ties that all win and of spans of any size against loops over every number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.window import Window
from tests.backend.compiled.test_pool import cases

COMPILED = CompiledOps()


def naive(x, spans_down, spans_across, peak, ties, dy):
    """(y, dx) with one window at a time; a span is the pixels under it, in order."""
    n, _, _, channels = x.shape
    y = np.zeros((n, len(spans_down), len(spans_across), channels))
    dx = np.zeros(x.shape)
    for image, i, j, c in np.ndindex(y.shape):
        pixels = [(row, column) for row in spans_down[i] for column in spans_across[j]]
        values = [float(x[image, row, column, c]) for row, column in pixels]
        best = values[0]
        for value in values[1:]:
            if np.isnan(best):
                break
            if np.isnan(value) or (value > best if peak == "max" else abs(value) >= abs(best)):
                best = value
        y[image, i, j, c] = best
        winners = [at for at, value in zip(pixels, values, strict=True) if value == best]
        for row, column in winners[: None if ties == "all" else 1]:
            dx[image, row, column, c] += dy[image, i, j, c]
    return y, dx


def spans_of(window, size):
    """The pixels inside the image under each place, for both axes."""
    return [
        [
            [
                pixel
                for tap in range(window.kernel[axis])
                if (pixel := place * window.stride[axis] - window.padding[axis][0] + tap * window.dilation[axis]) >= 0
                and pixel < size[axis]
            ]
            for place in range(window.out_size(size)[axis])
        ]
        for axis in (0, 1)
    ]


@settings(max_examples=120, deadline=None)
@given(cases(), st.sampled_from(["max", "max_abs"]), st.sampled_from(["first", "all"]), st.integers(0, 2**32 - 1))
def test_peaks_and_ties(case, peak, ties, seed):
    shape, window = case
    down, across = spans_of(window, shape[1:3])
    if not all(map(len, down + across)):
        return  # a layer refuses windows that see nothing but padding
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, shape).astype(np.float32)
    x.reshape(-1)[rng.integers(0, x.size)] = rng.choice([0, np.inf, -np.inf])
    y, res = COMPILED.peak_pool2d(x, window, peak, ties)
    dy = rng.integers(-9, 10, y.shape).astype(np.float32)  # whole numbers: every order of sums gives the same
    expected, expected_dx = naive(x, down, across, peak, ties, dy)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(COMPILED.peak_pool2d_backward(dy, res), expected_dx)


@st.composite
def spans(draw, size):
    """Windows that may overlap, leave pixels out, repeat."""
    pairs = st.lists(st.tuples(st.integers(0, size - 1), st.integers(1, size)), min_size=1, max_size=4)
    return tuple((first, min(size, first + length)) for first, length in draw(pairs))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([1, 3, 16, 33, 64]), st.integers(0, 2**32 - 1))
def test_spans(data, channels, seed):
    height, width = data.draw(st.tuples(st.integers(1, 23), st.integers(1, 23)))
    rows, columns = data.draw(spans(height)), data.draw(spans(width))
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 0, (2, height, width, channels)).astype(np.float32)
    y, res = COMPILED.span_max_pool2d(x, rows, columns)
    dy = rng.integers(-9, 10, y.shape).astype(np.float32)
    ranges = ([range(*span) for span in axis] for axis in (rows, columns))
    expected, expected_dx = naive(x[..., :1], *ranges, "max", "first", dy[..., :1])
    np.testing.assert_array_equal(y[..., :1], expected)
    np.testing.assert_array_equal(COMPILED.span_max_pool2d_backward(dy, res)[..., :1], expected_dx)
    reference, reference_res = NumpyOps().span_max_pool2d(x, rows, columns)
    np.testing.assert_array_equal(y, reference)
    np.testing.assert_array_equal(
        COMPILED.span_max_pool2d_backward(dy, res), NumpyOps().span_max_pool2d_backward(dy, reference_res)
    )


@pytest.mark.parametrize("size", [(16, 16), (20, 300), (300, 2)])
def test_one_window_of_more_pixels_than_a_byte_numbers(size):
    x = np.random.default_rng(0).integers(-4, 3, (2, *size, 5)).astype(np.float32)
    spans = ((0, size[0]),), ((0, size[1]),)
    y, res = COMPILED.span_max_pool2d(x, *spans)
    reference, reference_res = NumpyOps().span_max_pool2d(x, *spans)
    np.testing.assert_array_equal(y, reference)
    dy = np.ones_like(y)
    np.testing.assert_array_equal(
        COMPILED.span_max_pool2d_backward(dy, res), NumpyOps().span_max_pool2d_backward(dy, reference_res)
    )


@pytest.mark.parametrize("peak", ["max", "max_abs"])
@pytest.mark.parametrize("ties", ["first", "all"])
def test_nan_wins_wherever_it_is(peak, ties):
    for tap in range(9):
        x = np.ones((1, 3, 3, 5), dtype=np.float32)
        x.reshape(-1, 5)[tap, 2] = np.nan
        y, _ = COMPILED.peak_pool2d(x, Window((3, 3)), peak, ties)
        assert np.isnan(y[0, 0, 0]).tolist() == [False, False, True, False, False]
        z, _ = COMPILED.span_max_pool2d(x, ((0, 3),), ((0, 3),))
        assert np.isnan(z[0, 0, 0]).tolist() == [False, False, True, False, False]


def test_what_is_not_float32_is_numpys():
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3))
    for (y, res), back in (
        (COMPILED.peak_pool2d(x, Window((2, 2)), "max_abs", "all"), COMPILED.peak_pool2d_backward),
        (COMPILED.span_max_pool2d(x, ((0, 5),), ((0, 2), (2, 4))), COMPILED.span_max_pool2d_backward),
    ):
        assert y.dtype == np.float64
        assert back(np.ones_like(y), res).dtype == np.float64
