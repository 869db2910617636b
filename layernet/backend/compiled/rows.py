"""Kernels that go row by row, a row being the last axis: softmax and its logarithm, layer norm, RMS norm.

A row is read two or three times, but from memory once: it stays in the cache.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.arrays import by_channel, gradient, takes
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.norm import BLOCK
from layernet.backend.compiled.vecmath import exp
from layernet.backend.compiled.vectors import (
    first_or,
    fma,
    largest,
    load_first,
    load_float,
    maximum,
    splat,
    store_first,
    store_float,
    total,
)
from layernet.backend.reference.norm import NormOps
from layernet.backend.reference.rectifier import RectifierOps

_MINUS_INFINITY, _ZERO, _ONE = np.float32(-np.inf), np.float32(0), np.float32(1)
_LOWEST = np.finfo(np.float32).min


@Kernel
def _softmax(task, tasks, x, rows, size, y):
    """y = exp(x - max x) / sum of that."""
    first, last = split(rows, task, tasks)
    zero, lowest = splat(_ZERO), splat(_MINUS_INFINITY)
    for row in range(first, last):
        source, target = x + row * size * 4, y + row * size * 4
        top = lowest
        for c in range(0, size, LANES):
            top = maximum(top, first_or(size - c, load_first(source + c * 4, size - c), lowest))
        highest, mass = splat(largest(top)), zero
        for c in range(0, size, LANES):
            e = exp(load_first(source + c * 4, size - c) - highest)
            store_first(target + c * 4, e, size - c)
            mass = mass + first_or(size - c, e, zero)
        share = splat(_ONE / total(mass))
        for c in range(0, size, LANES):
            store_first(target + c * 4, load_first(target + c * 4, size - c) * share, size - c)


@Kernel
def _softmax_gradient(task, tasks, dy, y, rows, size, dx):
    """dx = y (dy - sum of dy y)"""
    first, last = split(rows, task, tasks)
    for row in range(first, last):
        at = row * size * 4
        dot = splat(_ZERO)
        for c in range(0, size, LANES):
            dot = fma(load_first(dy + at + c * 4, size - c), load_first(y + at + c * 4, size - c), dot)
        whole = splat(total(dot))
        for c in range(0, size, LANES):
            to = at + c * 4
            value = load_first(y + to, size - c) * (load_first(dy + to, size - c) - whole)
            store_first(dx + to, value, size - c)


@Kernel
def _log_softmax(task, tasks, x, rows, size, y):
    """y = x - max x - log of the sum of exp of that, from the lowest float on."""
    first, last = split(rows, task, tasks)
    zero, lowest, floor = splat(_ZERO), splat(_MINUS_INFINITY), splat(_LOWEST)
    for row in range(first, last):
        source, target = x + row * size * 4, y + row * size * 4
        top = lowest
        for c in range(0, size, LANES):
            top = maximum(top, first_or(size - c, load_first(source + c * 4, size - c), lowest))
        highest, mass = splat(largest(top)), zero
        for c in range(0, size, LANES):
            e = exp(load_first(source + c * 4, size - c) - highest)
            mass = mass + first_or(size - c, e, zero)
        fall = splat(np.float32(math.log(total(mass))))
        for c in range(0, size, LANES):
            a = maximum(load_first(source + c * 4, size - c) - highest, floor)
            store_first(target + c * 4, a - fall, size - c)


@Kernel
def _log_softmax_gradient(task, tasks, dy, y, rows, size, dx):
    """dx = dy - exp(y) times the sum of dy"""
    first, last = split(rows, task, tasks)
    for row in range(first, last):
        at, part = row * size * 4, splat(_ZERO)
        for c in range(0, size, LANES):
            part = part + load_first(dy + at + c * 4, size - c)
        fall = splat(-total(part))
        for c in range(0, size, LANES):
            to, left = at + c * 4, size - c
            store_first(dx + to, fma(exp(load_first(y + to, left)), fall, load_first(dy + to, left)), left)


@Kernel
def _normalise(task, tasks, x, rows, size, centred, weight, bias, eps, means, rstds, y):
    """y = (x - mean) rstd weight + bias, a row at a time; RMS norm leaves the mean at 0."""
    first, last = split(rows, task, tasks)
    zero, count, least = splat(_ZERO), np.float32(size), load_float(eps)
    for row in range(first, last):
        at = x + row * size * 4
        mean = _ZERO
        if centred:
            part = zero
            for c in range(0, size, LANES):
                part = part + load_first(at + c * 4, size - c)
            mean = total(part) / count
        middle, squares = splat(mean), zero
        for c in range(0, size, LANES):
            a = first_or(size - c, load_first(at + c * 4, size - c) - middle, zero)
            squares = fma(a, a, squares)
        rstd = _ONE / np.sqrt(total(squares) / count + least)
        factor = splat(rstd)
        store_float(means + row * 4, mean)
        store_float(rstds + row * 4, rstd)
        for c in range(0, size, LANES):
            a = (load_first(at + c * 4, size - c) - middle) * factor
            if weight:
                a = a * load_first(weight + c * 4, size - c)
            if bias:
                a = a + load_first(bias + c * 4, size - c)
            store_first(y + (row * size + c) * 4, a, size - c)


@Kernel
def _normalise_gradient(task, tasks, x, dy, rows, size, centred, weight, means, rstds, dx, sums, parts):
    """dx = rstd (g - mean g - xhat mean(g xhat)), g = dy weight; per task the sums of dy xhat and of dy."""
    first, last = split(rows, task, tasks)
    zero, count = splat(_ZERO), np.float32(size)
    own, part = sums + task * size * 8, parts + task * size * 8
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        for c in range(0, size, LANES):
            store_first(part + c * 4, zero, size - c)
            store_first(part + (size + c) * 4, zero, size - c)
        for row in range(begin, end):
            at = row * size * 4
            middle, factor = splat(load_float(means + row * 4)), splat(load_float(rstds + row * 4))
            g_sum, g_dot = zero, zero
            for c in range(0, size, LANES):
                left = size - c
                d = load_first(dy + at + c * 4, left)
                xhat = (load_first(x + at + c * 4, left) - middle) * factor
                to = part + c * 4
                store_first(to, fma(d, xhat, load_first(to, left)), left)
                store_first(to + size * 4, load_first(to + size * 4, left) + d, left)
                g = d
                if weight:
                    g = d * load_first(weight + c * 4, left)
                g_sum, g_dot = g_sum + g, fma(g, xhat, g_dot)
            if dx:
                mean_g = splat(total(g_sum) / count) if centred else zero
                mean_dot = splat(total(g_dot) / count)
                for c in range(0, size, LANES):
                    left = size - c
                    g = load_first(dy + at + c * 4, left)
                    if weight:
                        g = g * load_first(weight + c * 4, left)
                    xhat = (load_first(x + at + c * 4, left) - middle) * factor
                    store_first(dx + at + c * 4, factor * (g - mean_g - xhat * mean_dot), left)
        for c in range(0, 2 * size, LANES):
            left = 2 * size - c
            store_first(own + c * 4, load_first(own + c * 4, left) + load_first(part + c * 4, left), left)


class _Rows(NamedTuple):
    """What a norm of rows keeps: its input, each row's mean and 1 / deviation."""

    x: Array
    means: Array
    rstds: Array
    weight: Array | None
    centred: bool


