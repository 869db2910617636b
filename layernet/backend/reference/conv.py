"""Convolution as a matrix product: every window of the image is one row of a matrix, every filter a column of another.

Over images (N, H, W, C) and filters (out, kh, kw, C / groups). With groups, channels and filters fall into as many
equal parts that know nothing of each other, and every matrix becomes a stack with one for each group.
"""

from __future__ import annotations

from typing import Any

from layernet.backend import Array, Shape
from layernet.backend.reference.linear import LinearOps
from layernet.backend.window import Window


class ConvOps(LinearOps):
    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> tuple[Array, Any]:
        """y[n, h, w, o] = bias[o] + sum over i, j, c of x[n, h s + i d - p, w s + j d - p, c] weight[o, i, j, c].

        s, p, d are the window's stride, padding and dilation; pixels outside the image are 0.
        """
        columns = self._im2col(x, window, groups)
        y = self.matmul(columns, _filters(weight, groups).transpose(0, 2, 1))
        y = y.transpose(1, 0, 2).reshape(len(x), *window.out_size(x.shape[1:3]), len(weight))
        if bias is not None:
            y += bias
        return y, (x, weight, window, groups)

    def conv2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dw, db). As y = columns filters^T: d columns = dy filters, d filters = dy^T columns."""
        x, weight, window, groups = res
        rows = dy.reshape(-1, groups, len(weight) // groups).transpose(1, 0, 2)
        dx = dw = None
        if need_dx:
            dx = self._col2im(self.matmul(rows, _filters(weight, groups)), x.shape, window, groups)
        if need_dw:
            dw = self.matmul(rows.transpose(0, 2, 1), self._im2col(x, window, groups)).reshape(weight.shape)
        db = dy.sum(axis=(0, 1, 2)) if need_db else None
        return dx, dw, db

    def _im2col(self, x: Array, window: Window, groups: int) -> Array:
        """The pixels under the window at each place: (groups, N * places, kh * kw * C / groups)."""
        n, height, width, channels = x.shape
        shape = _columns_shape(x.shape, window, groups)
        columns = self.xp.zeros(shape, dtype=x.dtype)
        image = x.reshape(n, height, width, groups, channels // groups).transpose(3, 0, 1, 2, 4)
        for tap in window.taps((height, width)):
            columns[..., tap.row, tap.column, :][tap.feeds] = image[tap.reads]
        return columns.reshape(groups, n * shape[2] * shape[3], -1)

    def _col2im(self, columns: Array, shape: Shape, window: Window, groups: int) -> Array:
        """The transpose of `_im2col`: every pixel sums what the windows over it hold for it."""
        n, height, width, channels = shape
        columns = columns.reshape(_columns_shape(shape, window, groups))
        x = self.xp.zeros(shape, dtype=columns.dtype)
        image = x.reshape(n, height, width, groups, channels // groups).transpose(3, 0, 1, 2, 4)  # a view of x
        for tap in window.taps((height, width)):
            image[tap.reads] += columns[..., tap.row, tap.column, :][tap.feeds]
        return x


def _filters(weight: Array, groups: int) -> Array:
    """(groups, out / groups, kh * kw * C / groups)"""
    return weight.reshape(groups, len(weight) // groups, -1)


def _columns_shape(shape: Shape, window: Window, groups: int) -> Shape:
    """(groups, N, rows of places, columns of places, kh, kw, C / groups)"""
    n, height, width, channels = shape
    return (groups, n, *window.out_size((height, width)), *window.kernel, channels // groups)
