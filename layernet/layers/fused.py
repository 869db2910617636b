"""Neighbours that run as one, with the parameters of the layers they stand for: what a net's plan puts in their place.

What `Layer.fuse` of the layers gives; nobody writes them down. Like every layer they keep what a pass makes in their
context. Those for inference have no backward.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from layernet.backend import Array
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.plan import Step

if TYPE_CHECKING:
    from layernet.core.sequential import Sequential
    from layernet.layers.activation import ReLU
    from layernet.layers.composite import Residual
    from layernet.layers.conv import Conv2d, _Convolution
    from layernet.layers.linear import Linear
    from layernet.layers.norm import BatchNorm
    from layernet.layers.pool import MaxPool2d


class ConvReLU(Step):
    """A convolution and a ReLU."""

    def __init__(self, conv: _Convolution, relu: ReLU) -> None:
        super().__init__([conv, relu])
        self.conv = conv

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        return self.conv.fuse_pool(following, [*self.parts, following], relu=True)  # the larger step takes its place

    def forward(self, x: Array, ctx: Context) -> Array:
        return self.conv.run(x, ctx, ctx.ops.conv2d_relu)

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        return self.conv.run_backward(dy, ctx, ctx.ops.conv2d_relu_backward)


class ConvPool(Step):
    """A convolution and a maximum over windows, with a ReLU between them or behind: max(relu(x)) = relu(max(x))."""

    def __init__(self, conv: Conv2d, pool: MaxPool2d, parts: list[Layer], relu: bool) -> None:
        super().__init__(parts)
        self.conv, self.pool, self.relu = conv, pool, relu

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        if self.relu or self.pool.fuse(following, inference) is None:
            return None
        return ConvPool(self.conv, self.pool, [*self.parts, following], relu=True)

    def forward(self, x: Array, ctx: Context) -> Array:
        conv, bias = self.conv, self.conv.bias.data if self.conv.bias else None
        y, res = ctx.ops.conv2d_max_pool2d(
            x, conv.weight.data, bias, conv.window, conv.groups, self.pool.window, self.relu
        )
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        conv = self.conv
        dx, dw, db = ctx.ops.conv2d_max_pool2d_backward(dy, res, **ctx.needs(conv.weight, conv.bias))
        ctx.add_grads((conv.weight, dw), (conv.bias, db))
        return dx


class LinearReLU(Step):
    """A fully connected layer and a ReLU."""

    def __init__(self, linear: Linear, relu: ReLU) -> None:
        super().__init__([linear, relu])
        self.linear = linear

    def forward(self, x: Array, ctx: Context) -> Array:
        return self.linear.run(x, ctx, ctx.ops.linear_relu)

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        return self.linear.run_backward(dy, ctx, ctx.ops.linear_relu_backward)


class NormReLU(Step):
    """A batch norm and a ReLU."""

    def __init__(self, norm: BatchNorm, relu: ReLU) -> None:
        super().__init__([norm, relu])
        self.norm = norm

    def forward(self, x: Array, ctx: Context) -> Array:
        y, kept = self.norm.run(x, ctx, ctx.ops.batch_norm_relu, ctx.ops.batch_norm_given_relu)
        ctx.save(*kept)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        by_batch, res = ctx.saved
        kernel = ctx.ops.batch_norm_relu_backward if by_batch else ctx.ops.batch_norm_given_relu_backward
        dx, dw, db, _ = kernel(dy, res, **ctx.needs(self.norm.weight, self.norm.bias))
        ctx.add_grads((self.norm.weight, dw), (self.norm.bias, db))
        return dx


class FoldedNorm(Step):
    """A convolution with filters scaled, and a bias moved, as the norm after it does in evaluation; a ReLU where given.

    norm(w x + b) = (scale w) x + (scale b + shift). The filters are scaled in every pass, so that they are always those
    of now. Where they outnumber the outputs, the outputs are scaled instead.
    """

    def __init__(self, conv: _Convolution, norm: BatchNorm, relu: Layer | None = None) -> None:
        super().__init__([conv, norm] if relu is None else [conv, norm, relu])
        self.conv, self.norm, self.relu = conv, norm, relu

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        taken = self.relu is None and self.norm.fuse(following, inference) is not None
        return FoldedNorm(self.conv, self.norm, following) if taken else None

    def forward(self, x: Array, ctx: Context) -> Array:
        ops = ctx.ops
        if self.conv.weight.size > len(x) * math.prod(self.out_shape):
            y = self.conv.run(x, ctx, ops.conv2d)
            given = ops.batch_norm_given if self.relu is None else ops.batch_norm_given_relu
            return self.norm.run(y, ctx, ops.batch_norm, given)[0]
        own = None if self.conv.bias is None else self.conv.bias.data
        folded = ops.fold_norm(self.conv.weight.data, own, *self.norm.given())
        return self.conv.run(x, ctx, ops.conv2d if self.relu is None else ops.conv2d_relu, folded)


class ResidualReLU(Step):
    """ReLU(norm(head(x)) + shortcut(x)): a Residual whose body ends in a batch norm, and the ReLU behind it."""

    def __init__(self, residual: Residual, relu: ReLU, head: Sequential, norm: BatchNorm, shortcut: Layer) -> None:
        super().__init__([residual, norm, relu])
        self.head, self.norm, self.shortcut = head, norm, shortcut
        self.inside = [head, shortcut]

    def forward(self, x: Array, ctx: Context) -> Array:
        z, head = ctx.call(self.head, x, needs_input_grad=ctx.needs_input_grad)
        aside, shortcut = ctx.call(self.shortcut, x, needs_input_grad=ctx.needs_input_grad)
        y, kept = self.norm.run(z, ctx, ctx.ops.batch_norm_relu, ctx.ops.batch_norm_given_relu, aside)
        ctx.save(head, shortcut, *kept)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        head, shortcut, by_batch, res = ctx.release()
        kernel = ctx.ops.batch_norm_relu_backward if by_batch else ctx.ops.batch_norm_given_relu_backward
        goes_on = ctx.needs_input_grad or self.head.learns
        needs = ctx.needs(self.norm.weight, self.norm.bias) | {"need_dx": goes_on}
        dz, dw, db, aside = kernel(dy, res, **needs)
        del res
        ctx.add_grads((self.norm.weight, dw), (self.norm.bias, db))
        dx = ctx.backward(head, dz) if goes_on else None
        more = ctx.backward(shortcut, aside)
        if dx is None or more is None:
            return more if dx is None else dx
        if more is aside and more is not dy:  # made here, and nobody else has seen it
            ctx.ops.add_to(more, dx)
            return more
        return ctx.ops.add(dx, more)


class PoolReLU(Step):
    """A maximum over windows and a ReLU, in either order: the same numbers and gradients.

    max(relu(x)) = relu(max(x)); and where several pixels share a maximum above 0, they are the same before and after.
    """

    def __init__(self, parts: list[Layer], pool: MaxPool2d) -> None:
        super().__init__(parts)
        self.pool = pool

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.max_pool2d_relu(x, self.pool.window)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.max_pool2d_relu_backward(dy, res) if ctx.needs_input_grad else None
