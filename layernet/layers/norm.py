"""Normalising layers; features are the last axis."""

from __future__ import annotations

from layernet.backend import Array, Shape
from layernet.backend.arrays import sum_to
from layernet.core import init
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Buffer, Param
from layernet.errors import ShapeError, UsageError


class BatchNorm(Layer):
    """y = weight (x - mean) / sqrt(var + eps) + bias, each channel over the batch and its positions.

    In training mean and (biased) variance are the batch's, and the running statistics follow with `momentum`, the
    variance unbiased; in evaluation, and where the statistics are frozen, the running ones are used. torch's
    BatchNorm1d and 2d in one. Shape: (N, ..., C) -> same; weight, bias, running_mean, running_var (C). Neither
    decays. Raises UsageError in training on a single value a channel (Ioffe and Szegedy 2015, arXiv:1502.03167).
    """

    batch_dependent = True

    def __init__(self, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in 0..1, got {momentum}")
        self.eps, self.momentum, self.affine = eps, momentum, affine

    def build(self, in_shape: Shape) -> Shape:
        if not in_shape:
            raise ShapeError("BatchNorm needs an axis of channels", "give the input a shape like [1]")
        channels = in_shape[-1:]
        self.weight = Param(channels, init.constant(1.0), decay_mult=0) if self.affine else None
        self.bias = Param(channels, init.constant(0.0), decay_mult=0) if self.affine else None
        self.running_mean = Buffer(channels, init.constant(0.0))
        self.running_var = Buffer(channels, init.constant(1.0))
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        weight = self.weight.data if self.weight else None
        bias = self.bias.data if self.bias else None
        if not ctx.needs_update(self.running_mean):
            inverse = 1.0 / ctx.xp.sqrt(self.running_var.data + self.eps)
            normal = (x - self.running_mean.data) * inverse
            ctx.save(None, normal, inverse)
            return normal if weight is None else normal * weight + bias
        count = x.size // x.shape[-1]
        if count < 2:
            raise UsageError(
                f"{self.label}: training needs more than one value a channel, got an input of shape {x.shape}",
                "use a larger batch, or drop_last: true where the last batch has a single example",
            )
        y, mean, var, res = ctx.ops.batch_norm(x, weight, bias, self.eps)
        ctx.update_buffer(self.running_mean, mean, self.momentum)
        ctx.update_buffer(self.running_var, var * (count / (count - 1)), self.momentum)
        ctx.save(res, None, None)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        res, normal, inverse = ctx.saved
        if res is not None:
            dx, dweight, dbias = ctx.ops.batch_norm_backward(dy, res, need_dx=ctx.needs_input_grad)
        else:
            dx = dy * (inverse if self.weight is None else inverse * self.weight.data)
            dweight, dbias = sum_to(dy * normal, normal.shape[-1:]), sum_to(dy, normal.shape[-1:])
        ctx.add_grads((self.weight, dweight), (self.bias, dbias))
        return dx


class LayerNorm(Layer):
    """y = weight (x - mean) / sqrt(var + eps) + bias, each example over its last axis.

    (Ba et al. 2016, arXiv:1607.06450). Shape: (N, ..., C) -> same; weight, bias (C). Neither decays.
    """

    def __init__(self, eps: float = 1e-5, affine: bool = True) -> None:
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.eps, self.affine = eps, affine

    def build(self, in_shape: Shape) -> Shape:
        if not in_shape:
            raise ShapeError("LayerNorm needs an axis of features", "give the input a shape like [1]")
        self.weight = Param(in_shape[-1:], init.constant(1.0), decay_mult=0) if self.affine else None
        self.bias = Param(in_shape[-1:], init.constant(0.0), decay_mult=0) if self.affine else None
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        weight = self.weight.data if self.weight else None
        y, res = ctx.ops.layer_norm(x, weight, self.bias.data if self.bias else None, self.eps)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        dx, dweight, dbias = ctx.ops.layer_norm_backward(dy, res, need_dx=ctx.needs_input_grad)
        ctx.add_grads((self.weight, dweight), (self.bias, dbias))
        return dx
