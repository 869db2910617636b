"""Pooling of whole images, to a size, and over channels."""

from __future__ import annotations

import math

from layernet.backend import Array, Shape
from layernet.backend.window import Window
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Const
from layernet.errors import ShapeError
from layernet.layers.pool import Ties, maximum, maximum_backward, one_of_ties
from layernet.layers.shape import channels_of
from layernet.layers.spatial import image_size

OutputSize = int | tuple[int | None, int | None] | None
"""One number for both axes, or (rows, columns); None keeps the size of the image."""


class GlobalMaxPool2d(Layer):
    """y[c] = the maximum of channel c over the whole image; its first pixel in reading order gets the gradient.

    Shape: (N, H, W, C) -> (N, C).
    """

    def build(self, in_shape: Shape) -> Shape:
        image_size("GlobalMaxPool2d", in_shape)
        return in_shape[2:]

    def forward(self, x: Array, ctx: Context) -> Array:
        height, width, _ = self.in_shape
        y, res = ctx.ops.span_max_pool2d(x, ((0, height),), ((0, width),))
        ctx.save(res)
        return y[:, 0, 0]

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.span_max_pool2d_backward(dy[:, None, None], res) if ctx.needs_input_grad else None


class AdaptiveAvgPool2d(Layer):
    """y = the means of H' x W' windows that cover the image; window i is the pixels floor(iH/H') .. ceil((i+1)H/H').

    Shape: (N, H, W, C) -> (N, H', W', C). `output_size` is a number or [H', W']; null keeps the image's own size along
    that axis. Larger outputs than the image repeat pixels.
    """

    def __init__(self, output_size: OutputSize) -> None:
        self.output_size = _output_size(output_size)

    def build(self, in_shape: Shape) -> Shape:
        size = image_size("AdaptiveAvgPool2d", in_shape)
        out = tuple(o or n for o, n in zip(self.output_size, size, strict=True))
        rows, columns = (_means(n, o) for n, o in zip(size, out, strict=True))
        self.rows = Const(lambda xp, dtype: xp.asarray(rows, dtype=dtype))
        self.columns = Const(lambda xp, dtype: xp.asarray(columns, dtype=dtype))
        return (*out, in_shape[2])

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.resample2d(x, self.rows.data, self.columns.data)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.resample2d_backward(dy, res) if ctx.needs_input_grad else None


class AdaptiveMaxPool2d(Layer):
    """y = the maxima of the windows of AdaptiveAvgPool2d; the first pixel in reading order gets the gradient.

    Shape: (N, H, W, C) -> (N, H', W', C). `output_size` is a number or [H', W']; null keeps the image's own size along
    that axis.
    """

    def __init__(self, output_size: OutputSize) -> None:
        self.output_size = _output_size(output_size)

    def build(self, in_shape: Shape) -> Shape:
        size = image_size("AdaptiveMaxPool2d", in_shape)
        out = tuple(o or n for o, n in zip(self.output_size, size, strict=True))
        self.rows, self.columns = (tuple(_windows(n, o)) for n, o in zip(size, out, strict=True))
        return (*out, in_shape[2])

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.span_max_pool2d(x, self.rows, self.columns)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.span_max_pool2d_backward(dy, res) if ctx.needs_input_grad else None


class Maxout(Layer):
    """y[k] = the maximum of `size` neighbouring channels (Goodfellow et al. 2013, arXiv:1302.4389).

    Group k is the channels start + k stride .. start + k stride + size - 1, as far as they exist: the last group, and
    the first where `start` is negative, may be smaller. `stride` is at most size (default: size, disjoint groups).
    Shape: (N, ..., C) -> (N, ..., C'), C' = ceil((C - start - size) / stride) + 1. Of equal channels the "first" gets
    the gradient, or with `ties` "all" each gets all of it, which is cuda-convnet2's `cmpool`. Raises ShapeError when
    there are fewer channels than one group needs.
    """

    def __init__(self, size: int, stride: int | None = None, start: int = 0, ties: Ties = "first") -> None:
        stride = size if stride is None else stride
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if not 1 <= stride <= size:
            raise ValueError(f"stride must be from 1 to size {size}, so that no channel is left out, got {stride}")
        if not -size < start <= 0:
            raise ValueError(f"start must be 0, or negative by less than size {size}, got {start}")
        self.window = Window((1, size), (1, stride), ((0, 0), (-start, 0)))
        self.ties = one_of_ties(ties)

    def build(self, in_shape: Shape) -> Shape:
        (channels,) = channels_of(self, in_shape)
        if self.window.out_size((1, channels))[1] < 1:
            raise ShapeError(
                f"a group of {self.window.kernel[1]} channels does not fit into {channels}",
                "use a smaller size, or more channels in the layer before",
            )
        self.window = self.window.covering((1, channels))
        groups = self.window.out_size((1, channels))[1]
        return (*in_shape[:-1], groups)

    def forward(self, x: Array, ctx: Context) -> Array:
        return maximum(self._as_image(x), self.window, self.ties, ctx).reshape(len(x), *self.out_shape)

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        if not ctx.needs_input_grad:
            return None
        dx = maximum_backward(self._as_image(dy), self.ties, ctx)
        return dx.reshape(len(dy), *self.in_shape)

    def _as_image(self, array: Array) -> Array:
        """The channels as columns, in one row for each place."""
        return array.reshape(len(array), math.prod(array.shape[1:-1]), array.shape[-1], 1)


def _output_size(value: OutputSize) -> tuple[int | None, int | None]:
    """(H', W') with None where the image's own size is kept. Raises ValueError for anything else."""
    numbers = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(numbers) != 2 or not all(n is None or (isinstance(n, int) and n >= 1) for n in numbers):
        raise ValueError(f"output_size must be a positive number or two of them [rows, columns], got {value!r}")
    return numbers[0], numbers[1]


def _windows(size: int, out: int) -> list[tuple[int, int]]:
    """(first pixel, last + 1) of every window along one axis."""
    return [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def _means(size: int, out: int) -> list[list[float]]:
    """The matrix (out, size) that takes the mean of every window along one axis."""
    windows = (range(*window) for window in _windows(size, out))
    return [[(pixel in window) / len(window) for pixel in range(size)] for window in windows]
