"""Convolution on the CPU: by Winograd's filtering where it is faster, otherwise strip by strip, over the threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from layernet.backend import Array, Shape, numpy_winograd
from layernet.backend.numpy_linear import NumpyLinearOps
from layernet.backend.numpy_strips import Canvas, Strip, copy_squares, strips
from layernet.backend.numpy_threads import LEAST_PRODUCT, slices, workers
from layernet.backend.reference.conv import ConvOps
from layernet.backend.window import Window

_BLOCK_BYTES = 1 << 22  # what the columns of a strip may take: between products threads wait for Python's lock


class NumpyConvOps(NumpyLinearOps, ConvOps):
    """The reference's matrix products, each strip's columns copied from one strided view of a padded scratch image.

    `precise` leaves Winograd's filtering out.
    """

    precise: bool

    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> tuple[Array, Any]:
        return self._convolved(x, weight, bias, window, groups, False), (x, weight, window, groups)

    def conv2d_relu(
        self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1
    ) -> tuple[Array, Any]:
        """relu(conv2d(x))"""
        y = self._convolved(x, weight, bias, window, groups, True)
        return y, ((x, weight, window, groups), y)

    def _convolved(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int, relu: bool) -> Array:
        if self._winograd_suits(x, weight, window, groups, len(weight)):
            return numpy_winograd.convolve(x, weight, bias, window, relu=relu)
        y = np.empty((len(x), *window.out_size(x.shape[1:3]), len(weight)), dtype=x.dtype)
        if groups > 1:
            self._in_groups(x, weight, bias, window, groups, relu, y)
            return y
        filters = weight.reshape(len(weight), -1).T
        row_bias = None if bias is None else np.tile(bias, y.shape[2])  # numpy adds long rows faster than short ones
        columns = _Columns(x, window, len(weight))

        def task(part: slice) -> None:
            for strip, matrix in columns.of(part):
                block = y[strip.images, strip.rows]
                np.matmul(matrix, filters, out=block.reshape(len(matrix), len(weight)))
                if row_bias is not None:
                    rows = block.reshape(-1, len(row_bias))
                    rows += row_bias
                if relu:
                    np.maximum(block, 0, out=block)

        workers.split(len(columns.strips), columns.shares, task)
        return y

    def _in_groups(
        self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int, relu: bool, y: Array
    ) -> None:
        convolve = super().conv2d

        def task(images: slice) -> None:
            y[images] = convolve(x[images], weight, bias, window, groups)[0]
            if relu:
                np.maximum(y[images], 0, out=y[images])

        shares = _shares(y, weight.shape)
        workers.each(_blocks(x.shape, x.itemsize, window, shares), shares, task)

    def _conv2d_db(self, dy: Array) -> Array:
        return self.channel_sum(dy)

    def _conv2d_dw(self, dy: Array, x: Array, shape: Shape, window: Window, groups: int) -> Array:
        if self._winograd_suits(x, dy, window, groups, shape[0]):
            return numpy_winograd.filter_gradient(dy, x, shape, window)
        if groups > 1:
            return self._dw_in_groups(dy, x, shape, window, groups)
        columns = _Columns(x, window, shape[0])

        def task(part: slice) -> Array:
            dw = np.zeros((columns.depth, shape[0]), dtype=dy.dtype)  # BLAS is faster at this than at dw itself
            more = np.empty_like(dw)
            for strip, matrix in columns.of(part):
                rows = dy[strip.images, strip.rows].reshape(len(matrix), shape[0])
                dw += np.matmul(matrix.T, rows, out=more)
            return dw

        total = _total(workers.split(len(columns.strips), columns.shares, task))
        return np.ascontiguousarray(total.T).reshape(shape)

    def _dw_in_groups(self, dy: Array, x: Array, shape: Shape, window: Window, groups: int) -> Array:
        gradient, shares = super()._conv2d_dw, _shares(dy, shape)
        blocks = _blocks(x.shape, x.itemsize, window, shares)

        def task(part: slice) -> Array:
            dw = np.zeros(shape, dtype=dy.dtype)
            for images in blocks[part]:
                dw += gradient(dy[images], x[images], shape, window, groups)
            return dw

        return _total(workers.split(len(blocks), shares, task))

    def _conv2d_dx(self, dy: Array, shape: Shape, weight: Array, window: Window, groups: int) -> Array:
        """With stride 1, dx is dy convolved with the filters turned by half a turn, their in and out exchanged.

        The copies it takes are of long runs, so it beats adding the taps up unless dy is much smaller than x.
        """
        turned = _turned(window)
        if groups == 1 and turned is not None:
            if self._winograd_suits(dy, weight, turned, groups, shape[3]):
                return numpy_winograd.convolve(dy, weight, None, turned, relu=False, turned=True)
            if math.prod(shape[1:3]) <= 1.5 * math.prod(dy.shape[1:3]):
                filters = weight[:, ::-1, ::-1].transpose(3, 1, 2, 0)
                return self._convolved(dy, filters, None, turned, groups, False)
        dx = np.empty(shape, dtype=dy.dtype)
        gradient = super()._conv2d_dx

        def task(images: slice) -> None:
            part = dy[images]
            dx[images] = gradient(part, (len(part), *shape[1:]), weight, window, groups)

        shares = _shares(dy, weight.shape)
        workers.each(_blocks(shape, dy.itemsize, window, shares), shares, task)
        return dx

    def _winograd_suits(self, x: Array, other: Array, window: Window, groups: int, outs: int) -> bool:
        single = x.dtype == other.dtype == np.float32
        return not self.precise and groups == 1 and single and numpy_winograd.suits(window, x.shape, outs)


class _Columns:
    """The windows of a batch as rows of a matrix, strip by strip."""

    def __init__(self, x: Array, window: Window, outs: int) -> None:
        self.x, self.window = x, window
        self.size = window.out_size(x.shape[1:3])
        self.depth = math.prod(window.kernel) * x.shape[3]
        self.shares = workers.shares(len(x) * math.prod(self.size) * self.depth * outs, LEAST_PRODUCT)
        row_bytes = self.size[1] * self.depth * x.itemsize
        self.strips = strips(len(x), self.size[0], row_bytes, _BLOCK_BYTES, self.shares)

    def of(self, part: slice) -> Iterator[tuple[Strip, Array]]:
        """(strip, columns) of some strips: (images * places, kh * kw * C), overwritten by the next."""
        x, window, chosen = self.x, self.window, self.strips[part]
        if window == Window((1, 1)):  # the columns are the image
            yield from ((strip, x[strip.images, strip.rows].reshape(-1, self.depth)) for strip in chosen)
            return
        if not chosen:  # a batch of no images
            return
        images, rows = (max(strip.shape[axis] for strip in chosen) for axis in (0, 1))
        room = np.empty((images * rows * self.size[1], self.depth), dtype=x.dtype)
        (above, _), (left, right) = window.padding
        canvas = None
        if window.padding != ((0, 0), (0, 0)):
            canvas = Canvas(images, self._height(rows), x.shape[2] + left + right, x)
        for strip in chosen:
            count, places = strip.shape
            top, height = strip.rows.start * window.stride[0] - above, self._height(places)
            if canvas is None:
                image = x[strip.images, top : top + height]
            else:
                image = canvas.paint(x, strip.images, top, left, height)
            matrix = room[: count * places * self.size[1]]
            copy_squares(image, window.kernel, window.stride, window.dilation, (places, self.size[1]), matrix)
            yield strip, matrix

    def _height(self, rows: int) -> int:
        """Rows of pixels under so many rows of places."""
        return (rows - 1) * self.window.stride[0] + self.window.extent[0]


def _total(parts: list[Array]) -> Array:
    for other in parts[1:]:
        parts[0] += other
    return parts[0]


def _shares(dy: Array, weight: Shape) -> int:
    """Threads for a convolution with so many outputs and filters of this shape."""
    return workers.shares(dy.size * math.prod(weight[1:]), LEAST_PRODUCT)


def _turned(window: Window) -> Window | None:
    """The window that takes dy back to the size of x; None where there is none."""
    padding = tuple(
        (extent - 1 - before, extent - 1 - after)
        for extent, (before, after) in zip(window.extent, window.padding, strict=True)
    )
    if window.stride != (1, 1) or min(map(min, padding)) < 0:
        return None
    return Window(window.kernel, padding=(padding[0], padding[1]), dilation=window.dilation)


def _blocks(shape: Shape, itemsize: int, window: Window, shares: int) -> list[slice]:
    """Images (N, H, W, C), a few at a time, by what their columns take."""
    image_bytes = math.prod((*window.out_size((shape[1], shape[2])), *window.kernel, shape[3], itemsize))
    return slices(shape[0], _BLOCK_BYTES // max(1, image_bytes), shares)
