"""Convolution and pooling on the CPU, a few images at a time, so that what a block needs stays in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.reference.conv import ConvOps
from layernet.backend.reference.pool import PoolOps
from layernet.backend.window import Window

_BLOCK_BYTES = 1 << 20  # what a block of images may take: about the level-2 cache of a core


class NumpyConvOps(ConvOps):
    """The reference's matrix products, each block's columns copied from one strided view of a padded scratch image."""

    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> tuple[Array, Any]:
        height, width = window.out_size(x.shape[1:3])
        y = np.empty((len(x), height, width, len(weight)), dtype=x.dtype)
        res = (x, weight, window, groups)
        if groups > 1:
            for images in _blocks(len(x), _columns_bytes(x.shape, x.itemsize, window)):
                y[images] = super().conv2d(x[images], weight, bias, window, groups)[0]
            return y, res
        filters = weight.reshape(len(weight), -1).T
        row_bias = None if bias is None else np.tile(bias, width)  # numpy adds long rows faster than short ones
        for images, columns in _column_blocks(x, window):
            block = y[images]
            np.matmul(columns, filters, out=block.reshape(len(columns), len(weight)))
            if row_bias is not None:
                rows = block.reshape(-1, len(row_bias))
                rows += row_bias
        return y, res

    def _conv2d_db(self, dy: Array) -> Array:
        # a product with ones: BLAS sums columns faster than numpy does
        rows = dy.reshape(-1, dy.shape[-1])
        return np.ones(len(rows), dtype=dy.dtype) @ rows

    def _conv2d_dw(self, dy: Array, x: Array, shape: Shape, window: Window, groups: int) -> Array:
        dw = np.zeros(shape, dtype=dy.dtype)
        if groups > 1:
            for images in _blocks(len(x), _columns_bytes(x.shape, x.itemsize, window)):
                dw += super()._conv2d_dw(dy[images], x[images], shape, window, groups)
            return dw
        flat = dw.reshape(len(dw), -1)
        part = np.empty_like(flat)
        for images, columns in _column_blocks(x, window):
            flat += np.matmul(dy[images].reshape(len(columns), len(dw)).T, columns, out=part)
        return dw

    def _conv2d_dx(self, dy: Array, shape: Shape, weight: Array, window: Window, groups: int) -> Array:
        """With stride 1, dx is dy convolved with the filters turned by half a turn, their in and out exchanged.

        The copies it takes are of long runs, so it beats adding the taps up unless dy is much smaller than x.
        """
        turned = _turned(window)
        if groups == 1 and turned is not None and math.prod(shape[1:3]) <= 1.5 * math.prod(dy.shape[1:3]):
            return self.conv2d(dy, weight[:, ::-1, ::-1].transpose(3, 1, 2, 0), None, turned)[0]
        dx = np.empty(shape, dtype=dy.dtype)
        for images in _blocks(len(dy), _columns_bytes(shape, dy.itemsize, window)):
            part = dy[images]
            dx[images] = super()._conv2d_dx(part, (len(part), *shape[1:]), weight, window, groups)
        return dx


class NumpyPoolOps(PoolOps):
    """The reference's taps, a few images at a time and without temporaries."""

    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Any]:
        y = np.empty((len(x), *window.out_size(x.shape[1:3]), x.shape[3]), dtype=x.dtype)
        for images in _blocks(len(x), _image_bytes(x, y)):
            y[images] = super().max_pool2d(x[images], window)[0]
        return y, (x, y, window)

    def max_pool2d_backward(self, dy: Array, res: Any) -> Array:
        x, y, window = res
        dx = np.zeros(x.shape, dtype=dy.dtype)
        taps = window.taps(x.shape[1:3])
        for images in _blocks(len(x), _image_bytes(x, dx, y, dy, dy)):
            x_part, y_part, dy_part, dx_part = x[images], y[images], dy[images], dx[images]
            unclaimed = np.ones(y_part.shape, dtype=bool)
            won, share = np.empty_like(unclaimed), np.empty(y_part.shape, dtype=dy.dtype)
            for tap in taps:
                tap_won, tap_share = won[tap.feeds], share[tap.feeds]
                np.equal(x_part[tap.reads], y_part[tap.feeds], out=tap_won)
                tap_won &= unclaimed[tap.feeds]
                unclaimed[tap.feeds] ^= tap_won
                np.multiply(dy_part[tap.feeds], tap_won, out=tap_share)
                dx_part[tap.reads] += tap_share
        return dx


def _turned(window: Window) -> Window | None:
    """The window that takes dy back to the size of x; None where there is none."""
    padding = tuple(
        (extent - 1 - before, extent - 1 - after)
        for extent, (before, after) in zip(window.extent, window.padding, strict=True)
    )
    if window.stride != (1, 1) or min(map(min, padding)) < 0:
        return None
    return Window(window.kernel, padding=(padding[0], padding[1]), dilation=window.dilation)


def _blocks(n: int, image_bytes: int) -> Iterator[slice]:
    """Slices of a few images each, that together are all n."""
    size = max(1, _BLOCK_BYTES // max(1, image_bytes))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _image_bytes(*arrays: Array) -> int:
    """Bytes that one image takes in all the arrays together."""
    return int(sum(array.nbytes for array in arrays)) // max(1, len(arrays[0]))


def _columns_bytes(shape: Shape, itemsize: int, window: Window) -> int:
    """Bytes of one image's columns."""
    return math.prod((*window.out_size((shape[1], shape[2])), *window.kernel, shape[3], itemsize))


def _column_blocks(x: Array, window: Window) -> Iterator[tuple[slice, Array]]:
    """(images, columns) block by block; the columns (images * places, kh * kw * C) are overwritten by the next."""
    n, height, width, channels = x.shape
    if window == Window((1, 1)):  # the columns are the image
        yield slice(0, n), x.reshape(-1, channels)
        return
    (top, bottom), (left, right) = window.padding
    blocks = list(_blocks(n, _columns_bytes(x.shape, x.itemsize, window)))
    size = blocks[0].stop if blocks else 0
    columns = np.empty((size, *window.out_size((height, width)), *window.kernel, channels), dtype=x.dtype)
    padded = np.zeros((size, height + top + bottom, width + left + right, channels), dtype=x.dtype)
    for images in blocks:
        count = images.stop - images.start
        block = x[images]
        if window.padding != ((0, 0), (0, 0)):
            padded[:count, top : top + height, left : left + width] = block
            block = padded[:count]
        columns[:count] = _windows(block, window)
        yield images, columns[:count].reshape(-1, math.prod(window.kernel) * channels)


def _windows(image: Array, window: Window) -> Array:
    """A view (N, rows of places, columns of places, kh, kw, C) of an image that is padded already."""
    n, row, column, channel = image.strides
    (step_down, step_right), (down, right) = window.stride, window.dilation
    bare = Window(window.kernel, window.stride, dilation=window.dilation)
    return np.lib.stride_tricks.as_strided(
        image,
        (len(image), *bare.out_size(image.shape[1:3]), *window.kernel, image.shape[3]),
        (n, row * step_down, column * step_right, row * down, column * right, channel),
        writeable=False,
    )
