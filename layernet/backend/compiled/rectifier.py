"""Nonlinearities that are about 0 on one side and about x on the other, in one pass over memory each.

With e = exp(-|x|), which never overflows: log(1 + exp(x)) = max(x, 0) + log(1 + e), and
tanh(log(1 + exp(x))) = n / m with n = 1 + 2 e, m = n + 2 e^2 where x > 0 and n = e^2 + 2 e, m = n + 2 elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.arrays import by_channel, gradient, takes
from layernet.backend.compiled.lanes import LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.norm import BLOCK, Rows
from layernet.backend.compiled.vecmath import exp, expm1, log1p, sigmoid
from layernet.backend.compiled.vectors import (
    absolute,
    fma,
    load_first,
    load_float,
    maximum,
    minimum,
    splat,
    store_first,
    where_greater,
    where_positive,
)
from layernet.backend.reference.rectifier import RectifierOps

_HARDTANH, _ELU, _HARDSWISH = range(3)
_SOFTPLUS, _LOG_SIGMOID, _MISH = range(3)
_ZERO, _ONE, _TWO, _HALF, _THIRD = (np.float32(c) for c in (0, 1, 2, 0.5, 1 / 3))
_THREE, _SIX, _SIXTH = (np.float32(c) for c in (3, 6, 1 / 6))
_BELOW_THREE = np.nextafter(_THREE, _ZERO)


@Kernel
def _bent(task, tasks, which, x, size, constants, y):
    """y = f(x), for the functions that need no logarithm."""
    first, last = split(vectors_of(size), task, tasks)
    p, q = splat(load_float(constants)), splat(load_float(constants + 4))
    for v in range(first, last):
        at, left = v * LANES * 4, size - v * LANES
        a = load_first(x + at, left)
        if which == _HARDTANH:
            result = minimum(maximum(a, p), q)
        elif which == _ELU:
            result = where_positive(a, a, p * expm1(minimum(a, splat(_ZERO)))) * q
        else:
            result = minimum(maximum(a + splat(_THREE), splat(_ZERO)), splat(_SIX)) * splat(_SIXTH) * a
        store_first(y + at, result, left)


@Kernel
def _bent_gradient(task, tasks, which, dy, kept, size, constants, dx):
    """dx = dy f', from x for hardswish, otherwise from y."""
    first, last = split(vectors_of(size), task, tasks)
    p, q, zero, one = splat(load_float(constants)), splat(load_float(constants + 4)), splat(_ZERO), splat(_ONE)
    edge = splat(_BELOW_THREE)
    for v in range(first, last):
        at, left = v * LANES * 4, size - v * LANES
        g, a = load_first(dy + at, left), load_first(kept + at, left)
        if which == _HARDTANH:
            result = where_greater(a, p, where_greater(q, a, g, zero), zero)
        elif which == _ELU:
            result = g * where_positive(a, q, fma(p, q, a))
        else:
            # beyond the largest number below 3, not from 3 on: so that NaN goes through
            held = maximum(minimum(a, splat(_THREE)), splat(-_THREE))
            slope = where_greater(held, edge, one, fma(held, splat(_THIRD), splat(_HALF)))
            result = g * where_greater(zero - edge, held, zero, slope)
        store_first(dx + at, result, left)


@Kernel
def _soft(task, tasks, which, x, size, constants, y):
    """y = f(x), for the functions made of log(1 + exp(x))."""
    first, last = split(vectors_of(size), task, tasks)
    beta, inverse = splat(load_float(constants)), splat(load_float(constants + 4))
    threshold, zero, one, two = splat(load_float(constants + 8)), splat(_ZERO), splat(_ONE), splat(_TWO)
    for v in range(first, last):
        at, left = v * LANES * 4, size - v * LANES
        a = load_first(x + at, left)
        if which == _SOFTPLUS:
            scaled = a * beta
            soft = fma(log1p(exp(zero - absolute(scaled))), inverse, maximum(a, zero))
            result = where_greater(scaled, threshold, a, soft)
        elif which == _LOG_SIGMOID:
            result = minimum(a, zero) - log1p(exp(zero - absolute(a)))
        else:
            e = exp(zero - absolute(a))
            n = where_positive(a, fma(e, two, one), e * (e + two))
            result = a * (n / (n + where_positive(a, two * e * e, two)))
        store_first(y + at, result, left)


@Kernel
def _soft_gradient(task, tasks, which, dy, kept, size, constants, dx):
    """dx = dy f'(x)"""
    first, last = split(vectors_of(size), task, tasks)
    beta, threshold = splat(load_float(constants)), splat(load_float(constants + 8))
    zero, one, two = splat(_ZERO), splat(_ONE), splat(_TWO)
    for v in range(first, last):
        at, left = v * LANES * 4, size - v * LANES
        g, a = load_first(dy + at, left), load_first(kept + at, left)
        if which == _SOFTPLUS:
            scaled = a * beta
            slope = where_greater(scaled, threshold, one, sigmoid(scaled))
        elif which == _LOG_SIGMOID:
            slope = sigmoid(zero - a)
        else:
            e = exp(zero - absolute(a))
            n = where_positive(a, fma(e, two, one), e * (e + two))
            rest = where_positive(a, two * e * e, two)
            m = n + rest
            # t = n / m, so 1 - t^2 = (m - n)(m + n) / m^2; beside it sigmoid(x)
            curve = rest / m * ((m + n) / m) * (where_positive(a, one, e) / (one + e))
            slope = fma(a, curve, n / m)
        store_first(dx + at, g * slope, left)


