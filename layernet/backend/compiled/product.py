"""Matrix products: the passes of a fully connected layer."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.launch import Kernel, address, launch, split, threads, unpack
from layernet.backend.compiled.pack import panels, transpose
from layernet.backend.compiled.simd import (
    LANES,
    NARROW_ROWS,
    TILE_COLUMNS,
    TILE_ROWS,
    tile,
)


def pitch_of(columns: int) -> int:
    """Floats from one packed row to the next: whole vectors, and never a power of two that strains the cache."""
    width = LANES if columns <= LANES else -(-columns // TILE_COLUMNS) * TILE_COLUMNS
    return width + LANES if width % 512 == 0 else width


@lru_cache(maxsize=1024)
def offsets(rows: int, row_step: int, columns: int = 1, column_step: int = 0, base: int = 0) -> Array:
    """base + i row_step + j column_step for all i and j, int64; the last is repeated, as tiles may take more rows."""
    grid = base + np.arange(rows)[:, None] * row_step + np.arange(columns) * column_step
    return np.concatenate([grid.ravel(), np.full(max(TILE_ROWS, NARROW_ROWS), grid[-1, -1])]).astype(np.int64)


@Kernel
def _multiply(arguments, task):
    """C = A B + bias for a share of the columns and rows."""
    (
        a, a_rows, a_inner, rows, b, panel_step, b_inner, depth, c, c_rows, columns, bias, relu, by_rows, tasks,
    ) = unpack(arguments, 15)  # fmt: skip
    panels = (columns + TILE_COLUMNS - 1) // TILE_COLUMNS
    first, last = split((rows + TILE_ROWS - 1) // TILE_ROWS if by_rows else panels, task, tasks)
    row_begin, row_end = (first * TILE_ROWS, min(rows, last * TILE_ROWS)) if by_rows else (0, rows)
    panel_begin, panel_end = (0, panels) if by_rows else (first, last)
    for panel in range(panel_begin, panel_end):
        column = panel * TILE_COLUMNS
        start = bias + column * 4 if bias else 0
        for i in range(row_begin, row_end, TILE_ROWS):
            tile(
                a, a_rows + i * 8, 0, a_inner, b + panel * panel_step, 0, b_inner, 1, depth,
                c + column * 4, c_rows + i * 8, start, columns - column, relu,
            )  # fmt: skip


def _product(
    a: int, a_row: int, a_inner: int, rows: int, b: int, panel_step: int, b_inner: int, depth: int, out: Array,
    bias: Array | None = None, relu: bool = False,
) -> None:  # fmt: skip
    columns = out.shape[1]
    a_rows, c_rows = offsets(rows, a_row), offsets(rows, columns * 4)
    by_rows = rows // TILE_ROWS >= -(-columns // TILE_COLUMNS)
    launch(
        _multiply, a, a_rows, a_inner, rows, b, panel_step, b_inner, depth, out, c_rows,
        columns, bias, int(relu), int(by_rows), threads(),
    )  # fmt: skip


def rows_times(x: Array, b: int, pitch: int, bias: Array | None, out: Array, relu: bool) -> None:
    _product(address(x), x.shape[1] * 4, 4, len(x), b, TILE_COLUMNS * 4, pitch * 4, x.shape[1], out, bias, relu)


def linear(x: Array, weight: Array, bias: Array | None, out: Array, relu: bool = False) -> None:
    """out (M, out) = x (M, in) weight^T + bias."""
    pitch = pitch_of(len(weight))
    rows_times(x, transpose(weight, pitch), pitch, bias, out, relu)


def linear_input_gradient(dy: Array, weight: Array, dx: Array) -> None:
    """dx (M, in) = dy (M, out) weight (out, in)."""
    outs = len(weight)
    b = panels(weight)
    _product(address(dy), outs * 4, 4, len(dy), b, outs * TILE_COLUMNS * 4, TILE_COLUMNS * 4, outs, dx)


def linear_weight_gradient(x: Array, dy: Array, dw: Array) -> None:
    """dw (out, in) = dy^T x."""
    outs = dy.shape[1]
    b = panels(x)
    _product(address(dy), 4, outs * 4, outs, b, len(x) * TILE_COLUMNS * 4, TILE_COLUMNS * 4, len(x), dw)
