"""The geometry of sliding windows against counting."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend.window import Window
from tests import naive_images as naive

small = st.integers(0, 3)
windows = st.builds(
    Window,
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(st.tuples(small, small), st.tuples(small, small)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(windows, sizes)
def test_out_size_is_the_number_of_places(window, size):
    counted = naive.places(window, size)
    out = window.out_size(size)
    assert tuple(max(0, n) for n in out) == counted


@given(windows, sizes)
def test_taps_pair_every_output_with_every_pixel_under_it(window, size):
    if min(window.out_size(size)) < 1:
        return
    numbers = np.arange(size[0] * size[1]).reshape(*size, 1)
    outputs = np.arange(np.prod(window.out_size(size))).reshape(*window.out_size(size), 1)
    found = set()
    for tap in window.taps(size):
        read, fed = numbers[tap.reads], outputs[tap.feeds]
        assert read.shape == fed.shape
        assert read.size
        found |= {(tap.row, tap.column, int(a), int(b)) for a, b in zip(read.ravel(), fed.ravel(), strict=True)}
    expected = {
        (i, j, h * size[1] + w, r * window.out_size(size)[1] + c)
        for r in range(window.out_size(size)[0])
        for c in range(window.out_size(size)[1])
        for i, j, h, w in naive.pixels(window, size, (r, c))
    }
    assert found == expected
    assert [(t.row, t.column) for t in window.taps(size)] == sorted((t.row, t.column) for t in window.taps(size))


@settings(max_examples=300)
@given(windows, sizes)
def test_covering_takes_one_more_place_where_it_starts_before_the_padding_at_the_end(window, size):
    """As torch, which knows no padding of more than half the window."""
    if any(2 * max(padding) > extent for padding, extent in zip(window.padding, window.extent, strict=True)):
        return
    covering = window.covering(size)
    for axis in (0, 1):
        before, after = window.padding[axis]
        total = size[axis] + before + after
        reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        places = -(-(total - reach) // window.stride[axis]) + 1  # torch: round up, then drop what starts too late
        if (places - 1) * window.stride[axis] >= size[axis] + before:
            places -= 1
        assert covering.out_size(size)[axis] == places
        assert covering.padding[axis][0] == before


@given(windows, sizes)
def test_counts(window, size):
    if min(window.out_size(size)) < 1:
        return
    rows, columns = window.counts(size)
    for r in range(len(rows)):
        for c in range(len(columns)):
            assert rows[r] * columns[c] == len(list(naive.pixels(window, size, (r, c))))
    assert window.counts(size, window.padding) == (
        [window.kernel[0]] * window.out_size(size)[0],
        [window.kernel[1]] * window.out_size(size)[1],
    )
