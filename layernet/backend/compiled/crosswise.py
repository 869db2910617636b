"""C = A^T B for a matrix A of channels side by side: what every gradient of weights comes down to."""

from __future__ import annotations

from numba import njit

from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.tile import PACKED_ROWS, TILE_ROWS, packed_narrow_tile, packed_tile, tile


@njit
def multiply_crosswise(
    a, a_outer, a_inner, a_rows, outs, b, b_outer, b_inner, outer, inner, c, c_rows, columns, start, narrow
):  # fmt: skip
    """C[o, :] = (start = -1: += ) sum over p < outer, q < inner of A[p, q, o] B[p, q, :], for one panel of columns.

    `a_rows` (o * 4, the last repeated) and `c_rows` are tables of byte offsets; `columns` are stored. With `narrow` no
    more than LANES columns are computed.
    """
    o = 0
    if narrow:
        while o + LANES <= outs:
            packed_narrow_tile(
                a + o * 4, 0, a_outer, a_inner, b, b_outer, b_inner, outer, inner, c, c_rows + o * 8, start, columns, 0
            )  # fmt: skip
            o += LANES
    while o + PACKED_ROWS <= outs:
        packed_tile(
            a + o * 4, 0, a_outer, a_inner, b, b_outer, b_inner, outer, inner, c, c_rows + o * 8, start, columns, 0
        )  # fmt: skip
        o += PACKED_ROWS
    while o < outs:
        tile(
            a, a_rows + o * 8, a_outer, a_inner, b, b_outer, b_inner, outer, inner, c, c_rows + o * 8, start, columns, 0
        )  # fmt: skip
        o += TILE_ROWS