@Kernel
def _prelu(task, tasks, x, rows, columns, weight, y):
    """y = x where x > 0, else weight x."""
    first, last = split(rows, task, tasks)
    for row in range(first, last):
        for c in range(0, columns, LANES):
            left, at = columns - c, (row * columns + c) * 4
            a = load_first(x + at, left)
            store_first(y + at, where_positive(a, a, a * load_first(weight + c * 4, left)), left)


@Kernel
def _prelu_gradient(task, tasks, x, dy, rows, columns, weight, dx, sums):
    """dx = dy where x > 0, else weight dy; per task the sums of dy min(x, 0) over each column."""
    first, last = split(rows, task, tasks)
    own, zero = sums + task * columns * 4, splat(_ZERO)
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        for c in range(0, columns, LANES):
            left, part = columns - c, zero
            slope = load_first(weight + c * 4, left)
            for row in range(begin, end):
                at = (row * columns + c) * 4
                a, g = load_first(x + at, left), load_first(dy + at, left)
                part = fma(g, minimum(a, zero), part)
                if dx:
                    store_first(dx + at, where_positive(a, g, g * slope), left)
            store_first(own + c * 4, load_first(own + c * 4, left) + part, left)


def _apply(kernel: Kernel, which: int, x: Array, *constants: float) -> Array:
    y = np.empty_like(x)
    kernel.launch(which=which, x=x, size=x.size, constants=np.array([*constants, 0, 0], dtype=np.float32), y=y)
    return y


def _back(kernel: Kernel, which: int, dy: Array, kept: Array, *constants: float) -> Array:
    dy, dx = gradient(dy, kept.shape), np.empty_like(kept)
    numbers = np.array([*constants, 0, 0], dtype=np.float32)
    kernel.launch(which=which, dy=dy, kept=kept, size=dy.size, constants=numbers, dx=dx)
    return dx


class CompiledRectifierOps(RectifierOps):
    def hardtanh(self, x: Array, low: float, high: float) -> tuple[Array, Any]:
        if not takes(x):
            return super().hardtanh(x, low, high)
        return (y := _apply(_bent, _HARDTANH, x, low, high)), (y, low, high)

    def hardtanh_backward(self, dy: Array, res: Any) -> Array:
        if not takes(res[0]):
            return super().hardtanh_backward(dy, res)
        return _back(_bent_gradient, _HARDTANH, dy, *res)

    def elu(self, x: Array, alpha: float, scale: float) -> tuple[Array, Any]:
        if not takes(x):
            return super().elu(x, alpha, scale)
        return (y := _apply(_bent, _ELU, x, alpha, scale)), (y, alpha, scale)

    def elu_backward(self, dy: Array, res: Any) -> Array:
        return _back(_bent_gradient, _ELU, dy, *res) if takes(res[0]) else super().elu_backward(dy, res)

    def hardswish(self, x: Array) -> tuple[Array, Any]:
        return (_apply(_bent, _HARDSWISH, x), x) if takes(x) else super().hardswish(x)

    def hardswish_backward(self, dy: Array, res: Any) -> Array:
        return _back(_bent_gradient, _HARDSWISH, dy, res) if takes(res) else super().hardswish_backward(dy, res)

    def softplus(self, x: Array, beta: float, threshold: float) -> tuple[Array, Any]:
        if not takes(x):
            return super().softplus(x, beta, threshold)
        return _apply(_soft, _SOFTPLUS, x, beta, 1 / beta, threshold), (x, beta, threshold)

    def softplus_backward(self, dy: Array, res: Any) -> Array:
        x, beta, threshold = res
        if not takes(x):
            return super().softplus_backward(dy, res)
        return _back(_soft_gradient, _SOFTPLUS, dy, x, beta, 1 / beta, threshold)

    def log_sigmoid(self, x: Array) -> tuple[Array, Any]:
        return (_apply(_soft, _LOG_SIGMOID, x), x) if takes(x) else super().log_sigmoid(x)

    def log_sigmoid_backward(self, dy: Array, res: Any) -> Array:
        return _back(_soft_gradient, _LOG_SIGMOID, dy, res) if takes(res) else super().log_sigmoid_backward(dy, res)

    def mish(self, x: Array) -> tuple[Array, Any]:
        return (_apply(_soft, _MISH, x), x) if takes(x) else super().mish(x)

    def mish_backward(self, dy: Array, res: Any) -> Array:
        return _back(_soft_gradient, _MISH, dy, res) if takes(res) else super().mish_backward(dy, res)

    def prelu(self, x: Array, weight: Array) -> tuple[Array, Any]:
        if not takes(x, weight) or not by_channel(x.shape[-1], weight):
            return super().prelu(x, weight)
        view, y = Rows.of(x), np.empty_like(x)
        _prelu.launch(x=x, rows=view.rows, columns=view.columns, weight=view.spread(weight), y=y)
        return y, (x, weight)

    def prelu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True
    ) -> tuple[Array | None, Array | None]:
        x, weight = res
        if not takes(x, weight) or not by_channel(x.shape[-1], weight):
            return super().prelu_backward(dy, res, need_dx=need_dx, need_dw=need_dw)
        dy, view, dx = gradient(dy, x.shape), Rows.of(x), np.empty_like(x) if need_dx else None
        sums = np.zeros((threads(), view.columns), dtype=np.float32)
        _prelu_gradient.launch(
            x=x, dy=dy, rows=view.rows, columns=view.columns, weight=view.spread(weight), dx=dx, sums=sums,
        )  # fmt: skip
        return dx, view.gather(sums).astype(np.float32)
