"""Passes over memory that do a little arithmetic: ReLU and its gradient, sums over channels and of two arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.arrays import gradient, takes
from layernet.backend.compiled.lanes import LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.norm import BLOCK, Rows
from layernet.backend.compiled.vectors import load_first, maximum, splat, store_first, where_positive
from layernet.backend.reference.activation import ActivationOps
from layernet.backend.reference.channels import ChannelOps


@Kernel
def _relu(task, tasks, x, size, y):
    first, last = split(vectors_of(size), task, tasks)
    zero = splat(np.float32(0))
    for v in range(first, last):
        at, left = v * LANES * 4, size - v * LANES
        store_first(y + at, maximum(load_first(x + at, left), zero), left)


def relu(x: Array) -> Array:
    y = np.empty_like(x)
    _relu.launch(x=x, size=x.size, y=y)
    return y


@Kernel
def _relu_gradient(task, tasks, dy, y, rows, columns, dz, sums):
    """dz = dy where y > 0; per task, the sums of dz over each column."""
    first, last = split(rows, task, tasks)
    zero = splat(np.float32(0))
    own = sums + task * columns * 4
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        for c in range(0, columns, LANES):
            left = columns - c
            part = zero
            for row in range(begin, end):
                at = (row * columns + c) * 4
                value = load_first(dy + at, left)
                if y:
                    value = where_positive(load_first(y + at, left), value, zero)
                    store_first(dz + at, value, left)
                part = part + value
            if sums:
                store_first(own + c * 4, load_first(own + c * 4, left) + part, left)


def relu_gradient(dy: Array, y: Array) -> Array:
    """dy where y > 0, else 0."""
    dz = np.empty_like(dy)
    view = Rows.of(dy)
    _relu_gradient.launch(dy=dy, y=y, rows=view.rows, columns=view.columns, dz=dz, sums=0)
    return dz


def channel_sum(a: Array) -> Array:
    """The sum over all but the last axis, in float64."""
    view = Rows.of(a)
    sums = np.zeros((threads(), view.columns), dtype=np.float32)
    _relu_gradient.launch(dy=a, y=0, rows=view.rows, columns=view.columns, dz=0, sums=sums)
    return view.gather(sums)


def relu_gradient_and_sum(dy: Array, y: Array) -> tuple[Array, Array]:
    """(dy where y > 0, its sum over all but the last axis), in one pass."""
    dz = np.empty_like(dy)
    view = Rows.of(dy)
    sums = np.zeros((threads(), view.columns), dtype=np.float32)
    _relu_gradient.launch(dy=dy, y=y, rows=view.rows, columns=view.columns, dz=dz, sums=sums)
    return dz, view.gather(sums)


@Kernel
def _add(task, tasks, a, b, size, y):
    first, last = split(vectors_of(size), task, tasks)
    for v in range(first, last):
        at, left = v * LANES * 4, size - v * LANES
        store_first(y + at, load_first(a + at, left) + load_first(b + at, left), left)


def add(a: Array, b: Array, out: Array | None = None) -> Array:
    """a + b, in `out` where that is given; it may be a or b."""
    y = np.empty_like(a) if out is None else out
    _add.launch(a=a, b=b, size=a.size, y=y)
    return y


class CompiledChannelOps(ActivationOps, ChannelOps):
    def channel_sum(self, a: Array) -> Array:
        if not takes(a):
            return super().channel_sum(a)
        return channel_sum(a).astype(a.dtype)

    def relu(self, x: Array) -> tuple[Array, Any]:
        if not takes(x):
            return super().relu(x)
        y = relu(x)
        return y, y

    def relu_backward(self, dy: Array, res: Any) -> Array:
        if res.dtype != dy.dtype or not takes(res):
            return super().relu_backward(dy, res)
        return relu_gradient(gradient(dy, res.shape), res)
