"""Response normalisation across neighbouring maps: a window that slides along the channels of each pixel.

The squares of some pixels are laid out with zeros around each, so that the sum of a window is a sum of shifted loads.
The power 3/4 is made of roots; for other powers the reference is fast enough.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.arrays import gradient, takes
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.scratch import Scratch
from layernet.backend.compiled.vectors import fma, load, load_first, load_float, splat, square_root, store, store_first
from layernet.backend.reference.local_norm import LocalNormOps, Neighbourhood

_PIXELS = 16  # laid out at a time: a load that a store before it only half covers would wait for it
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(inline="always")
def _clear(slab: int, pitch: int) -> None:
    for c in range(0, _PIXELS * pitch, LANES):
        store(slab + c * 4, splat(_ZERO))


@njit(inline="always")
def _window(at: int, size: int) -> Any:
    """The sum of `size` numbers from each of these on."""
    total = load(at)
    for shift in range(1, size):
        total = total + load(at + shift * 4)
    return total


@njit(inline="always")
def _power(d: Any) -> Any:
    """d^(-3/4)"""
    root = square_root(d)
    return splat(_ONE) / (root * square_root(root))


_SLABS = Scratch()


@Kernel
def _forward(task, tasks, x, pixels, channels, before, size, constants, y, slabs, pitch):
    first, last = split(pixels, task, tasks)
    slab = slabs + task * _PIXELS * pitch * 4
    alpha, k = splat(load_float(constants)), splat(load_float(constants + 4))
    _clear(slab, pitch)
    for begin in range(first, last, _PIXELS):
        end = min(begin + _PIXELS, last)
        for pixel in range(begin, end):
            row = slab + ((pixel - begin) * pitch + before) * 4
            for c in range(0, channels, LANES):
                a = load_first(x + (pixel * channels + c) * 4, channels - c)
                store_first(row + c * 4, a * a, channels - c)
        for pixel in range(begin, end):
            row = slab + (pixel - begin) * pitch * 4
            for c in range(0, channels, LANES):
                at, left = (pixel * channels + c) * 4, channels - c
                d = fma(_window(row + c * 4, size), alpha, k)
                store_first(y + at, load_first(x + at, left) * _power(d), left)


@Kernel
def _backward(task, tasks, x, dy, pixels, channels, before, size, constants, dx, slabs, pitch):
    """dx = dy d^-b - 2 alpha b x S'(dy x d^(-b - 1)), where S' sums over those whose neighbour a channel is."""
    first, last = split(pixels, task, tasks)
    slab = slabs + task * _PIXELS * pitch * 8
    other = slab + _PIXELS * pitch * 4
    after = size - 1 - before
    alpha, k = splat(load_float(constants)), splat(load_float(constants + 4))
    factor = splat(load_float(constants + 8))
    _clear(slab, pitch)
    _clear(other, pitch)
    for begin in range(first, last, _PIXELS):
        end = min(begin + _PIXELS, last)
        for pixel in range(begin, end):
            row = slab + ((pixel - begin) * pitch + before) * 4
            for c in range(0, channels, LANES):
                a = load_first(x + (pixel * channels + c) * 4, channels - c)
                store_first(row + c * 4, a * a, channels - c)
        for pixel in range(begin, end):
            row, target = slab + (pixel - begin) * pitch * 4, other + ((pixel - begin) * pitch + after) * 4
            for c in range(0, channels, LANES):
                at, left = (pixel * channels + c) * 4, channels - c
                d = fma(_window(row + c * 4, size), alpha, k)
                straight = load_first(dy + at, left) * _power(d)
                store_first(dx + at, straight, left)
                store_first(target + c * 4, straight * load_first(x + at, left) / d, left)
        for pixel in range(begin, end):
            row = other + (pixel - begin) * pitch * 4
            for c in range(0, channels, LANES):
                at, left = (pixel * channels + c) * 4, channels - c
                across = _window(row + c * 4, size) * load_first(x + at, left)
                store_first(dx + at, fma(across, factor, load_first(dx + at, left)), left)


class _Kept(NamedTuple):
    x: Array
    around: Neighbourhood
    constants: Array


def _pitch(channels: int, size: int) -> int:
    return channels + size + 2 * LANES


class CompiledLocalNormOps(LocalNormOps):
    def local_response_norm(
        self, x: Array, around: Neighbourhood, alpha: float, beta: float, k: float
    ) -> tuple[Array, Any]:
        if beta != 0.75 or around.blocked or around.axes not in ((-1,), (x.ndim - 1,)) or not takes(x):
            return super().local_response_norm(x, around, alpha, beta, k)
        channels, y = x.shape[-1], np.empty_like(x)
        constants = np.array([alpha, k, -2.0 * alpha * beta], dtype=np.float32)
        pitch = _pitch(channels, around.size)
        slabs = _SLABS.room(threads() * _PIXELS * pitch * 4)
        _forward.launch(
            x=x, pixels=x.size // channels, channels=channels, before=around.size // 2, size=around.size,
            constants=constants, y=y, slabs=slabs, pitch=pitch,
        )  # fmt: skip
        return y, _Kept(x, around, constants)

    def local_response_norm_backward(self, dy: Array, res: Any) -> Array:
        if not isinstance(res, _Kept):
            return super().local_response_norm_backward(dy, res)
        x, around, constants = res
        dy = gradient(dy, x.shape)
        channels, dx = x.shape[-1], np.empty_like(x)
        pitch = _pitch(channels, around.size)
        slabs = _SLABS.room(threads() * _PIXELS * pitch * 8)
        _backward.launch(
            x=x, dy=dy, pixels=x.size // channels, channels=channels, before=around.size // 2, size=around.size,
            constants=constants, dx=dx, slabs=slabs, pitch=pitch,
        )  # fmt: skip
        return dx
