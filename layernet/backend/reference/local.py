"""Convolution whose filters are not shared: at every place of the window a matrix product of its own."""

from __future__ import annotations

import math
from typing import Any

from layernet.backend import Array
from layernet.backend.reference.conv import ConvOps
from layernet.backend.window import Window


class LocalOps(ConvOps):
    def local2d(
        self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1
    ) -> tuple[Array, Any]:
        """y[n, h, w, o] = bias[h, w, o] + sum over i, j, c of x[n, h s + i d - p, ...] weight[h, w, o, i, j, c].

        Over images (N, H, W, C), filters (rows of places, columns of places, out, kh, kw, C / groups).
        """
        columns = self._columns_by_place(x, window, groups)
        y = self.matmul(columns, _filters_by_place(weight, groups).transpose(0, 1, 3, 2))
        y = y.transpose(2, 1, 0, 3).reshape(len(x), *weight.shape[:3])
        if bias is not None:
            y += bias
        return y, (x, weight, window, groups)

    def local2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dw, db). As y = columns filters^T at each place: d columns = dy filters, d filters = dy^T columns."""
        x, weight, window, groups = res
        rows, columns, out = weight.shape[:3]
        by_place = dy.reshape(len(dy), rows * columns, groups, out // groups).transpose(2, 1, 0, 3)
        dx = dw = None
        if need_dx:
            pixels = self.matmul(by_place, _filters_by_place(weight, groups))  # (groups, places, N, ...)
            dx = self._col2im(pixels.transpose(0, 2, 1, 3), x.shape, window, groups)
        if need_dw:
            filters = self.matmul(by_place.transpose(0, 1, 3, 2), self._columns_by_place(x, window, groups))
            dw = filters.transpose(1, 0, 2, 3).reshape(weight.shape)
        db = dy.sum(axis=0) if need_db else None
        return dx, dw, db

    def _columns_by_place(self, x: Array, window: Window, groups: int) -> Array:
        """(groups, places, N, kh * kw * C / groups)"""
        columns = self._im2col(x, window, groups)
        places = math.prod(window.out_size(x.shape[1:3]))
        return columns.reshape(groups, len(x), places, columns.shape[-1]).transpose(0, 2, 1, 3)


def _filters_by_place(weight: Array, groups: int) -> Array:
    """(groups, places, out / groups, kh * kw * C / groups)"""
    rows, columns, out = weight.shape[:3]
    return weight.reshape(rows * columns, groups, out // groups, -1).transpose(1, 0, 2, 3)
