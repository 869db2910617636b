"""Layers that move numbers to other axes, or take some of them.

Axes are those of one example: 0 is the first after N, -1 is channels.
"""

from __future__ import annotations

from typing import Any

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.errors import ShapeError
from layernet.layers.spatial import image_size


class Permute(Layer):
    """The axes of each example in another order: axis i of the output is axis dims[i] of the input.

    `dims` names every axis of an example once, without N; -1 is the last (channels). Images channels first, as in
    torch, come from dims [2, 0, 1]. Shape: (N, *shape) -> (N, *(shape[d] for d in dims)). Raises ShapeError when the
    input has another number of axes.
    """

    def __init__(self, dims: list[int]) -> None:
        positive = sorted(d % len(dims) for d in dims)
        if positive != list(range(len(dims))) or not all(-len(dims) <= d < len(dims) for d in dims):
            raise ValueError(f"dims must name each axis from 0 to {max(len(dims) - 1, 0)} once, got {list(dims)}")
        self.dims = [d % len(dims) for d in dims]

    def build(self, in_shape: Shape) -> Shape:
        if len(in_shape) != len(self.dims):
            raise ShapeError(
                f"Permute of {len(self.dims)} axes cannot take an input of shape {in_shape}",
                f"dims must name its {len(in_shape)} axes, without N",
            )
        self.there = (0, *(d + 1 for d in self.dims))
        self.back = tuple(self.there.index(axis) for axis in range(len(self.there)))
        return tuple(in_shape[d] for d in self.dims)

    def forward(self, x: Array, ctx: Context) -> Array:
        return x.transpose(self.there)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy.transpose(self.back)


class Squeeze(Layer):
    """Without the axis `dim` of size 1 (-1 is the last), or by default without any axis of size 1.

    Shape: (N, ..., 1, ...) -> (N, ..., ...). Raises ShapeError when the axis has another size; torch leaves it then.
    """

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def build(self, in_shape: Shape) -> Shape:
        if self.dim is None:
            return tuple(n for n in in_shape if n != 1)
        axis = axis_of("Squeeze", self.dim, len(in_shape), in_shape)
        if in_shape[axis] != 1:
            raise ShapeError(
                f"Squeeze of axis {self.dim} of an input of shape {in_shape}: its size is {in_shape[axis]}, not 1",
                "axes are counted without N: 0 is the first of an example, -1 the last",
            )
        return in_shape[:axis] + in_shape[axis + 1 :]

    def forward(self, x: Array, ctx: Context) -> Array:
        return x.reshape(len(x), *self.out_shape)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy.reshape(len(dy), *self.in_shape)


