"""Normalisation layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from layernet.backend import Array, Shape
from layernet.core import init
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Buffer, Param
from layernet.errors import ShapeError, UsageError
from layernet.layers.activation import ReLU
from layernet.layers.fused import NormReLU
from layernet.layers.shape import channels_of
from layernet.layers.spatial import image_size


class _Norm(Layer):
    """What the norms share: one weight and one bias a channel, both spared by weight decay."""

    def __init__(self, eps: float, affine: bool) -> None:
        if not 0 <= eps < math.inf:
            raise ValueError(f"eps must be finite and at least 0, got {eps}")
        self.eps = eps
        self.affine = affine

    def build(self, in_shape: Shape) -> Shape:
        channels = channels_of(self, in_shape)
        self.weight = Param(channels, init.constant(1.0), decay_mult=0) if self.affine else None
        self.bias = Param(channels, init.constant(0.0), decay_mult=0) if self.affine else None
        return in_shape

    def _affine(self) -> tuple[Array | None, Array | None]:
        return self.weight.data if self.weight else None, self.bias.data if self.bias else None


class BatchNorm(_Norm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, per channel over the batch and all places.

    In training, mean and var are those of the batch, var divided by the count n; the running statistics follow with
    running = (1 - momentum) * running + momentum * batch, where running_var takes var * n / (n - 1). In evaluation, and
    when its parameters are frozen, it uses the running statistics and leaves them. With 2-d or 4-d input it is
    torch.nn.BatchNorm1d or BatchNorm2d. (Ioffe and Szegedy 2015, arXiv:1502.03167)

    Shape: (N, ..., C) -> same; weight, bias (C) unless `affine` is false; buffers running_mean, running_var (C).
    Raises UsageError for a training batch with one value a channel.
    """

    batch_dependent = True

    def __init__(self, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__(eps, affine)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum}")
        self.momentum = momentum

    def build(self, in_shape: Shape) -> Shape:
        out_shape = super().build(in_shape)
        self.running_mean = Buffer(in_shape[-1:], init.constant(0.0))
        self.running_var = Buffer(in_shape[-1:], init.constant(1.0))
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, kept = self.run(x, ctx, ctx.ops.batch_norm, ctx.ops.batch_norm_given)
        ctx.save(*kept)
        return y

    def run(
        self, x: Array, ctx: Context, by_batch: Callable[..., Any], given: Callable[..., Any], *more: Array | None
    ) -> tuple[Array, tuple[bool, Any]]:
        """(y, what backward needs) by a kernel with batch_norm's arguments or one with batch_norm_given's, and more."""
        if not ctx.needs_update(self.running_mean):
            y, res = given(x, *self.given(), *more)
            return y, (False, res)
        count = x.size // x.shape[-1]
        if count < 2:
            raise UsageError(
                f"{self.label}: a training batch of shape {x.shape} has {count} value a channel, which has no variance",
                "use a larger batch, drop a short last one (drop_last), or freeze the layer",
            )
        y, mean, var, res = by_batch(x, *self._affine(), self.eps, *more)
        ctx.update_buffer(self.running_mean, mean, self.momentum)
        ctx.update_buffer(self.running_var, var * (count / (count - 1)), self.momentum)
        return y, (True, res)

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        by_batch, res = ctx.saved
        kernel = ctx.ops.batch_norm_backward if by_batch else ctx.ops.batch_norm_given_backward
        dx, dw, db = kernel(dy, res, **ctx.needs(self.weight, self.bias))
        ctx.add_grads((self.weight, dw), (self.bias, db))
        return dx

    def given(self) -> tuple[Array, Array, Array | None, Array | None, float]:
        """What its kernels take in evaluation: running mean and variance, weight, bias, eps."""
        return self.running_mean.data, self.running_var.data, *self._affine(), self.eps

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        return NormReLU(self, following) if type(following) is ReLU else None

    def flops(self, in_shape: Shape) -> int:
        return math.prod(in_shape)


