"""Convolution in groups under a window of one pixel: per row of channels a product for each group, read as they lie."""

from __future__ import annotations

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split
from layernet.backend.compiled.product import offsets, pitch_of
from layernet.backend.compiled.tile import NARROW_ROWS, TILE_COLUMNS, TILE_ROWS, narrow_tile, tile


@Kernel
def _multiply_groups(task, tasks, a, a_rows, rows, b, depth, pitch, c, c_rows, groups, columns, bias, relu):
    """A few rows at a time, which stay in the cache for all groups."""
    first, last = split((rows + NARROW_ROWS - 1) // NARROW_ROWS, task, tasks)
    for i in range(first * NARROW_ROWS, min(rows, last * NARROW_ROWS), NARROW_ROWS):
        for g in range(groups):
            seen, matrix = a + g * depth * 4, b + g * depth * pitch * 4
            for column in range(0, columns, TILE_COLUMNS):
                at = (g * columns + column) * 4
                start, left = bias + at if bias else 0, columns - column
                if left <= LANES:
                    narrow_tile(
                        seen, a_rows + i * 8, 0, 4, matrix + column * 4, 0, pitch * 4, 1, depth,
                        c + at, c_rows + i * 8, start, left, relu,
                    )  # fmt: skip
                else:
                    for r in range(i, min(rows, i + NARROW_ROWS), TILE_ROWS):
                        tile(
                            seen, a_rows + r * 8, 0, 4, matrix + column * 4, 0, pitch * 4, 1, depth,
                            c + at, c_rows + r * 8, start, left, relu,
                        )  # fmt: skip


def multiply_groups(a: Array, matrices: Array, bias: Array | None, c: Array, relu: bool = False) -> None:
    """c (..., groups m) = a (..., groups k) times matrices (groups, k, m), each group's channels by its own, + bias."""
    groups, depth, columns = matrices.shape
    pitch = pitch_of(columns)
    packed = np.zeros((groups, depth, pitch), dtype=np.float32)
    packed[:, :, :columns] = matrices
    rows = a.size // (groups * depth)
    _multiply_groups.launch(
        a=a, a_rows=offsets(rows, groups * depth * 4), rows=rows, b=packed, depth=depth, pitch=pitch, c=c,
        c_rows=offsets(rows, groups * columns * 4), groups=groups, columns=columns, bias=bias, relu=int(relu),
    )  # fmt: skip
