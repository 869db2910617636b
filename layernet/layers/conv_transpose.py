"""Transposed convolution."""

from __future__ import annotations

import math

from layernet.backend import Array, Shape
from layernet.core import init
from layernet.core.context import Context
from layernet.core.init import InitFunction
from layernet.core.param import Param
from layernet.errors import ShapeError
from layernet.layers.conv import Filters, check_groups, sliding_window
from layernet.layers.spatial import Size2d, image_size, pair


class ConvTranspose2d(Filters):
    """y[r s + i d - p, t s + j d - p, o] = bias[o] + sum over r, t, i, j, c of x[r, t, c] weight[c, i, j, o].

    The transpose of the Conv2d with the same arguments and weight: it maps the shape of that one's output to the shape
    of its input, and its forward is that one's backward. Also called deconvolution.

    Shape: (N, H, W, C) -> (N, H', W', out_channels), H' = (H - 1) s - 2p + d (kernel_size - 1) + output_padding + 1;
    weight (C, kh, kw, out_channels / groups), bias (out_channels). `stride` s, `padding` p (cut off the output) and
    `dilation` d are in pixels; all sizes are a number or [rows, columns]. A convolution of stride s makes the same of
    s sizes; `output_padding`, at least 0 and below s, says which is meant: so many more rows and columns at the end.
    (torch also takes output_padding below d, which no convolution is the transpose of.) With `groups` g, each g-th of
    the outputs sees only its g-th of the channels.

    The default weights are normal with variance 2 g s_h s_w / (C kh kw): an output sums C kh kw / (g s_h s_w) products
    on average, so that they keep the second moment through ReLU (He et al. 2015, arXiv:1502.01852). The bias is spared
    by weight decay. Raises ShapeError when groups do not divide C, or nothing is left of the output.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d = 1,
        padding: Size2d = 0,
        output_padding: Size2d = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size2d = 1,
        weight_init: InitFunction | None = None,
        bias_init: InitFunction = init.constant(0.0),
    ) -> None:
        self._set_filters(out_channels, groups, bias, bias_init)
        pair("padding", padding, minimum=0)  # a number: "same" and "valid" are a convolution's
        self.window = sliding_window(kernel_size, stride, padding, dilation)
        self.output_padding = pair("output_padding", output_padding, minimum=0)
        if any(more >= step for more, step in zip(self.output_padding, self.window.stride, strict=True)):
            raise ValueError(f"output_padding must be below stride {stride!r}, got {output_padding!r}")
        self.weight_init = weight_init

    def build(self, in_shape: Shape) -> Shape:
        size, channels = image_size("ConvTranspose2d", in_shape), in_shape[2]
        check_groups(self.groups, channels)
        height, width = (
            (n - 1) * step - sum(cut) + extent + more
            for n, step, cut, extent, more in zip(
                size, self.window.stride, self.window.padding, self.window.extent, self.output_padding, strict=True
            )
        )
        if min(height, width) < 1:
            raise ShapeError(
                f"the padding cuts off all of the output: {height} x {width} would be left of an image of "
                f"{size[0]} x {size[1]}",
                "use less padding, which a transposed convolution cuts off its output, or a larger kernel",
            )
        products = channels * math.prod(self.window.kernel) / (self.groups * math.prod(self.window.stride))
        weight_init = self.weight_init or init.normal(math.sqrt(2.0 / products))
        filters = (*self.window.kernel, self.out_channels // self.groups)
        self.weight = Param((channels, *filters), weight_init)
        self.weight.units = (self.groups, channels // self.groups, *filters), (0, 4)
        self.bias = self._bias_of((self.out_channels,))
        return height, width, self.out_channels

    def forward(self, x: Array, ctx: Context) -> Array:
        bias = self.bias.data if self.bias else None
        size = self.out_shape[0], self.out_shape[1]
        y, res = ctx.ops.conv_transpose2d(x, self.weight.data, bias, self.window, size, self.groups)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        dx, dw, db = ctx.ops.conv_transpose2d_backward(dy, res, **ctx.needs(self.weight, self.bias))
        ctx.add_grads((self.weight, dw), (self.bias, db))
        return dx

    def flops(self, in_shape: Shape) -> int:
        return math.prod((*in_shape, *self.window.kernel, self.out_channels // self.groups))
