"""Matrix products: the passes of a fully connected layer."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.lanes import BYTES, LANES
from layernet.backend.compiled.launch import Kernel, address, split, threads_for
from layernet.backend.compiled.pack import panels, transpose
from layernet.backend.compiled.scratch import Scratch
from layernet.backend.compiled.tile import NARROW_ROWS, TILE_COLUMNS, TILE_ROWS, tile
from layernet.backend.compiled.vectors import fma, load, load_first, load_float, splat, store_float, total


def pitch_of(columns: int) -> int:
    """Floats from one packed row to the next: whole vectors, and never a power of two that strains the cache."""
    width = LANES if columns <= LANES else -(-columns // TILE_COLUMNS) * TILE_COLUMNS
    return width + LANES if width % 512 == 0 else width


@lru_cache(maxsize=1024)
def offsets(rows: int, row_step: int, columns: int = 1, column_step: int = 0, base: int = 0) -> Array:
    """base + i row_step + j column_step for all i and j, int64; the last is repeated, as tiles may take more rows."""
    grid = base + np.arange(rows)[:, None] * row_step + np.arange(columns) * column_step
    return np.concatenate([grid.ravel(), np.full(max(TILE_ROWS, NARROW_ROWS), grid[-1, -1])]).astype(np.int64)


_SLABS = Scratch()


@Kernel
def _multiply(
    task, tasks, a, a_rows, a_inner, rows, b, panel_step, b_inner, depth, c, c_rows, columns, bias, relu, by_rows,
):  # fmt: skip
    """C = A B + bias for a share of the columns and rows."""
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
    _multiply.launch(
        a=a, a_rows=a_rows, a_inner=a_inner, rows=rows, b=b, panel_step=panel_step, b_inner=b_inner, depth=depth, c=out,
        c_rows=c_rows, columns=columns, bias=bias, relu=int(relu), by_rows=int(by_rows),
        tasks=threads_for(rows * columns * depth // 16),
    )  # fmt: skip


def rows_times(x: Array, b: int, pitch: int, bias: Array | None, out: Array, relu: bool) -> None:
    _product(address(x), x.shape[1] * 4, 4, len(x), b, TILE_COLUMNS * 4, pitch * 4, x.shape[1], out, bias, relu)


FEW = TILE_COLUMNS
"""Up to so many rows, weights are multiplied as they lie, and not packed first."""


@Kernel
def _multiply_few(
    task, tasks, weight, w_rows, outs, depth, columns, pitch, count, bias, relu, out, c_rows, slab, slab_size,
):  # fmt: skip
    """out = x weight^T + bias for no more rows of x than a tile has columns: its rows are weights, read as they lie."""
    square = slab + task * slab_size
    first, last = split((outs + TILE_ROWS - 1) // TILE_ROWS, task, tasks)
    for o in range(first * TILE_ROWS, min(outs, last * TILE_ROWS), TILE_ROWS):
        tile(
            weight, w_rows + o * 8, 0, 4, columns, 0, pitch * 4, 1, depth, square, c_rows, 0, TILE_COLUMNS, 0
        )  # fmt: skip
        for i in range(min(TILE_ROWS, outs - o)):
            offset = load_float(bias + (o + i) * 4) if bias else np.float32(0)
            for m in range(count):
                value = load_float(square + (i * TILE_COLUMNS + m) * 4) + offset
                if relu and value < 0:
                    value = np.float32(0)
                store_float(out + (m * outs + o + i) * 4, value)


@Kernel
def _multiply_one(task, tasks, weight, outs, depth, x, bias, relu, out):
    """out = weight x + bias for one x: the weights are read once, each row times x."""
    first, last = split(outs, task, tasks)
    zero = splat(np.float32(0))
    for o in range(first, last):
        row = weight + o * depth * 4
        s0, s1, s2, s3 = zero, zero, zero, zero
        k = 0
        while k + 4 * LANES <= depth:
            at = k * 4
            s0 = fma(load(row + at), load(x + at), s0)
            s1 = fma(load(row + at + BYTES), load(x + at + BYTES), s1)
            s2 = fma(load(row + at + 2 * BYTES), load(x + at + 2 * BYTES), s2)
            s3 = fma(load(row + at + 3 * BYTES), load(x + at + 3 * BYTES), s3)
            k += 4 * LANES
        while k < depth:
            s0 = fma(load_first(row + k * 4, depth - k), load_first(x + k * 4, depth - k), s0)
            k += LANES
        value = total((s0 + s1) + (s2 + s3))
        if bias:
            value += load_float(bias + o * 4)
        if relu and value < 0:
            value = np.float32(0)
        store_float(out + o * 4, value)


def linear(x: Array, weight: Array, bias: Array | None, out: Array, relu: bool = False) -> None:
    """out (M, out) = x (M, in) weight^T + bias."""
    outs, depth = weight.shape
    if len(x) == 1:
        _multiply_one.launch(
            weight=weight, outs=outs, depth=depth, x=x, bias=bias, relu=int(relu), out=out,
            tasks=threads_for(weight.size),
        )  # fmt: skip
        return
    if len(x) <= FEW:
        columns = transpose(x, TILE_COLUMNS)
        room, tasks = TILE_ROWS * TILE_COLUMNS * 4, threads_for(weight.size)
        _multiply_few.launch(
            weight=weight, w_rows=offsets(outs, depth * 4), outs=outs, depth=depth, columns=columns, pitch=TILE_COLUMNS,
            count=len(x), bias=bias, relu=int(relu), out=out, c_rows=offsets(TILE_ROWS, TILE_COLUMNS * 4),
            slab=_SLABS.room(tasks * room), slab_size=room, tasks=tasks,
        )  # fmt: skip
        return
    pitch = pitch_of(outs)
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
