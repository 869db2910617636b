"""Convolution with stride 1 by Winograd's minimal filtering F(m, r): a quarter to a sixth of the multiplications.

A tile of m x m outputs of an r x r filter is A^T [(G w G^T) * (B^T x B)] A, x being the tile's (m + r - 1)^2 inputs
(Lavin and Gray 2016, arXiv:1509.09308; the matrices are from cook_toom.py). Summed over channels, the elementwise
product becomes one matrix product for each of the (m + r - 1)^2 frequencies. All gradients are of the same kind: dx is
the convolution of dy with the turned filters, and as the forward pass is linear in w,
dw = G^T [sum over tiles (A dy A^T) * (B^T x B)] G.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled import squares
from layernet.backend.compiled.lanes import BYTES, LANES, vectors_of
from layernet.backend.compiled.launch import Routine, run_routine
from layernet.backend.compiled.vectors import load_first, prefetch, prefetch_to_write, splat, store
from layernet.backend.cook_toom import matrices

INPUT, OUTPUT, FILTER, SPREAD, GATHER, EDGE = range(6)
"""Which transform: of x, of the products, of w; of dy and of the products for dw, which are the others' transposes.

EDGE is that of x where the window is not all in the image."""


def _bodies(m: int, r: int) -> tuple[Any, ...]:
    outputs, filters, pixels = matrices(m, r)
    return (
        squares.transform(_rows(pixels)),
        squares.transform(_rows(outputs)),
        squares.transform(_rows(filters)),
        squares.transform(_rows(outputs.T)),
        squares.transform(_rows(filters.T)),
        squares.transform(_rows(pixels), cut=True),
    )


def _rows(matrix: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))


_input43, _output43, _filter43, _spread43, _gather43, _edge43 = _bodies(4, 3)
_input45, _output45, _filter45, _spread45, _gather45, _edge45 = _bodies(4, 5)


# One function for each size of filters: numba's cache keeps only what stands at the top level of a file.


def _transform43(which, source, row, column, target, target_row, target_column, vectors, inside, zeros):
    for v in range(vectors):
        s, t = source + v * BYTES, target + v * BYTES
        if which == INPUT:
            _input43(s, row, column, t, target_row, target_column)
        elif which == OUTPUT:
            _output43(s, row, column, t, target_row, target_column)
        elif which == FILTER:
            _filter43(s, row, column, t, target_row, target_column)
        elif which == SPREAD:
            _spread43(s, row, column, t, target_row, target_column)
        elif which == GATHER:
            _gather43(s, row, column, t, target_row, target_column)
        else:
            _edge43(s, row, column, t, target_row, target_column, inside, zeros)


def _transform45(which, source, row, column, target, target_row, target_column, vectors, inside, zeros):
    for v in range(vectors):
        s, t = source + v * BYTES, target + v * BYTES
        if which == INPUT:
            _input45(s, row, column, t, target_row, target_column)
        elif which == OUTPUT:
            _output45(s, row, column, t, target_row, target_column)
        elif which == FILTER:
            _filter45(s, row, column, t, target_row, target_column)
        elif which == SPREAD:
            _spread45(s, row, column, t, target_row, target_column)
        elif which == GATHER:
            _gather45(s, row, column, t, target_row, target_column)
        else:
            _edge45(s, row, column, t, target_row, target_column, inside, zeros)


TRANSFORMS = {3: Routine(_transform43), 5: Routine(_transform45)}
"""By filter size; tiles of 4 x 4 outputs. The last two integers are EDGE's: `inside` and `zeros` of squares.py."""


SIDE = 4
"""Outputs along a side of a tile."""


@njit(inline="always")
def place(index, down, across, m):
    """Image, first row and first column of a tile of outputs."""
    n, rest = divmod(index, down * across)
    return n, (rest // across) * m, (rest % across) * m


@njit(inline="always")
def taps_inside(first, size, length):
    """Of `size` pixels from the first on, those in an image of `length`: one bit each."""
    before, after = min(size, max(0, -first)), min(size, max(0, first + size - length))
    return ((1 << (size - after)) - 1) & ~((1 << before) - 1)


@njit
def spread_window(transform, which, size, image, top, left, height, width, channels, spare, target, frequency, a):
    """Transform the size x size window of an image at (top, left), zeros outside it; target[f] is f frequencies on.

    `spare` begins with a vector of zeros.
    """
    vectors = vectors_of(channels)
    inside = top >= 0 and left >= 0 and top + size <= height and left + size <= width
    if channels % LANES == 0 and (inside or which == INPUT):
        source = image + (top * width + left) * channels * 4
        there = 0 if inside else taps_inside(top, size, height) | taps_inside(left, size, width) << 8
        run_routine(
            transform, which if inside else EDGE, source, width * channels * 4, channels * 4, target, a * frequency,
            frequency, vectors, there, spare,
        )  # fmt: skip
        return
    window = spare + BYTES
    zero = splat(np.float32(0))
    for i in range(size):
        for j in range(size):
            to = window + (i * size + j) * vectors * BYTES
            if 0 <= top + i < height and 0 <= left + j < width:
                source = image + ((top + i) * width + left + j) * channels * 4
                for c in range(0, channels, LANES):
                    store(to + c * 4, load_first(source + c * 4, channels - c))
            else:
                for c in range(0, channels, LANES):
                    store(to + c * 4, zero)
    pitch = vectors * BYTES
    run_routine(transform, which, window, size * pitch, pitch, target, a * frequency, frequency, vectors, 0, 0)


NEAR = 2
"""How many tiles ahead a transform asks for pixels."""


@njit
def prefetch_tiles(image, first, last, down, across, height, width, channels, lead, writes):
    """Ask for the pixels under the tiles `first` to before `last`, of rows that are `lead` further down.

    Twice: while a block is multiplied, which needs no memory, for the next one; and NEAR tiles before its turn, as with
    many channels much of what was asked for so early has left the cache again.
    """
    line = SIDE * channels * 4
    for t in range(first, last):
        n, i, j = place(t, down, across, SIDE)
        for row in range(i + lead if i else 0, min(i + lead + SIDE, height)):
            source = image + ((n * height + row) * width + j) * channels * 4
            for at in range(0, line, 64):
                if writes:
                    prefetch_to_write(source + at)
                else:
                    prefetch(source + at)
