"""Elementwise nonlinearities, and softmax."""

from __future__ import annotations

from typing import Literal

from layernet.backend import Array, Shape
from layernet.backend.arrays import sum_to
from layernet.core.context import Context
from layernet.core.init import constant
from layernet.core.layer import Layer
from layernet.core.param import Param
from layernet.errors import ShapeError


class ReLU(Layer):
    """max(x, 0); the gradient at 0 is 0. Shape: any -> same."""

    def forward(self, x: Array, ctx: Context) -> Array:
        y = ctx.xp.maximum(x, 0)
        ctx.save(y)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (y,) = ctx.saved
        return dy * (y > 0)


class LeakyReLU(Layer):
    """max(x, 0) + negative_slope min(x, 0); the gradient at 0 is the slope's. Shape: any -> same."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return ctx.xp.where(x > 0, x, self.negative_slope * x)

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        return ctx.xp.where(x > 0, dy, self.negative_slope * dy)


class PReLU(Layer):
    """max(x, 0) + weight min(x, 0) with one learned slope a channel (He et al. 2015, arXiv:1502.01852).

    Shape: (N, ..., C) -> same; weight (C), all `init` at first, not decayed.
    """

    def __init__(self, init: float = 0.25) -> None:
        self.init = init

    def build(self, in_shape: Shape) -> Shape:
        if not in_shape:
            raise ShapeError("PReLU needs an axis of channels", "give the input a shape like [1]")
        self.weight = Param(in_shape[-1:], constant(self.init), decay_mult=0)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return ctx.xp.where(x > 0, x, self.weight.data * x)

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        ctx.add_grad(self.weight, sum_to(dy * ctx.xp.minimum(x, 0), self.weight.shape))
        return ctx.xp.where(x > 0, dy, self.weight.data * dy)


class GELU(Layer):
    """x Phi(x), Phi the standard normal distribution function (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    `approximate="tanh"` takes Phi as (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. Shape: any -> same.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate: Literal["none", "tanh"] = approximate

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.gelu(x, self.approximate)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.gelu_backward(dy, res)


class SiLU(Layer):
    """x sigmoid(x), also called swish (Elfwing et al. 2017, arXiv:1702.03118). Shape: any -> same."""

    def forward(self, x: Array, ctx: Context) -> Array:
        gate = ctx.ops.sigmoid(x)
        ctx.save(x, gate)
        return x * gate

    def backward(self, dy: Array, ctx: Context) -> Array:
        x, gate = ctx.saved
        return dy * (gate * (1.0 + x * (1.0 - gate)))


class Sigmoid(Layer):
    """1 / (1 + exp(-x)). Shape: any -> same."""

    def forward(self, x: Array, ctx: Context) -> Array:
        y = ctx.ops.sigmoid(x)
        ctx.save(y)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (y,) = ctx.saved
        return dy * (y * (1.0 - y))


class Tanh(Layer):
    """tanh(x). Shape: any -> same."""

    def forward(self, x: Array, ctx: Context) -> Array:
        y = ctx.xp.tanh(x)
        ctx.save(y)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (y,) = ctx.saved
        return dy * (1.0 - y * y)


class Softmax(Layer):
    """exp(x_i) / sum_j exp(x_j) over the last axis. Shape: (N, ..., C) -> same.

    CrossEntropy takes logits: a net that is trained with it needs no Softmax.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.softmax(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.softmax_backward(dy, res)