class LayerNorm(_Norm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, over the last axis of each example and place.

    The same in training and evaluation. (Ba et al. 2016, arXiv:1607.06450)

    Shape: (N, ..., C) -> same; weight, bias (C) unless `affine` is false.
    """

    def __init__(self, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(eps, affine)

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.layer_norm(x, *self._affine(), self.eps)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        dx, dw, db = ctx.ops.layer_norm_backward(dy, res, **ctx.needs(self.weight, self.bias))
        ctx.add_grads((self.weight, dw), (self.bias, db))
        return dx

    def flops(self, in_shape: Shape) -> int:
        return (3 if self.affine else 2) * math.prod(in_shape)


class GroupNorm(_Norm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, over the places and a group of channels of each example.

    The channels are cut into `num_groups` groups of neighbours; the variance is divided by the count. One group is the
    layer norm of whole images, a group a channel is instance norm. The same in training and evaluation, for any batch
    size. (Wu and He 2018, arXiv:1803.08494)

    Shape: (N, ..., C) -> same; weight, bias (C) unless `affine` is false. Raises ShapeError when the groups would not
    be equal.
    """

    def __init__(self, num_groups: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(eps, affine)
        if num_groups < 1:
            raise ValueError(f"num_groups must be at least 1, got {num_groups}")
        self.num_groups = num_groups

    def build(self, in_shape: Shape) -> Shape:
        out_shape = super().build(in_shape)
        if in_shape[-1] % self.num_groups:
            raise ShapeError(
                f"{in_shape[-1]} channels cannot be cut into {self.num_groups} equal groups",
                "num_groups must divide the number of channels",
            )
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, _, _, res = ctx.ops.group_norm(x, self.num_groups, *self._affine(), self.eps)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        dx, dw, db = ctx.ops.group_norm_backward(dy, res, **ctx.needs(self.weight, self.bias))
        ctx.add_grads((self.weight, dw), (self.bias, db))
        return dx

    def flops(self, in_shape: Shape) -> int:
        return (3 if self.affine else 2) * math.prod(in_shape)


class InstanceNorm2d(_Norm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, over the pixels of each channel of each image.

    With `track_running_stats`, training also follows the means over the batch of the images' mean and unbiased
    variance, running = (1 - momentum) * running + momentum * batch, and evaluation (or training while frozen) uses
    those; without, evaluation is like training. Defaults as in torch: neither affine nor tracking. (Ulyanov et al.
    2016, arXiv:1607.08022)

    Shape: (N, H, W, C) -> same; weight, bias (C) if `affine`; buffers running_mean, running_var (C) if tracking.
    Raises ShapeError for images of one pixel, which have no variance.
    """

    def __init__(
        self, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False, track_running_stats: bool = False
    ) -> None:
        super().__init__(eps, affine)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum}")
        self.momentum, self.track_running_stats = momentum, track_running_stats

    def build(self, in_shape: Shape) -> Shape:
        if math.prod(image_size("InstanceNorm2d", in_shape)) < 2:
            raise ShapeError("an image of one pixel has no variance", "use LayerNorm or GroupNorm on so small an image")
        self.running_mean = Buffer(in_shape[-1:], init.constant(0.0)) if self.track_running_stats else None
        self.running_var = Buffer(in_shape[-1:], init.constant(1.0)) if self.track_running_stats else None
        return super().build(in_shape)

    def forward(self, x: Array, ctx: Context) -> Array:
        mean, var = self.running_mean, self.running_var
        if mean is not None and var is not None and not ctx.needs_update(mean):
            y, res = ctx.ops.batch_norm_given(x, mean.data, var.data, *self._affine(), self.eps)
            ctx.save(True, res)
            return y
        y, means, variances, res = ctx.ops.group_norm(x, x.shape[-1], *self._affine(), self.eps)
        if mean is not None and var is not None:
            count = math.prod(x.shape[1:3])
            ctx.update_buffer(mean, means.mean(axis=0), self.momentum)
            ctx.update_buffer(var, variances.mean(axis=0) * (count / (count - 1)), self.momentum)
        ctx.save(False, res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        given, res = ctx.saved
        kernel = ctx.ops.batch_norm_given_backward if given else ctx.ops.group_norm_backward
        dx, dw, db = kernel(dy, res, **ctx.needs(self.weight, self.bias))
        ctx.add_grads((self.weight, dw), (self.bias, db))
        return dx

    def flops(self, in_shape: Shape) -> int:
        return (3 if self.affine else 2) * math.prod(in_shape)


class RMSNorm(Layer):
    """y = x / sqrt(mean(x^2) + eps) * weight, over the last axis of each example and place.

    `eps` None is the machine epsilon of the net's float type, as in torch. (Zhang and Sennrich 2019, arXiv:1910.07467)

    Shape: (N, ..., C) -> same; weight (C), spared by weight decay, unless `affine` is false.
    """

    def __init__(self, eps: float | None = None, affine: bool = True) -> None:
        if eps is not None and not 0 <= eps < math.inf:
            raise ValueError(f"eps must be finite and at least 0, got {eps}")
        self.eps, self.affine = eps, affine

    def build(self, in_shape: Shape) -> Shape:
        channels = channels_of(self, in_shape)
        self.weight = Param(channels, init.constant(1.0), decay_mult=0) if self.affine else None
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        eps = float(ctx.xp.finfo(x.dtype).eps) if self.eps is None else self.eps
        y, res = ctx.ops.rms_norm(x, self.weight.data if self.weight else None, eps)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        dx, dw = ctx.ops.rms_norm_backward(dy, res, need_dx=ctx.needs_input_grad, need_dw=ctx.needs_grad(self.weight))
        ctx.add_grads((self.weight, dw))
        return dx

    def flops(self, in_shape: Shape) -> int:
        return (3 if self.affine else 2) * math.prod(in_shape)
