"""Pooling: the maximum or the mean of every window, each channel by itself."""

from __future__ import annotations

import math

from layernet.backend import Array, Shape
from layernet.backend.window import Window
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Const
from layernet.errors import ShapeError
from layernet.layers.spatial import Size2d, image_size, out_size, pair


class MaxPool2d(Layer):
    """y = the maximum of every window; the first pixel in reading order that equals it gets the gradient.

    Shape: (N, H, W, C) -> (N, H', W', C), H' = floor((H + 2p - d (kernel_size - 1) - 1) / s) + 1. `stride` s (default:
    kernel_size), `padding` p and `dilation` d are in pixels; all sizes are a number or [rows, columns]. Padding never
    wins. With `ceil_mode`, a last window that reaches beyond the padded image is taken too, as long as it starts
    before the padding at the end. Raises ShapeError when the window does not fit.
    """

    def __init__(
        self,
        kernel_size: Size2d,
        stride: Size2d | None = None,
        padding: Size2d = 0,
        dilation: Size2d = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.window = _window(kernel_size, stride, padding, dilation)
        self.ceil_mode = ceil_mode

    def build(self, in_shape: Shape) -> Shape:
        size = image_size("MaxPool2d", in_shape)
        self.window, out_shape = _place(self.window, self.ceil_mode, in_shape)
        if min(map(min, self.window.counts(size))) < 1:
            raise ShapeError(
                f"some windows would see nothing but padding in an image of {size[0]} x {size[1]}",
                "use less dilation or less padding",
            )
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.max_pool2d(x, self.window)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.max_pool2d_backward(dy, res) if ctx.needs_input_grad else None


class AvgPool2d(Layer):
    """y = the mean of every window.

    Shape: (N, H, W, C) -> (N, H', W', C), H' = floor((H + 2p - kernel_size) / s) + 1. `stride` s (default:
    kernel_size) and `padding` p are in pixels; all sizes are a number or [rows, columns]. The padding counts as zeros,
    or with `count_include_pad` false not at all. With `ceil_mode`, a last window that reaches beyond the padded image
    is taken too, as long as it starts before the padding at the end; what is beyond the padding never counts. Raises
    ShapeError when the window does not fit.
    """

    def __init__(
        self,
        kernel_size: Size2d,
        stride: Size2d | None = None,
        padding: Size2d = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.window = _window(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def build(self, in_shape: Shape) -> Shape:
        size = image_size("AvgPool2d", in_shape)
        border = self.window.padding if self.count_include_pad else ((0, 0), (0, 0))
        self.window, out_shape = _place(self.window, self.ceil_mode, in_shape)
        rows, columns = self.window.counts(size, border)
        areas = [[[r * c] for c in columns] for r in rows]
        self.divisor = Const(lambda xp, dtype: xp.asarray(areas, dtype=dtype))
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.avg_pool2d(x, self.window, self.divisor.data)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.avg_pool2d_backward(dy, res) if ctx.needs_input_grad else None


class GlobalAvgPool2d(Layer):
    """y[c] = the mean of channel c over the whole image (Lin et al. 2013, arXiv:1312.4400).

    Shape: (N, H, W, C) -> (N, C).
    """

    def build(self, in_shape: Shape) -> Shape:
        image_size("GlobalAvgPool2d", in_shape)
        return in_shape[2:]

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x.shape)
        return x.mean(axis=(1, 2))

    def backward(self, dy: Array, ctx: Context) -> Array:
        (shape,) = ctx.saved
        dx = ctx.empty(shape)
        dx[...] = dy[:, None, None, :] / math.prod(shape[1:3])
        return dx


def _window(kernel_size: Size2d, stride: Size2d | None, padding: Size2d, dilation: Size2d = 1) -> Window:
    kernel = pair("kernel_size", kernel_size)
    rows, columns = pair("padding", padding, minimum=0)
    step = kernel if stride is None else pair("stride", stride)
    window = Window(kernel, step, ((rows, rows), (columns, columns)), pair("dilation", dilation))
    if any(2 * p > extent for p, extent in zip((rows, columns), window.extent, strict=True)):
        raise ValueError(f"padding must be at most half of the kernel, got padding {padding!r}, kernel {kernel_size!r}")
    return window


def _place(window: Window, ceil_mode: bool, in_shape: Shape) -> tuple[Window, Shape]:
    """The window for images of this shape, and the shape of what it makes of them."""
    size = in_shape[0], in_shape[1]
    if ceil_mode:
        window = window.covering(size)
    return window, (*out_size(window, size, in_shape), in_shape[2])
