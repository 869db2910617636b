"""Convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from layernet.backend import Array, Shape
from layernet.backend.window import Pair, Window
from layernet.core import init
from layernet.core.context import Context
from layernet.core.init import InitFunction
from layernet.core.layer import Layer
from layernet.core.param import Param
from layernet.errors import ShapeError
from layernet.layers.activation import ReLU
from layernet.layers.fused import ConvPool, ConvReLU, FoldedNorm
from layernet.layers.norm import BatchNorm
from layernet.layers.pool import MaxPool2d
from layernet.layers.spatial import Size2d, image_size, out_length, out_size, pair

Gradients = tuple[Array | None, Array | None, Array | None]


class Filters(Layer):
    """What layers with filters share: how many there are, in how many groups, and their biases."""

    weight: Param
    bias: Param | None

    def _set_filters(self, out_channels: int, groups: int, bias: bool, bias_init: InitFunction) -> None:
        if out_channels < 1:
            raise ValueError(f"out_channels must be at least 1, got {out_channels}")
        if groups < 1 or out_channels % groups:
            raise ValueError(f"groups must divide out_channels={out_channels}, got {groups}")
        self.out_channels, self.groups, self.use_bias, self.bias_init = out_channels, groups, bias, bias_init

    def _bias_of(self, shape: Shape) -> Param | None:
        """The biases, of this shape, spared by weight decay; None where there are to be none."""
        return Param(shape, self.bias_init, decay_mult=0) if self.use_bias else None


class _Convolution(Filters):
    """Parameters and passes of a convolution, which the kernel does on images."""

    window: Window
    weight_init: InitFunction

    def _declare(self, kernel: tuple[int, ...], channels: int) -> None:
        check_groups(self.groups, channels)
        self.weight = Param((self.out_channels, *kernel, channels // self.groups), self.weight_init)
        self.bias = self._bias_of((self.out_channels,))

    def _as_images(self, array: Array, example: Shape) -> Array:
        """A batch whose examples have this shape, as images."""
        return array

    def forward(self, x: Array, ctx: Context) -> Array:
        return self.run(x, ctx, ctx.ops.conv2d)

    def run(
        self,
        x: Array,
        ctx: Context,
        kernel: Callable[..., tuple[Array, Any]],
        folded: tuple[Array, Array] | None = None,
    ) -> Array:
        """`forward` by a kernel with conv2d's arguments; `folded` are a weight and a bias to take for its own."""
        weight, bias = folded or (self.weight.data, self.bias.data if self.bias else None)
        filters = weight.reshape(self.out_channels, *self.window.kernel, -1)
        y, res = kernel(self._as_images(x, self.in_shape), filters, bias, self.window, self.groups)
        ctx.save(res)
        return y.reshape(len(x), *self.out_shape)

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        return self.run_backward(dy, ctx, ctx.ops.conv2d_backward)

    def run_backward(self, dy: Array, ctx: Context, kernel: Callable[..., Gradients]) -> Array | None:
        """`backward` by a kernel with conv2d_backward's arguments."""
        (res,) = ctx.saved
        dx, dw, db = kernel(self._as_images(dy, self.out_shape), res, **ctx.needs(self.weight, self.bias))
        ctx.add_grads((self.weight, None if dw is None else dw.reshape(self.weight.shape)), (self.bias, db))
        return None if dx is None else dx.reshape(len(dy), *self.in_shape)

    def _join(self, following: Layer, inference: bool) -> Layer | None:
        if type(following) is ReLU:
            return ConvReLU(self, following)
        return FoldedNorm(self, following) if inference and type(following) is BatchNorm else None

    def fuse_pool(self, following: Layer, parts: list[Layer], relu: bool) -> Layer | None:
        """The step that `parts`, which end in `following`, run as, where that is a pool it can be joined with."""
        return None


