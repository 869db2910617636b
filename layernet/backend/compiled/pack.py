"""Packing: matrices laid out as the register tile reads them."""

from __future__ import annotations

from layernet.backend import Array
from layernet.backend.compiled.lanes import LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split, threads_for
from layernet.backend.compiled.scratch import WEIGHTS, Scratch
from layernet.backend.compiled.squares import transpose_square
from layernet.backend.compiled.tile import TILE_COLUMNS
from layernet.backend.compiled.vectors import load_first, load_float, store, store_float


@Kernel
def _transpose(task, tasks, source, rows, columns, target, pitch):
    """target (columns, pitch) = source (rows, columns) transposed, its rows filled up with zeros."""
    first, last = split(vectors_of(columns), task, tasks)
    for block in range(first, last):
        c0, c1 = block * LANES, min(block * LANES + LANES, columns)
        for r0 in range(0, pitch, LANES):
            if c1 - c0 == LANES and r0 + LANES <= rows:
                transpose_square(
                    source + (r0 * columns + c0) * 4, columns * 4, target + (c0 * pitch + r0) * 4, pitch * 4
                )
            else:
                for c in range(c0, c1):
                    for r in range(r0, min(r0 + LANES, pitch)):
                        value = load_float(source + (r * columns + c) * 4) if r < rows else 0.0
                        store_float(target + (c * pitch + r) * 4, value)


def transpose(matrix: Array, pitch: int) -> int:
    """The address of matrix^T in scratch memory, its rows filled with zeros to `pitch` floats."""
    rows, columns = matrix.shape
    target = WEIGHTS.room(columns * pitch * 4)
    _transpose.launch(
        source=matrix, rows=rows, columns=columns, target=target, pitch=pitch, tasks=threads_for(matrix.size),
    )  # fmt: skip
    return target


_PANELS = Scratch()


@Kernel
def _panels(task, tasks, source, rows, columns, target):
    """Panels (panel, rows, TILE_COLUMNS) of a matrix (rows, columns), the last filled up with zeros."""
    first, last = split(rows, task, tasks)
    for r in range(first, last):
        for c in range(0, columns, TILE_COLUMNS):
            to = target + (c * rows + r * TILE_COLUMNS) * 4
            for v in range(0, TILE_COLUMNS, LANES):
                left = max(0, columns - c - v)
                store(to + v * 4, load_first(source + (r * columns + c + v) * 4, left))


def panels(matrix: Array) -> int:
    """The address of the matrix in panels of TILE_COLUMNS columns, in scratch memory."""
    rows, columns = matrix.shape
    target = _PANELS.room(rows * -(-columns // TILE_COLUMNS) * TILE_COLUMNS * 4)
    _panels.launch(source=matrix, rows=rows, columns=columns, target=target, tasks=threads_for(matrix.size))
    return target
