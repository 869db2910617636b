"""Layers that add pixels around an image or take some away: padding, cropping, sampling."""

from __future__ import annotations

from typing import Any

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.errors import ShapeError
from layernet.layers.rearrange import put_back
from layernet.layers.spatial import Size2d, image_size, pair

Border = int | tuple[int, int, int, int]
"""One number of pixels for all sides, or (left, right, top, bottom): torch's order."""


class _Pad2d(Layer):
    """What the paddings share: `top`, `bottom`, `left`, `right`, and where the image stands in the output."""

    def __init__(self, padding: Border) -> None:
        sides = tuple(padding) if isinstance(padding, tuple | list) else (padding,) * 4
        if len(sides) != 4 or not all(isinstance(n, int) and n >= 0 for n in sides):
            raise ValueError(
                "padding must be a number of pixels, at least 0, or four of them [left, right, top, bottom], "
                f"got {padding!r}"
            )
        self.left, self.right, self.top, self.bottom = sides

    def build(self, in_shape: Shape) -> Shape:
        height, width = image_size(type(self).__name__, in_shape)
        self.image = (slice(None), slice(self.top, self.top + height), slice(self.left, self.left + width))
        return self.top + height + self.bottom, self.left + width + self.right, in_shape[2]

    def _enlarged(self, x: Array, ctx: Context) -> Array:
        """The image in its place, and around it what happens to stand in memory."""
        y = ctx.empty((len(x), *self.out_shape))
        y[self.image] = x
        return y

    def _sides(self) -> list[tuple[int, int, int, int]]:
        """(axis, first pixel of the image, first pixel behind it, size of the output): columns, then rows."""
        return [
            (2, self.left, self.left + self.in_shape[1], self.out_shape[1]),
            (1, self.top, self.top + self.in_shape[0], self.out_shape[0]),
        ]


class ZeroPad2d(_Pad2d):
    """The image with zeros around it.

    `padding`: pixels on every side, or [left, right, top, bottom] as in torch.
    Shape: (N, H, W, C) -> (N, H + top + bottom, W + left + right, C).
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y = ctx.xp.zeros((len(x), *self.out_shape), dtype=x.dtype)
        y[self.image] = x
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy[self.image]


class ReflectionPad2d(_Pad2d):
    """The image mirrored at its outermost pixels, which are not repeated: c b | a b c | b a.

    `padding`: pixels on every side, or [left, right, top, bottom] as in torch; less than the image has.
    Shape: (N, H, W, C) -> (N, H + top + bottom, W + left + right, C). Raises ShapeError for an image too small.
    """

    def build(self, in_shape: Shape) -> Shape:
        out_shape = super().build(in_shape)
        if max(self.top, self.bottom) >= in_shape[0] or max(self.left, self.right) >= in_shape[1]:
            raise ShapeError(
                f"an image of {in_shape[0]} x {in_shape[1]} has too few pixels to reflect a border of "
                f"[{self.left}, {self.right}, {self.top}, {self.bottom}]",
                "each padding must be smaller than the image",
            )
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y = self._enlarged(x, ctx)
        for axis, first, end, size in self._sides():
            y[_along(axis, 0, first)] = y[_along(axis, first + 1, 2 * first + 1)][_reversed(axis)]
            after = size - end
            y[_along(axis, end, size)] = y[_along(axis, end - 1 - after, end - 1)][_reversed(axis)]
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        dy = dy.copy()
        for axis, first, end, size in reversed(self._sides()):
            dy[_along(axis, first + 1, 2 * first + 1)] += dy[_along(axis, 0, first)][_reversed(axis)]
            after = size - end
            dy[_along(axis, end - 1 - after, end - 1)] += dy[_along(axis, end, size)][_reversed(axis)]
        return dy[self.image]


class ReplicationPad2d(_Pad2d):
    """The image with its outermost pixels repeated: a a | a b c | c c.

    `padding`: pixels on every side, or [left, right, top, bottom] as in torch.
    Shape: (N, H, W, C) -> (N, H + top + bottom, W + left + right, C).
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y = self._enlarged(x, ctx)
        for axis, first, end, size in self._sides():
            y[_along(axis, 0, first)] = y[_along(axis, first, first + 1)]
            y[_along(axis, end, size)] = y[_along(axis, end - 1, end)]
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        dy = dy.copy()
        for axis, first, end, size in reversed(self._sides()):
            dy[_along(axis, first, first + 1)] += dy[_along(axis, 0, first)].sum(axis=axis, keepdims=True)
            dy[_along(axis, end - 1, end)] += dy[_along(axis, end, size)].sum(axis=axis, keepdims=True)
        return dy[self.image]


class Crop(Layer):
    """A part of the image: `size` pixels from the pixel `start` on, by default from the middle.

    Both are a number or [rows, columns]; the middle begins at floor((H - h) / 2). cuda-convnet's `crop` is start
    [startY, startX]. Shape: (N, H, W, C) -> (N, h, w, C). Raises ShapeError when the part reaches beyond the image.
    """

    def __init__(self, size: Size2d, start: Size2d | None = None) -> None:
        self.size = pair("size", size)
        self.start = None if start is None else pair("start", start, minimum=0)

    def build(self, in_shape: Shape) -> Shape:
        height, width = image_size("Crop", in_shape)
        (rows, columns), (top, left) = (
            self.size,
            self.start or ((height - self.size[0]) // 2, (width - self.size[1]) // 2),
        )
        if top < 0 or left < 0 or top + rows > height or left + columns > width:
            raise ShapeError(
                f"a part of {rows} x {columns} pixels from {[max(top, 0), max(left, 0)]} on is not in an image of "
                f"{height} x {width}",
                "use a smaller size or an earlier start",
            )
        self.part = (slice(None), slice(top, top + rows), slice(left, left + columns))
        return rows, columns, in_shape[2]

    def forward(self, x: Array, ctx: Context) -> Array:
        return x[self.part]

    def backward(self, dy: Array, ctx: Context) -> Array:
        return put_back(dy, self.part, self.in_shape, ctx)


class Nailbed(Layer):
    """Every `stride`-th pixel, the samples centred in the image: cuda-convnet's `nailbed`.

    Along an axis of H pixels H' = ceil(H / stride) samples begin at floor((H - stride (H' - 1)) / 2). `stride` is a
    number or [rows, columns]. Shape: (N, H, W, C) -> (N, H', W', C). Slice samples from the first pixel on.
    """

    def __init__(self, stride: Size2d) -> None:
        self.stride = pair("stride", stride)

    def build(self, in_shape: Shape) -> Shape:
        size = image_size("Nailbed", in_shape)
        counts = [-(-n // step) for n, step in zip(size, self.stride, strict=True)]
        starts = [(n - step * (c - 1)) // 2 for n, step, c in zip(size, self.stride, counts, strict=True)]
        self.part = (slice(None), *(slice(start, None, step) for start, step in zip(starts, self.stride, strict=True)))
        return counts[0], counts[1], in_shape[2]

    def forward(self, x: Array, ctx: Context) -> Array:
        return x[self.part]

    def backward(self, dy: Array, ctx: Context) -> Array:
        return put_back(dy, self.part, self.in_shape, ctx)


def _along(axis: int, start: int, stop: int) -> tuple[Any, ...]:
    return (slice(None),) * axis + (slice(start, stop),)


def _reversed(axis: int) -> tuple[Any, ...]:
    return (slice(None),) * axis + (slice(None, None, -1),)
