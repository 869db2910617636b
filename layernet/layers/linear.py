"""Fully connected layers, and gains and offsets by channel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from layernet.backend import Array, Shape
from layernet.backend.arrays import sum_to
from layernet.core import init
from layernet.core.context import Context
from layernet.core.init import InitFunction
from layernet.core.layer import Layer
from layernet.core.param import Param
from layernet.errors import ShapeError
from layernet.layers.activation import ReLU
from layernet.layers.fused import LinearReLU
from layernet.layers.shape import channels_of

Gradients = tuple[Array | None, Array | None, Array | None]


class Linear(Layer):
    """y = x weight^T + bias, over the last axis.

    Shape: (N, ..., in) -> (N, ..., out_features); weight (out_features, in), bias (out_features). The default weights
    keep the second moment through ReLU (He et al. 2015, arXiv:1502.01852). The bias is spared by weight decay.
    """

    def __init__(
        self,
        out_features: int,
        bias: bool = True,
        weight_init: InitFunction = init.kaiming_normal(),
        bias_init: InitFunction = init.constant(0.0),
    ) -> None:
        if out_features < 1:
            raise ValueError(f"out_features must be at least 1, got {out_features}")
        self.out_features = out_features
        self.use_bias = bias
        self.weight_init, self.bias_init = weight_init, bias_init

    def build(self, in_shape: Shape) -> Shape:
        if len(in_shape) == 0:
            raise ShapeError("Linear needs at least one axis of features", "give the input a shape like [1]")
        self.weight = Param((self.out_features, in_shape[-1]), self.weight_init)
        self.bias = Param((self.out_features,), self.bias_init, decay_mult=0) if self.use_bias else None
        return (*in_shape[:-1], self.out_features)

    def forward(self, x: Array, ctx: Context) -> Array:
        return self.run(x, ctx, ctx.ops.linear)

    def run(self, x: Array, ctx: Context, kernel: Callable[..., tuple[Array, Any]]) -> Array:
        """`forward` by a kernel with linear's arguments."""
        y, res = kernel(x, self.weight.data, self.bias.data if self.bias else None)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        return self.run_backward(dy, ctx, ctx.ops.linear_backward)

    def run_backward(self, dy: Array, ctx: Context, kernel: Callable[..., Gradients]) -> Array | None:
        """`backward` by a kernel with linear_backward's arguments."""
        (res,) = ctx.saved
        into = ctx.fresh_grad(self.weight)
        dx, dw, db = kernel(dy, res, **ctx.needs(self.weight, self.bias), dw=into)
        ctx.add_grads((self.weight, dw), (self.bias, db))
        return dx

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        return LinearReLU(self, following) if type(following) is ReLU else None

    def flops(self, in_shape: Shape) -> int:
        return math.prod(in_shape) * self.out_features


class Scale(Layer):
    """y = x weight, with `bias` + bias: one gain, and one offset, a channel (Caffe's Scale, Torch 7's CMul).

    Shape: (N, ..., C) -> same; weight (C), bias (C), both spared by weight decay.
    """

    def __init__(
        self,
        bias: bool = False,
        weight_init: InitFunction = init.constant(1.0),
        bias_init: InitFunction = init.constant(0.0),
    ) -> None:
        self.use_bias = bias
        self.weight_init, self.bias_init = weight_init, bias_init

    def build(self, in_shape: Shape) -> Shape:
        channels = channels_of(self, in_shape)
        self.weight = Param(channels, self.weight_init, decay_mult=0)
        self.bias = Param(channels, self.bias_init, decay_mult=0) if self.use_bias else None
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        y = x * self.weight.data
        return y + self.bias.data if self.bias else y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        if ctx.needs_grad(self.weight):
            ctx.add_grad(self.weight, sum_to(dy * x, self.weight.shape))
        if self.bias and ctx.needs_grad(self.bias):
            ctx.add_grad(self.bias, sum_to(dy, self.bias.shape))
        return dy * self.weight.data

    def flops(self, in_shape: Shape) -> int:
        return math.prod(in_shape)


class Bias(Layer):
    """y = x + bias: one offset a channel (Caffe's Bias, Torch 7's CAdd).

    Shape: (N, ..., C) -> same; bias (C), spared by weight decay.
    """

    def __init__(self, bias_init: InitFunction = init.constant(0.0)) -> None:
        self.bias_init = bias_init

    def build(self, in_shape: Shape) -> Shape:
        self.bias = Param(channels_of(self, in_shape), self.bias_init, decay_mult=0)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save()
        return x + self.bias.data

    def backward(self, dy: Array, ctx: Context) -> Array:
        if ctx.needs_grad(self.bias):
            ctx.add_grad(self.bias, sum_to(dy, self.bias.shape))
        return dy

    def flops(self, in_shape: Shape) -> int:
        return 0
