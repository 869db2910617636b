"""Elementwise nonlinearities, and softmax. All take any finite input without overflow."""

from __future__ import annotations

import math
from typing import Literal

from layernet.backend import Array, Shape
from layernet.core import init as initializers
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Param
from layernet.layers.fused import PoolReLU
from layernet.layers.pool import MaxPool2d
from layernet.layers.shape import channels_of


class ReLU(Layer):
    """max(x, 0); the gradient at 0 is 0.

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.relu(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.relu_backward(dy, res)

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        return PoolReLU([self, following], following) if type(following) is MaxPool2d and following.joins_relu else None


class LeakyReLU(Layer):
    """max(x, 0) + negative_slope * min(x, 0); the gradient at 0 is negative_slope (Maas et al. 2013).

    Shape: any -> same.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        if not 0 <= negative_slope < math.inf:
            raise ValueError(f"negative_slope must be finite and at least 0, got {negative_slope}")
        self.negative_slope = negative_slope

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.leaky_relu(x, self.negative_slope)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.leaky_relu_backward(dy, res)

    def flops(self, in_shape: Shape) -> int:
        return math.prod(in_shape)


class PReLU(Layer):
    """max(x, 0) + weight * min(x, 0), one learned slope a channel, `init` at first (He et al. 2015, arXiv:1502.01852).

    Shape: (N, ..., C) -> same; weight (C), spared by weight decay.
    """

    def __init__(self, init: float = 0.25) -> None:
        if not math.isfinite(init):
            raise ValueError(f"init must be finite, got {init}")
        self.init = init

    def build(self, in_shape: Shape) -> Shape:
        self.weight = Param(channels_of(self, in_shape), initializers.constant(self.init), decay_mult=0)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.prelu(x, self.weight.data)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        dx, dw = ctx.ops.prelu_backward(dy, res, need_dx=ctx.needs_input_grad, need_dw=ctx.needs_grad(self.weight))
        ctx.add_grads((self.weight, dw))
        return dx

    def flops(self, in_shape: Shape) -> int:
        return math.prod(in_shape)


class GELU(Layer):
    """x Phi(x), Phi the distribution function of the standard normal (Hendrycks and Gimpel 2016, arXiv:1606.08415).

    `approximate="tanh"`: Phi(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, within 5e-4, and cheaper.
    Shape: any -> same.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate: Literal["none", "tanh"] = approximate

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.gelu(x, self.approximate)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.gelu_backward(dy, res)


class SiLU(Layer):
    """x sigmoid(x), also called swish (Elfwing et al. 2017, arXiv:1702.03118).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.silu(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.silu_backward(dy, res)


class Sigmoid(Layer):
    """1 / (1 + exp(-x)).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.sigmoid(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.sigmoid_backward(dy, res)


class Tanh(Layer):
    """The hyperbolic tangent.

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.tanh(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.tanh_backward(dy, res)


class Softmax(Layer):
    """exp(x_i) / sum_j exp(x_j) over the last axis.

    Before `CrossEntropy` leave it out: that loss takes the logits and is exact where probabilities round to 0.
    Shape: (N, ..., C) -> same.
    """

    def build(self, in_shape: Shape) -> Shape:
        channels_of(self, in_shape)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.softmax(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.softmax_backward(dy, res)
