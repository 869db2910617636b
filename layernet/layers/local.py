"""Convolution without sharing."""

from __future__ import annotations

import math
from typing import Literal

from layernet.backend import Array, Shape
from layernet.backend.random import Stream
from layernet.core import init
from layernet.core.context import Context
from layernet.core.init import InitFunction
from layernet.core.param import Param
from layernet.layers.conv import Filters, check_groups, sliding_window
from layernet.layers.spatial import Size2d, image_size, out_size


class Local2d(Filters):
    """y[h, w, o] = bias[h, w, o] + sum over i, j, c of x[h s + i - p, w s + j - p, c] weight[h, w, o, i, j, c].

    A convolution whose filters are other ones at every place: cuda-convnet's `local`, also called locally connected.

    Shape: (N, H, W, C) -> (N, H', W', out_channels), H' = floor((H + 2p - kernel_size) / s) + 1; weight (H', W',
    out_channels, kh, kw, C / groups), bias (H', W', out_channels), one for each output. `stride`, `padding`, `groups`
    and `ceil_mode` are those of `Conv2d`; for cuda-convnet's sizes, set `ceil_mode`. The number of parameters grows
    with the image: use it where that is small.

    `weight_init` is asked for the filters of all places as those of one layer, (H' W' out_channels, kh, kw, C /
    groups), so its fan_in is that of one output. The bias is spared by weight decay. Raises ShapeError when the kernel
    does not fit into the padded image, or groups do not divide C.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d = 1,
        padding: Size2d | Literal["same", "valid"] = 0,
        groups: int = 1,
        bias: bool = True,
        weight_init: InitFunction = init.kaiming_normal(),
        bias_init: InitFunction = init.constant(0.0),
        ceil_mode: bool = False,
    ) -> None:
        self._set_filters(out_channels, groups, bias, bias_init)
        self.weight_init = weight_init
        self.window = sliding_window(kernel_size, stride, padding)
        self.ceil_mode = ceil_mode

    def build(self, in_shape: Shape) -> Shape:
        size, channels = image_size("Local2d", in_shape), in_shape[2]
        check_groups(self.groups, channels)
        out_shape = (*out_size(self.window, size, in_shape), self.out_channels)
        if self.ceil_mode:
            self.window = self.window.rounded_up(size)
            out_shape = (*self.window.out_size(size), self.out_channels)

        def filters(shape: Shape, rng: Stream) -> Array:
            return self.weight_init((math.prod(out_shape), *shape[3:]), rng).reshape(shape)

        self.weight = Param((*out_shape, *self.window.kernel, channels // self.groups), filters)
        self.weight.units = self.weight.shape, (0, 1, 2)
        self.bias = self._bias_of(out_shape)
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        bias = self.bias.data if self.bias else None
        y, res = ctx.ops.local2d(x, self.weight.data, bias, self.window, self.groups)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        dx, dw, db = ctx.ops.local2d_backward(dy, res, **ctx.needs(self.weight, self.bias))
        ctx.add_grads((self.weight, dw), (self.bias, db))
        return dx

    def flops(self, in_shape: Shape) -> int:
        return self.weight.size
