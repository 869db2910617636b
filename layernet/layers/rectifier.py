"""Nonlinearities like ReLU, bounded or bent. All but SELU take any finite input without overflow."""

from __future__ import annotations

import math

from layernet.backend import Array
from layernet.core.context import Context
from layernet.core.layer import Layer

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


class Hardtanh(Layer):
    """min(max(x, min_val), max_val); the gradient at both bounds is 0. cuda-convnet's `brelu[a]` is Hardtanh(0, a).

    Shape: any -> same.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        if not min_val < max_val:
            raise ValueError(f"min_val must be below max_val, got {min_val} and {max_val}")
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.hardtanh(x, self.min_val, self.max_val)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.hardtanh_backward(dy, res)


class ReLU6(Layer):
    """min(max(x, 0), 6); the gradient at 0 and 6 is 0 (Krizhevsky 2010).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.hardtanh(x, 0.0, 6.0)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.hardtanh_backward(dy, res)


class ELU(Layer):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere; the gradient at 0 is alpha.

    (Clevert et al. 2015, arXiv:1511.07289)
    Shape: any -> same.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha must be finite and at least 0, got {alpha}")
        self.alpha = alpha

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.elu(x, self.alpha, 1.0)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.elu_backward(dy, res)


class SELU(Layer):
    """1.0507 x where x > 0, 1.0507 * 1.6733 * (exp(x) - 1) elsewhere (Klambauer et al. 2017, arXiv:1706.02515).

    The constants keep mean 0 and variance 1 of standard normal input; the gradient at 0 is their product.
    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.elu(x, _SELU_ALPHA, _SELU_SCALE)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.elu_backward(dy, res)


class Hardswish(Layer):
    """x min(max(x + 3, 0), 6) / 6; the gradient at -3 is 0, at 3 it is 1 (Howard et al. 2019, arXiv:1905.02244).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.hardswish(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.hardswish_backward(dy, res)


class Mish(Layer):
    """x tanh(log(1 + exp(x))) (Misra 2019, arXiv:1908.08681).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.mish(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.mish_backward(dy, res)


class Softplus(Layer):
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold (gradient 1).

    There is a jump at the threshold, 2e-9 at torch's 20. cuda-convnet's neuron `softrelu` is `threshold: 4`, with a
    jump of 0.018; its version 1 has a wrong gradient. Caffe's BNLL has no threshold, nor is one needed here.
    Shape: any -> same.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be finite and above 0, got {beta}")
        if math.isnan(threshold):
            raise ValueError(f"threshold must be a number, got {threshold}")
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.softplus(x, self.beta, self.threshold)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.softplus_backward(dy, res)