def _count(x: Array) -> int:
    return int(x.size) // int(x.shape[-1])


def normalise(
    x: Array, weight: Array | None, bias: Array | None, eps: float, centred: bool
) -> tuple[Array, Any] | None:
    """None where squares are too large for float32: the deviation is then infinite, and 1 / deviation 0."""
    rows, size = _count(x), x.shape[-1]
    means, rstds = np.empty((2, rows), dtype=np.float32)
    y = np.empty_like(x)
    least = np.array([eps], dtype=np.float32)
    _normalise.launch(
        x=x, rows=rows, size=size, centred=int(centred), weight=weight, bias=bias, eps=least, means=means, rstds=rstds,
        y=y,
    )  # fmt: skip
    return (y, _Rows(x, means, rstds, weight, centred)) if rstds.all() else None


def normalise_gradient(dy: Array, res: _Rows, need_dx: bool) -> tuple[Array | None, Array, Array]:
    dy = gradient(dy, res.x.shape)
    rows, size = _count(dy), dy.shape[-1]
    dx = np.empty_like(dy) if need_dx else None
    sums, parts = np.zeros((2, threads(), 2, size), dtype=np.float32)
    _normalise_gradient.launch(
        x=res.x, dy=dy, rows=rows, size=size, centred=int(res.centred), weight=res.weight, means=res.means,
        rstds=res.rstds, dx=dx, sums=sums, parts=parts,
    )  # fmt: skip
    dw, db = sums.sum(axis=0)
    return dx, dw, db


class CompiledRowOps(RectifierOps, NormOps):
    def softmax(self, x: Array) -> tuple[Array, Any]:
        if not takes(x):
            return super().softmax(x)
        y = np.empty_like(x)
        _softmax.launch(x=x, rows=_count(x), size=x.shape[-1], y=y)
        return y, y

    def softmax_backward(self, dy: Array, res: Any) -> Array:
        if not takes(res) or dy.dtype != np.float32 or dy.shape != res.shape:
            return super().softmax_backward(dy, res)
        dy = np.ascontiguousarray(dy)
        dx = np.empty_like(dy)
        _softmax_gradient.launch(dy=dy, y=res, rows=_count(dy), size=dy.shape[-1], dx=dx)
        return dx

    def log_softmax(self, x: Array) -> tuple[Array, Any]:
        if not takes(x):
            return super().log_softmax(x)
        y = np.empty_like(x)
        _log_softmax.launch(x=x, rows=_count(x), size=x.shape[-1], y=y)
        return y, y

    def log_softmax_backward(self, dy: Array, res: Any) -> Array:
        if not takes(res):
            return super().log_softmax_backward(dy, res)
        dy, dx = gradient(dy, res.shape), np.empty_like(res)
        _log_softmax_gradient.launch(dy=dy, y=res, rows=_count(dy), size=dy.shape[-1], dx=dx)
        return dx

    def layer_norm(self, x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Any]:
        found = (
            normalise(x, weight, bias, eps, True)
            if takes(x, weight, bias) and by_channel(x.shape[-1], weight, bias)
            else None
        )
        return found or super().layer_norm(x, weight, bias, eps)

    def layer_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        if not isinstance(res, _Rows):
            return super().layer_norm_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        return normalise_gradient(dy, res, need_dx)

    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> tuple[Array, Any]:
        found = normalise(x, weight, None, eps, False) if takes(x, weight) and by_channel(x.shape[-1], weight) else None
        return found or super().rms_norm(x, weight, eps)

    def rms_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True
    ) -> tuple[Array | None, Array | None]:
        if not isinstance(res, _Rows):
            return super().rms_norm_backward(dy, res, need_dx=need_dx, need_dw=need_dw)
        return normalise_gradient(dy, res, need_dx)[:2]
