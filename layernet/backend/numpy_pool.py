"""Pooling on the CPU: the reference's taps, a few images at a time, without temporaries, over the threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.numpy_strips import items
from layernet.backend.numpy_threads import LEAST_PASS, slices, workers
from layernet.backend.reference.pool import PoolOps
from layernet.backend.window import Window

_BLOCK_BYTES = 1 << 21  # what a block of images may take: smaller blocks cost more than larger caches


class NumpyPoolOps(PoolOps):
    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Any]:
        y = np.empty((len(x), *window.out_size(x.shape[1:3]), x.shape[3]), dtype=x.dtype)

        def task(images: slice) -> None:
            y[images] = PoolOps.max_pool2d(self, x[images], window)[0]

        _over_images(task, x, y)
        return y, (x, y, window)

    def max_pool2d_backward(self, dy: Array, res: Any) -> Array:
        x, y, window = res
        dx = np.zeros(x.shape, dtype=dy.dtype)

        def task(images: slice) -> None:
            x_part, y_part, dy_part, dx_part = x[images], y[images], dy[images], dx[images]
            unclaimed = np.ones(y_part.shape, dtype=bool)
            won, share = np.empty_like(unclaimed), np.empty(y_part.shape, dtype=dy.dtype)
            if _overlaps(window, x):
                pixels = _Phases(x_part, window, np.nan)  # which equals nothing
                changes = _Phases(dx_part, window, 0, empty=True)
                for row, column in pixels.taps():
                    np.equal(pixels.under(row, column), y_part, out=won)
                    won &= unclaimed
                    unclaimed ^= won
                    target = changes.under(row, column)
                    target += np.multiply(dy_part, won, out=share)
                changes.put_back(dx_part)
                return
            for tap in window.taps(x.shape[1:3]):
                tap_won, tap_share = won[tap.feeds], share[tap.feeds]
                np.equal(x_part[tap.reads], y_part[tap.feeds], out=tap_won)
                tap_won &= unclaimed[tap.feeds]
                unclaimed[tap.feeds] ^= tap_won
                np.multiply(dy_part[tap.feeds], tap_won, out=tap_share)
                dx_part[tap.reads] += tap_share

        _over_images(task, x, dx, y, dy, dy)
        return dx

    def avg_pool2d(self, x: Array, window: Window, divisor: Array | float) -> tuple[Array, Any]:
        y = np.empty((len(x), *window.out_size(x.shape[1:3]), x.shape[3]), dtype=x.dtype)

        def task(images: slice) -> None:
            y[images] = PoolOps.avg_pool2d(self, x[images], window, divisor)[0]

        _over_images(task, x, y)
        return y, (x.shape, window, divisor)

    def avg_pool2d_backward(self, dy: Array, res: Any) -> Array:
        shape, window, divisor = res
        dx = np.empty(shape, dtype=dy.dtype)

        def task(images: slice) -> None:
            part = dy[images]
            dx[images] = PoolOps.avg_pool2d_backward(self, part, ((len(part), *shape[1:]), window, divisor))

        _over_images(task, dx, dy, dy)
        return dx


def _over_images(task: Callable[[slice], None], *arrays: Array) -> None:
    """`task` on a few images at a time: as many as fit into the cache with what they take in all the arrays."""
    count, shares = len(arrays[0]), workers.shares(arrays[0].size, LEAST_PASS)
    image_bytes = sum(array.nbytes for array in arrays) // max(1, count)
    workers.each(slices(count, _BLOCK_BYTES // max(1, image_bytes), shares), shares, task)


def _overlaps(window: Window, x: Array) -> bool:
    """Whether windows overlap and skip pixels: then each phase is copied once and serves several taps."""
    return (
        window.dilation == (1, 1)
        and x.flags.c_contiguous
        and window.stride[1] > 1
        and any(k > s for k, s in zip(window.kernel, window.stride, strict=True))
    )


class _Phases:
    """Images (N, H, W, C) as stride x stride images of every stride-th pixel, `beyond` where there is no pixel.

    With `empty`, that everywhere.

    Under a tap of the window neighbouring places then have neighbouring pixels: numpy's loops run along whole rows.
    """

    def __init__(self, images: Array, window: Window, beyond: float, *, empty: bool = False) -> None:
        self.window, self.size = window, window.out_size(images.shape[1:3])
        (down, right), (height, width) = window.stride, self.size
        shape = (height + (window.kernel[0] - 1) // down, width + (window.kernel[1] - 1) // right)
        self.room = np.full((down, right, len(images), *shape, images.shape[3]), beyond, dtype=images.dtype)
        if not empty:
            for phase, pixels in self._pairs(images):
                items(phase)[...] = items(pixels)

    def taps(self) -> Iterator[tuple[int, int]]:
        """All taps of the window, in reading order."""
        return product(range(self.window.kernel[0]), range(self.window.kernel[1]))

    def under(self, row: int, column: int) -> Array:
        """The pixels under this tap, one for each place."""
        (down, right), (height, width) = self.window.stride, self.size
        phase, top, left = self.room[row % down, column % right], row // down, column // right
        return phase[:, top : top + height, left : left + width]

    def put_back(self, images: Array) -> None:
        """The phases into the images they are of."""
        for phase, pixels in self._pairs(images):
            items(pixels)[...] = items(phase)

    def _pairs(self, images: Array) -> Iterator[tuple[Array, Array]]:
        for row, column in product(range(self.window.stride[0]), range(self.window.stride[1])):
            phase = self.room[row, column]
            rows, lines = self._shared(0, row, phase.shape[1], images.shape[1])
            columns, places = self._shared(1, column, phase.shape[2], images.shape[2])
            yield phase[:, rows, columns], images[:, lines, places]

    def _shared(self, axis: int, phase: int, count: int, size: int) -> tuple[slice, slice]:
        """Along an axis, which of the `count` pixels of a phase are in the image, and where."""
        stride, before = self.window.stride[axis], self.window.padding[axis][0]
        first = max(0, -((phase - before) // stride))
        last = max(first, min(count, -((phase - before - size) // stride)))
        start = first * stride + phase - before
        return slice(first, last), slice(start, start + (last - first) * stride, stride)
