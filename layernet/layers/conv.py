"""Convolution."""

from __future__ import annotations

import math
from typing import Literal

from layernet.backend import Array, Shape
from layernet.backend.window import Pair, Window
from layernet.core import init
from layernet.core.context import Context
from layernet.core.init import InitFunction
from layernet.core.layer import Layer
from layernet.core.param import Param
from layernet.errors import ShapeError
from layernet.layers.spatial import Size2d, image_size, out_size, pair


class Conv2d(Layer):
    """y[h, w, o] = bias[o] + sum over i, j, c of x[h s + i d - p, w s + j d - p, c] weight[o, i, j, c].

    Shape: (N, H, W, C) -> (N, H', W', out_channels), H' = floor((H + 2p - d (kernel_size - 1) - 1) / s) + 1; weight
    (out_channels, kh, kw, C / groups), bias (out_channels). `stride` s, `padding` p (zeros) and `dilation` d are in
    pixels; all sizes are a number or [rows, columns]. `padding` "valid" is none, "same" keeps the size of the image
    and needs stride 1; where that takes an odd number of zeros, the odd one stands at the end. With `groups` g, each
    g-th of the filters sees only its g-th of the channels (g = C: depthwise).

    The default weights keep the second moment through ReLU (He et al. 2015, arXiv:1502.01852). The bias is spared by
    weight decay. Raises ShapeError when the kernel does not fit into the padded image, or groups do not divide C.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d = 1,
        padding: Size2d | Literal["same", "valid"] = 0,
        dilation: Size2d = 1,
        groups: int = 1,
        bias: bool = True,
        weight_init: InitFunction = init.kaiming_normal(),
        bias_init: InitFunction = init.constant(0.0),
    ) -> None:
        if out_channels < 1:
            raise ValueError(f"out_channels must be at least 1, got {out_channels}")
        if groups < 1 or out_channels % groups:
            raise ValueError(f"groups must divide out_channels={out_channels}, got {groups}")
        self.out_channels, self.groups, self.use_bias = out_channels, groups, bias
        self.weight_init, self.bias_init = weight_init, bias_init
        self.window = _window(kernel_size, stride, padding, dilation)

    def build(self, in_shape: Shape) -> Shape:
        size = image_size("Conv2d", in_shape)
        channels = in_shape[2]
        if channels % self.groups:
            raise ShapeError(
                f"groups={self.groups} does not divide the {channels} channels of the input",
                f"use groups: {math.gcd(channels, self.groups)}, or change the channels before it",
            )
        out = out_size(self.window, size, in_shape)
        self.weight = Param((self.out_channels, *self.window.kernel, channels // self.groups), self.weight_init)
        self.bias = Param((self.out_channels,), self.bias_init, decay_mult=0) if self.use_bias else None
        return (*out, self.out_channels)

    def forward(self, x: Array, ctx: Context) -> Array:
        bias = self.bias.data if self.bias else None
        y, res = ctx.ops.conv2d(x, self.weight.data, bias, self.window, self.groups)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        dx, dw, db = ctx.ops.conv2d_backward(
            dy,
            res,
            need_dx=ctx.needs_input_grad,
            need_dw=ctx.needs_grad(self.weight),
            need_db=ctx.needs_grad(self.bias),
        )
        ctx.add_grads((self.weight, dw), (self.bias, db))
        return dx

    def flops(self, in_shape: Shape) -> int:
        height, width, channels = in_shape
        places = self.window.out_size((height, width))
        return math.prod((*places, self.out_channels, *self.window.kernel, channels // self.groups))


def _window(
    kernel_size: Size2d, stride: Size2d, padding: Size2d | Literal["same", "valid"], dilation: Size2d
) -> Window:
    bare = Window(pair("kernel_size", kernel_size), pair("stride", stride), dilation=pair("dilation", dilation))
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be a number of pixels, 'same' or 'valid', got {padding!r}")
        if padding == "valid":
            return bare
        if bare.stride != (1, 1):
            raise ValueError(f"padding 'same' needs stride 1, got stride {stride!r}; give the padding in pixels")
        rows, columns = (_halves(extent - 1) for extent in bare.extent)
    else:
        rows, columns = ((n, n) for n in pair("padding", padding, minimum=0))
    return Window(bare.kernel, bare.stride, (rows, columns), bare.dilation)


def _halves(n: int) -> Pair:
    return n // 2, n - n // 2