class Conv2d(_Convolution):
    """y[h, w, o] = bias[o] + sum over i, j, c of x[h s + i d - p, w s + j d - p, c] weight[o, i, j, c].

    Shape: (N, H, W, C) -> (N, H', W', out_channels), H' = floor((H + 2p - d (kernel_size - 1) - 1) / s) + 1; weight
    (out_channels, kh, kw, C / groups), bias (out_channels). `stride` s, `padding` p (zeros) and `dilation` d are in
    pixels; all sizes are a number or [rows, columns]. `padding` "valid" is none, "same" keeps the size of the image
    and needs stride 1; where that takes an odd number of zeros, the odd one stands at the end. With `groups` g, each
    g-th of the filters sees only its g-th of the channels (g = C: depthwise). With `ceil_mode`, H' takes the ceiling,
    as cuda-convnet does: a last window reaches beyond the padded image, where it reads zeros. The floor is Caffe's and
    torch's.

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
        ceil_mode: bool = False,
    ) -> None:
        self._set_filters(out_channels, groups, bias, bias_init)
        self.weight_init = weight_init
        self.window = sliding_window(kernel_size, stride, padding, dilation)
        self.ceil_mode = ceil_mode

    def build(self, in_shape: Shape) -> Shape:
        size = image_size("Conv2d", in_shape)
        out = out_size(self.window, size, in_shape)
        self._declare(self.window.kernel, in_shape[2])
        if self.ceil_mode:
            self.window = self.window.rounded_up(size)
            out = self.window.out_size(size)
        return (*out, self.out_channels)

    def flops(self, in_shape: Shape) -> int:
        height, width, channels = in_shape
        places = self.window.out_size((height, width))
        return math.prod((*places, self.out_channels, *self.window.kernel, channels // self.groups))

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        return self._join(following, inference) or self.fuse_pool(following, [self, following], relu=False)

    def fuse_pool(self, following: Layer, parts: list[Layer], relu: bool) -> Layer | None:
        if type(following) is MaxPool2d and following.joins_relu:
            return ConvPool(self, following, parts, relu)
        return None


class Conv1d(_Convolution):
    """y[t, o] = bias[o] + sum over i, c of x[t s + i d - p, c] weight[o, i, c].

    Shape: (N, T, C) -> (N, T', out_channels), T' = floor((T + 2p - d (kernel_size - 1) - 1) / s) + 1; weight
    (out_channels, kernel_size, C / groups), bias (out_channels). The arguments are those of `Conv2d`, along T.

    Raises ShapeError when the kernel does not fit into the padded sequence, or groups do not divide C.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | Literal["same", "valid"] = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        weight_init: InitFunction = init.kaiming_normal(),
        bias_init: InitFunction = init.constant(0.0),
    ) -> None:
        for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
            if not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        if not isinstance(padding, int | str):
            raise ValueError(f"padding must be a number of steps, 'same' or 'valid', got {padding!r}")
        self._set_filters(out_channels, groups, bias, bias_init)
        self.weight_init = weight_init
        along_rows = sliding_window(kernel_size, stride, padding, dilation)
        self.window = Window(
            (1, kernel_size), (1, stride), ((0, 0), along_rows.padding[0]), (1, dilation)
        )  # a sequence is an image of one row

    def build(self, in_shape: Shape) -> Shape:
        if len(in_shape) != 2:
            raise ShapeError(
                f"Conv1d needs a sequence (T, C), got an input of shape {in_shape}",
                f"give the sequence its axis of channels: {[*in_shape, 1]}" if len(in_shape) == 1 else "",
            )
        length, channels = in_shape
        places = out_length(self.window, length)
        self._declare(self.window.kernel[1:], channels)
        return places, self.out_channels

    def _as_images(self, array: Array, example: Shape) -> Array:
        return array.reshape(len(array), 1, *example)

    def flops(self, in_shape: Shape) -> int:
        length, channels = in_shape
        places = self.window.out_size((1, length))[1]
        return places * self.out_channels * self.window.kernel[1] * channels // self.groups

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        return self._join(following, inference)


def check_groups(groups: int, channels: int) -> None:
    """Raise ShapeError unless the groups divide the channels."""
    if channels % groups:
        raise ShapeError(
            f"groups={groups} does not divide the {channels} channels of the input",
            f"use groups: {math.gcd(channels, groups)}, or change the channels before it",
        )


def sliding_window(
    kernel_size: Size2d, stride: Size2d, padding: Size2d | Literal["same", "valid"], dilation: Size2d = 1
) -> Window:
    """The window of a convolution's arguments. Raises ValueError for those that make none."""
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
