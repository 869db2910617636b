"""Elementwise nonlinearities, their formulas those of the reference, in one pass over memory each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.arrays import gradient, takes
from layernet.backend.compiled.lanes import LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split
from layernet.backend.compiled.vecmath import erf, exp, sigmoid, tanh
from layernet.backend.compiled.vectors import (
    fma,
    load_first,
    load_float,
    maximum,
    minimum,
    splat,
    store_first,
    where_positive,
)
from layernet.backend.reference.activation import (
    _TANH_CUBE,
    _TANH_SATURATED,
    _TANH_SCALE,
    ActivationOps,
    Approximate,
)

_SIGMOID, _TANH, _SILU, _GELU, _GELU_TANH, _LEAKY = range(6)
_ROOT_HALF = np.float32(math.sqrt(0.5))
_DENSITY = np.float32(1.0 / math.sqrt(2.0 * math.pi))
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_SATURATED = np.float32(_TANH_SATURATED)
_CUBE, _CUBE3 = np.float32(_TANH_CUBE), np.float32(3 * _TANH_CUBE)
_SCALE2 = np.float32(2 * _TANH_SCALE)


@Kernel
def _function(task, tasks, which, x, size, slope, y):
    """y = f(x)"""
    first, last = split(vectors_of(size), task, tasks)
    one, half = splat(_ONE), splat(_HALF)
    s = splat(load_float(slope))
    for v in range(first, last):
        at, left = v * LANES * 4, size - v * LANES
        a = load_first(x + at, left)
        if which == _SIGMOID:
            result = sigmoid(a)
        elif which == _TANH:
            result = tanh(a)
        elif which == _SILU:
            result = a * sigmoid(a)
        elif which == _GELU:
            result = a * fma(erf(a * splat(_ROOT_HALF)), half, half)
        elif which == _GELU_TANH:
            # (1 + tanh u) / 2 is sigmoid(2 u)
            held = maximum(minimum(a, splat(_SATURATED)), splat(-_SATURATED))
            result = a * sigmoid(fma(held * held, splat(_CUBE), one) * held * splat(_SCALE2))
        else:
            result = where_positive(a, a, a * s)
        store_first(y + at, result, left)


@Kernel
def _gradient(task, tasks, which, dy, kept, size, slope, dx):
    """dx = dy f', from what was kept: x, or y where f' is a function of y."""
    first, last = split(vectors_of(size), task, tasks)
    zero, one, half = splat(_ZERO), splat(_ONE), splat(_HALF)
    s = splat(load_float(slope))
    for v in range(first, last):
        at, left = v * LANES * 4, size - v * LANES
        g, a = load_first(dy + at, left), load_first(kept + at, left)
        if which == _SIGMOID:
            result = g * (a * (one - a))
        elif which == _TANH:
            result = g * (one - a * a)
        elif which == _SILU:
            p = sigmoid(a)
            result = g * (p * fma(a, one - p, one))
        elif which == _GELU:
            density = exp(a * a * (zero - half)) * splat(_DENSITY)
            # beyond 13 the density is 0, and x may be too large for a product with it
            held = maximum(minimum(a, splat(np.float32(40))), splat(np.float32(-40)))
            result = g * fma(held, density, fma(erf(a * splat(_ROOT_HALF)), half, half))
        elif which == _GELU_TANH:
            held = maximum(minimum(a, splat(_SATURATED)), splat(-_SATURATED))
            square = held * held
            p = sigmoid(fma(square, splat(_CUBE), one) * held * splat(_SCALE2))
            slope_of = fma(square, splat(_CUBE3), one) * splat(_SCALE2) * (p * (one - p))
            result = g * fma(held, slope_of, p)
        else:
            result = where_positive(a, g, g * s)
        store_first(dx + at, result, left)


@Kernel
def _glu(task, tasks, x, rows, half, y, dy, dx):
    """y = a sigmoid(b) for rows of a and b side by side; with dy, dx = (dy s, dy a s (1 - s)), s = sigmoid(b)."""
    first, last = split(rows, task, tasks)
    one = splat(_ONE)
    for row in range(first, last):
        for c in range(0, half, LANES):
            left, at, to = half - c, (row * 2 * half + c) * 4, (row * half + c) * 4
            a, gate = load_first(x + at, left), sigmoid(load_first(x + at + half * 4, left))
            if dy:
                passed = load_first(dy + to, left) * gate
                store_first(dx + at, passed, left)
                store_first(dx + at + half * 4, passed * (one - gate) * a, left)
            else:
                store_first(y + to, a * gate, left)


def _apply(which: int, x: Array, slope: float = 0.0) -> Array:
    y = np.empty_like(x)
    _function.launch(which=which, x=x, size=x.size, slope=np.array([slope], dtype=np.float32), y=y)
    return y


def _back(which: int, dy: Array, kept: Array, slope: float = 0.0) -> Array:
    dy = np.ascontiguousarray(dy)
    dx = np.empty_like(dy)
    _gradient.launch(which=which, dy=dy, kept=kept, size=dy.size, slope=np.array([slope], dtype=np.float32), dx=dx)
    return dx


def _both(dy: Array, kept: Array) -> bool:
    return takes(kept) and dy.dtype == np.float32 and dy.shape == kept.shape


class CompiledActivationOps(ActivationOps):
    def sigmoid(self, x: Array) -> tuple[Array, Any]:
        if not takes(x):
            return super().sigmoid(x)
        y = _apply(_SIGMOID, x)
        return y, y

    def sigmoid_backward(self, dy: Array, res: Any) -> Array:
        return _back(_SIGMOID, dy, res) if _both(dy, res) else super().sigmoid_backward(dy, res)

    def tanh(self, x: Array) -> tuple[Array, Any]:
        if not takes(x):
            return super().tanh(x)
        y = _apply(_TANH, x)
        return y, y

    def tanh_backward(self, dy: Array, res: Any) -> Array:
        return _back(_TANH, dy, res) if _both(dy, res) else super().tanh_backward(dy, res)

    def silu(self, x: Array) -> tuple[Array, Any]:
        return (_apply(_SILU, x), x) if takes(x) else super().silu(x)

    def silu_backward(self, dy: Array, res: Any) -> Array:
        return _back(_SILU, dy, res) if _both(dy, res) else super().silu_backward(dy, res)

    def gelu(self, x: Array, approximate: Approximate) -> tuple[Array, Any]:
        if not takes(x):
            return super().gelu(x, approximate)
        return _apply(_GELU if approximate == "none" else _GELU_TANH, x), (x, approximate)

    def gelu_backward(self, dy: Array, res: Any) -> Array:
        x, approximate = res
        if not _both(dy, x):
            return super().gelu_backward(dy, res)
        return _back(_GELU if approximate == "none" else _GELU_TANH, dy, x)

    def leaky_relu(self, x: Array, slope: float) -> tuple[Array, Any]:
        if not takes(x):
            return super().leaky_relu(x, slope)
        y = _apply(_LEAKY, x, slope)
        return y, (y, slope)

    def leaky_relu_backward(self, dy: Array, res: Any) -> Array:
        y, slope = res
        return _back(_LEAKY, dy, y, slope) if _both(dy, y) else super().leaky_relu_backward(dy, res)

    def glu(self, x: Array) -> tuple[Array, Any]:
        half = x.shape[-1] // 2
        if not takes(x) or x.shape[-1] != 2 * half:
            return super().glu(x)
        y = np.empty((*x.shape[:-1], half), dtype=np.float32)
        _glu.launch(x=x, rows=y.size // half, half=half, y=y, dy=0, dx=0)
        return y, x

    def glu_backward(self, dy: Array, res: Any) -> Array:
        if isinstance(res, tuple):
            return super().glu_backward(dy, res)
        half = res.shape[-1] // 2
        dy, dx = gradient(dy, (*res.shape[:-1], half)), np.empty_like(res)
        _glu.launch(x=res, rows=dy.size // half, half=half, y=0, dy=dy, dx=dx)
        return dx
