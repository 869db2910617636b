"""Convolution as a matrix product: every window of the image is one row of a matrix, every filter a column of another.

Over images (N, H, W, C) and filters (out, kh, kw, C / groups). With groups, channels and filters fall into as many
equal parts that know nothing of each other, and every matrix becomes a stack with one for each group.
"""

from __future__ import annotations

import math
from typing import Any

from layernet.backend import Array, Shape
from layernet.backend.reference.linear import LinearOps
from layernet.backend.window import Pair, Window


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
        """(dx, dw, db)"""
        x, weight, window, groups = res
        dx = self._conv2d_dx(dy, x.shape, weight, window, groups) if need_dx else None
        dw = self._conv2d_dw(dy, x, weight.shape, window, groups) if need_dw else None
        return dx, dw, self._conv2d_db(dy) if need_db else None

    def conv_transpose2d(
        self, x: Array, weight: Array, bias: Array | None, window: Window, size: Pair, groups: int = 1
    ) -> tuple[Array, Any]:
        """What `conv2d` with this weight (in, kh, kw, out / groups) takes an image of `size` to x by, transposed.

        y[n, h, w, o] = bias[o] + sum of x[n, r, c, i] weight[i, j, k, o] over all (r, c, i, j, k) with
        h = r s + j d - p and w = c s + k d - p.
        """
        y = self._conv2d_dx(x, (len(x), *size, weight.shape[3] * groups), weight, window, groups)
        if bias is not None:
            y += bias
        return y, (x, weight, window, groups)

    def conv_transpose2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dw, db). y is linear in x by the transpose of a convolution, so dx is that convolution of dy.

        sum(dy y) = sum(x conv(dy)), so dw is what the convolution's weight gets when it is given dy and sent back x.
        """
        x, weight, window, groups = res
        dx = self.conv2d(dy, weight, None, window, groups)[0] if need_dx else None
        dw = self._conv2d_dw(x, dy, weight.shape, window, groups) if need_dw else None
        return dx, dw, self._conv2d_db(dy) if need_db else None

    def _conv2d_dx(self, dy: Array, shape: Shape, weight: Array, window: Window, groups: int) -> Array:
        """For x of this shape. As y = columns filters^T: d columns = dy filters."""
        return self._col2im(self.matmul(_rows(dy, groups), _filters(weight, groups)), shape, window, groups)

    def _conv2d_dw(self, dy: Array, x: Array, shape: Shape, window: Window, groups: int) -> Array:
        """For a weight of this shape. As y = columns filters^T: d filters = dy^T columns."""
        rows = _rows(dy, groups).transpose(0, 2, 1)
        return self.matmul(rows, self._im2col(x, window, groups)).reshape(shape)

    def _conv2d_db(self, dy: Array) -> Array:
        return dy.sum(axis=(0, 1, 2))

    def _im2col(self, x: Array, window: Window, groups: int) -> Array:
        """The pixels under the window at each place: (groups, N * places, kh * kw * C / groups)."""
        n, height, width, channels = x.shape
        shape = _columns_shape(x.shape, window, groups)
        columns = self.xp.zeros(shape, dtype=x.dtype)
        image = x.reshape(n, height, width, groups, channels // groups).transpose(3, 0, 1, 2, 4)
        for tap in window.taps((height, width)):
            columns[..., tap.row, tap.column, :][tap.feeds] = image[tap.reads]
        return columns.reshape(groups, n * shape[2] * shape[3], math.prod(shape[4:]))

    def _col2im(self, columns: Array, shape: Shape, window: Window, groups: int) -> Array:
        """The transpose of `_im2col`: every pixel sums what the windows over it hold for it."""
        n, height, width, channels = shape
        columns = columns.reshape(_columns_shape(shape, window, groups))
        x = self.xp.zeros(shape, dtype=columns.dtype)
        image = x.reshape(n, height, width, groups, channels // groups).transpose(3, 0, 1, 2, 4)  # a view of x
        for tap in window.taps((height, width)):
            image[tap.reads] += columns[..., tap.row, tap.column, :][tap.feeds]
        return x


def _rows(dy: Array, groups: int) -> Array:
    """(groups, N * places, out / groups)"""
    return dy.reshape(-1, groups, dy.shape[-1] // groups).transpose(1, 0, 2)


def _filters(weight: Array, groups: int) -> Array:
    """(groups, out / groups, kh * kw * C / groups)"""
    return weight.reshape(groups, len(weight) // groups, -1)


def _columns_shape(shape: Shape, window: Window, groups: int) -> Shape:
    """(groups, N, rows of places, columns of places, kh, kw, C / groups)"""
    n, height, width, channels = shape
    return (groups, n, *window.out_size((height, width)), *window.kernel, channels // groups)