class Unsqueeze(Layer):
    """With a new axis of size 1 at `dim`: 0 puts it first in the example, -1 last.

    Axes are those of the output, without N. Shape: (N, ...) -> (N, ..., 1, ...). Raises ShapeError when the output has
    no such axis.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def build(self, in_shape: Shape) -> Shape:
        axis = axis_of("Unsqueeze", self.dim, len(in_shape) + 1, in_shape)
        return (*in_shape[:axis], 1, *in_shape[axis:])

    def forward(self, x: Array, ctx: Context) -> Array:
        return x.reshape(len(x), *self.out_shape)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy.reshape(len(dy), *self.in_shape)


class Slice(Layer):
    """x[start:stop:step] along one axis: by default channels.

    `start`, `stop` and `step` are as Python's: from the end, and backwards, where negative; `dim` counts the axes of an
    example (0 the first, -1 the last). `step: -1, dim: 1` mirrors images left to right: cuda-convnet2's `href`.
    Shape: (N, ..., n, ...) -> (N, ..., m, ...). Raises ShapeError when nothing is left, or when there is no such axis.
    """

    def __init__(self, start: int | None = None, stop: int | None = None, step: int = 1, dim: int = -1) -> None:
        if step == 0:
            raise ValueError("step must not be 0")
        self.part = slice(start, stop, step)
        self.dim = dim

    def build(self, in_shape: Shape) -> Shape:
        axis = axis_of("Slice", self.dim, len(in_shape), in_shape)
        left = len(range(in_shape[axis])[self.part])
        if not left:
            raise ShapeError(
                f"Slice from {self.part.start} to {self.part.stop} leaves nothing of the {in_shape[axis]} on axis "
                f"{self.dim} of an input of shape {in_shape}",
                "move start or stop",
            )
        self.index = (slice(None),) * (axis + 1) + (self.part,)
        return (*in_shape[:axis], left, *in_shape[axis + 1 :])

    def forward(self, x: Array, ctx: Context) -> Array:
        return x[self.index]

    def backward(self, dy: Array, ctx: Context) -> Array:
        return put_back(dy, self.index, self.in_shape, ctx)


class PixelShuffle(Layer):
    """Blocks of r x r pixels from r^2 channels each (Shi et al. 2016, arXiv:1609.05158).

    y[h r + i, w r + j, c] = x[h, w, c r^2 + i r + j], r being `upscale_factor`: torch's order of channels.
    Shape: (N, H, W, C r^2) -> (N, H r, W r, C). Raises ShapeError when the channels do not divide.
    """

    def __init__(self, upscale_factor: int) -> None:
        self.factor = _factor("upscale_factor", upscale_factor)

    def build(self, in_shape: Shape) -> Shape:
        height, width = image_size("PixelShuffle", in_shape)
        r, channels = self.factor, in_shape[2]
        if channels % r**2:
            raise ShapeError(
                f"PixelShuffle by {r} needs a multiple of {r**2} channels, got {channels}",
                f"give the layer before it {r**2} times the channels that are to come out",
            )
        return height * r, width * r, channels // r**2

    def forward(self, x: Array, ctx: Context) -> Array:
        return _channels_to_pixels(x, self.factor)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return _pixels_to_channels(dy, self.factor, ctx)


class PixelUnshuffle(Layer):
    """The inverse of PixelShuffle: each block of r x r pixels becomes r^2 channels; also called space to depth.

    y[h, w, c r^2 + i r + j] = x[h r + i, w r + j, c], r being `downscale_factor`.
    Shape: (N, H, W, C) -> (N, H / r, W / r, C r^2). Raises ShapeError when the image does not divide.
    """

    def __init__(self, downscale_factor: int) -> None:
        self.factor = _factor("downscale_factor", downscale_factor)

    def build(self, in_shape: Shape) -> Shape:
        height, width = image_size("PixelUnshuffle", in_shape)
        r = self.factor
        if height % r or width % r:
            raise ShapeError(
                f"PixelUnshuffle by {r} needs a height and width that are multiples of it, got {height} x {width}",
                "pad or crop the image",
            )
        return height // r, width // r, in_shape[2] * r**2

    def forward(self, x: Array, ctx: Context) -> Array:
        return _pixels_to_channels(x, self.factor, ctx)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return _channels_to_pixels(dy, self.factor)


def axis_of(kind: str, dim: int, axes: int, in_shape: Shape) -> int:
    """The axis of an example, counted from 0. Raises ShapeError when there is none."""
    if not -axes <= dim < axes:
        raise ShapeError(
            f"{kind}: there is no axis {dim} for an input of shape {in_shape}",
            f"axes are counted without N, from {-axes} to {axes - 1}" if axes else "the input has no axes besides N",
        )
    return dim % axes


def put_back(dy: Array, index: tuple[Any, ...], in_shape: Shape, ctx: Context) -> Array:
    """The gradient of x where y = x[index] took every element at most once: dy there, 0 elsewhere."""
    dx = ctx.xp.zeros((len(dy), *in_shape), dtype=dy.dtype)
    dx[index] = dy
    return dx


def _factor(name: str, factor: int) -> int:
    if factor < 1:
        raise ValueError(f"{name} must be at least 1, got {factor}")
    return factor


def _channels_to_pixels(x: Array, r: int) -> Array:
    n, height, width, channels = x.shape
    blocks = x.reshape(n, height, width, channels // r**2, r, r)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, height * r, width * r, channels // r**2)


def _pixels_to_channels(x: Array, r: int, ctx: Context) -> Array:
    n, height, width, channels = x.shape
    blocks = x.reshape(n, height // r, r, width // r, r, channels)
    y = ctx.xp.empty((n, height // r, width // r, channels, r, r), dtype=x.dtype)
    for i in range(r):  # a copy of all at once goes by runs of r numbers, which takes numpy five times as long
        for j in range(r):
            y[..., i, j] = blocks[:, :, i, :, j]
    return y.reshape(n, height // r, width // r, channels * r**2)
