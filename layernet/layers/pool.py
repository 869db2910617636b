"""Pooling with a sliding window: the maximum or the mean of every window, each channel by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from layernet.backend import Array, Shape
from layernet.backend.window import Window
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Const
from layernet.errors import ShapeError
from layernet.layers.fused import PoolReLU
from layernet.layers.spatial import Size2d, image_size, out_size, pair

Ties = Literal["first", "all"]
"""Which of the pixels that equal the maximum get its gradient: the first in reading order, as in torch and Caffe, or
every one, all of it, as in cuda-convnet."""


class MaxPool2d(Layer):
    """y = the maximum of every window.

    Shape: (N, H, W, C) -> (N, H', W', C), H' = floor((H + 2p - d (kernel_size - 1) - 1) / s) + 1. `stride` s (default:
    kernel_size), `padding` p and `dilation` d are in pixels; all sizes are a number or [rows, columns]. Padding never
    wins. With `ceil_mode`, a last window that reaches beyond the padded image is taken too, as long as it starts
    before the padding at the end. Where several pixels equal the maximum, the "first" of them in reading order gets
    the gradient (torch, Caffe), or with `ties` "all" each of them gets all of it (cuda-convnet). Raises ShapeError when
    the window does not fit.

    cuda-convnet's `pool=max` is ceil_mode true, ties all. Its `start`, the pixel at which the first window begins, is
    the argument of that name: 0 or negative, instead of `padding` (which pads both ends).
    """

    def __init__(
        self,
        kernel_size: Size2d,
        stride: Size2d | None = None,
        padding: Size2d = 0,
        dilation: Size2d = 1,
        ceil_mode: bool = False,
        ties: Ties = "first",
        start: Size2d = 0,
    ) -> None:
        self.window = window_of(kernel_size, stride, padding, dilation, start)
        self.ceil_mode = ceil_mode
        self.ties = one_of_ties(ties)

    def build(self, in_shape: Shape) -> Shape:
        self.window, out_shape = place_without_empty("MaxPool2d", self.window, self.ceil_mode, in_shape)
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        return maximum(x, self.window, self.ties, ctx)

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        return maximum_backward(dy, self.ties, ctx) if ctx.needs_input_grad else None

    @property
    def joins_relu(self) -> bool:
        """Whether a ReLU before or behind it can be part of its step."""
        return self.ties == "first"

    def fuse(self, following: Layer, inference: bool) -> Layer | None:
        from layernet.layers.activation import ReLU  # which joins with this in its turn

        return PoolReLU([self, following], self) if type(following) is ReLU and self.joins_relu else None


class MaxAbsPool2d(Layer):
    """y = the pixel of every window that is furthest from 0, with its sign.

    Shape: (N, H, W, C) -> (N, H', W', C), H' = floor((H + 2p - kernel_size) / s) + 1. `stride` s (default:
    kernel_size) and `padding` p are in pixels; they, `ceil_mode`, `start` and `ties` are those of MaxPool2d. Of two
    pixels with the same distance and opposite signs the later one in reading order is taken; pixels that equal it are
    its ties. With ceil_mode true and ties all it is cuda-convnet2's `pool=maxabs`. Raises ShapeError when the window
    does not fit.
    """

    def __init__(
        self,
        kernel_size: Size2d,
        stride: Size2d | None = None,
        padding: Size2d = 0,
        ceil_mode: bool = False,
        ties: Ties = "first",
        start: Size2d = 0,
    ) -> None:
        self.window = window_of(kernel_size, stride, padding, start=start)
        self.ceil_mode = ceil_mode
        self.ties = one_of_ties(ties)

    def build(self, in_shape: Shape) -> Shape:
        self.window, out_shape = place_without_empty("MaxAbsPool2d", self.window, self.ceil_mode, in_shape)
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.peak_pool2d(x, self.window, "max_abs", self.ties)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.peak_pool2d_backward(dy, res) if ctx.needs_input_grad else None


class AvgPool2d(Layer):
    """y = the mean of every window.

    Shape: (N, H, W, C) -> (N, H', W', C), H' = floor((H + 2p - kernel_size) / s) + 1. `stride` s (default:
    kernel_size) and `padding` p are in pixels; all sizes are a number or [rows, columns]. The padding counts as zeros,
    or with `count_include_pad` false not at all. With `ceil_mode`, a last window that reaches beyond the padded image
    is taken too, as long as it starts before the padding at the end; what is beyond the padding never counts.
    `divisor_override` divides every window's sum by this number instead. Raises ShapeError when the window does not
    fit.

    cuda-convnet's `pool=avg` clips windows to the image and divides by what is left of them: ceil_mode true,
    count_include_pad false, and `start` where the first window begins before the image: 0 or negative, instead of
    `padding` (which pads both ends). divisor_override 1 is its `sum`.
    """

    def __init__(
        self,
        kernel_size: Size2d,
        stride: Size2d | None = None,
        padding: Size2d = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        start: Size2d = 0,
    ) -> None:
        if divisor_override is not None and divisor_override < 1:
            raise ValueError(f"divisor_override must be at least 1, got {divisor_override}")
        self.window = window_of(kernel_size, stride, padding, start=start)
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def build(self, in_shape: Shape) -> Shape:
        size = image_size("AvgPool2d", in_shape)
        border = self.window.padding if self.count_include_pad else ((0, 0), (0, 0))
        self.window, out_shape = place(self.window, self.ceil_mode, in_shape)
        rows, columns = self.window.counts(size, border)
        areas = [[[self.divisor_override or r * c] for c in columns] for r in rows]
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
        y, res = ctx.ops.global_avg_pool2d(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.global_avg_pool2d_backward(dy, res) if ctx.needs_input_grad else None


def window_of(
    kernel_size: Size2d, stride: Size2d | None, padding: Size2d, dilation: Size2d = 1, start: Size2d = 0
) -> Window:
    kernel = pair("kernel_size", kernel_size)
    rows, columns = pair("padding", padding, minimum=0)
    step = kernel if stride is None else pair("stride", stride)
    window = Window(kernel, step, ((rows, rows), (columns, columns)), pair("dilation", dilation))
    if any(2 * p > extent for p, extent in zip((rows, columns), window.extent, strict=True)):
        raise ValueError(f"padding must be at most half of the kernel, got padding {padding!r}, kernel {kernel_size!r}")
    top, left = (-first for first in pair("start", start, minimum=None))
    if (top, left) == (0, 0):
        return window
    if (rows, columns) != (0, 0):
        raise ValueError(f"give start or padding, not both: got start {start!r}, padding {padding!r}")
    if not (0 <= top < window.extent[0] and 0 <= left < window.extent[1]):
        raise ValueError(f"start must be 0, or negative by less than the kernel {kernel_size!r}, got {start!r}")
    return replace(window, padding=((top, 0), (left, 0)))


def maximum(x: Array, window: Window, ties: Ties, ctx: Context) -> Array:
    """The maximum in every window; keeps what `maximum_backward` needs."""
    if ties == "first":
        y, res = ctx.ops.max_pool2d(x, window)
    else:
        y, res = ctx.ops.peak_pool2d(x, window, "max", ties)
    ctx.save(res)
    return y


def maximum_backward(dy: Array, ties: Ties, ctx: Context) -> Array:
    """The gradient of the image that `maximum` was given."""
    (res,) = ctx.saved
    return (ctx.ops.max_pool2d_backward if ties == "first" else ctx.ops.peak_pool2d_backward)(dy, res)


def one_of_ties(ties: Ties) -> Ties:
    """The argument. Raises ValueError for anything else."""
    if ties not in ("first", "all"):
        raise ValueError(f"ties must be first or all, got {ties!r}")
    return ties


def place_without_empty(kind: str, window: Window, ceil_mode: bool, in_shape: Shape) -> tuple[Window, Shape]:
    """`place` for a maximum, which the padding has no part in. Raises ShapeError where a window sees nothing else."""
    size = image_size(kind, in_shape)
    window, out_shape = place(window, ceil_mode, in_shape)
    if min(map(min, window.counts(size))) < 1:
        raise ShapeError(
            f"some windows would see nothing but padding in an image of {size[0]} x {size[1]}",
            "use less dilation or less padding",
        )
    return window, out_shape


def place(window: Window, ceil_mode: bool, in_shape: Shape) -> tuple[Window, Shape]:
    """The window for images of this shape, and the shape of what it makes of them."""
    size = in_shape[0], in_shape[1]
    if ceil_mode:
        window = window.covering(size)
    return window, (*out_size(window, size, in_shape), in_shape[2])
