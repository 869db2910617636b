"""Pooling on the CPU: the reference's taps, a few images at a time, without temporaries, over the threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.numpy_threads import LEAST_PASS, workers
from layernet.backend.reference.pool import PoolOps
from layernet.backend.window import Window

_BLOCK_BYTES = 1 << 20  # what a block of images may take: about the level-2 cache of a core


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
        taps = window.taps(x.shape[1:3])

        def task(images: slice) -> None:
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
    count = len(arrays[0])
    size = max(1, _BLOCK_BYTES // max(1, sum(array.nbytes for array in arrays) // max(1, count)))

    def several(part: slice) -> None:
        for start in range(part.start, part.stop, size):
            task(slice(start, min(start + size, part.stop)))

    workers.split(count, workers.shares(arrays[0].size, LEAST_PASS), several)
