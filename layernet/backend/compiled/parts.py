"""What makes plain convolutions of dilated and grouped ones: copies of every d-th pixel, of a group's channels.

With dilation d and stride s, place h sees the pixels h s - p + d j. Those places that are r modulo d / gcd(d, s) see
pixels of one remainder modulo d only; every d-th pixel makes a small image, on which they are a plain convolution with
stride s / gcd(d, s). So the small images are as a larger batch, and all that is fast for plain convolution serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, address, split
from layernet.backend.compiled.vectors import load_first, load_int, splat, store_first
from layernet.backend.window import Pair, Window


@Kernel
def _rearrange(
    task, tasks, source, source_image, source_pixel, target, target_image, target_pixel, images, channels, from_rows,
    to_rows, rows, from_columns, to_columns, columns,
):  # fmt: skip
    """Pixels from one place to another by tables of their rows' and columns' numbers; zeros where it is below 0."""
    zero = splat(np.float32(0))
    first, last = split(images * rows, task, tasks)
    for line in range(first, last):
        n, row = divmod(line, rows)
        from_row, to_row = load_int(from_rows + row * 8), n * target_image + load_int(to_rows + row * 8)
        for column in range(columns):
            from_column = load_int(from_columns + column * 8)
            to = target + (to_row + load_int(to_columns + column * 8)) * target_pixel
            if from_row >= 0 and from_column >= 0:
                at = source + (n * source_image + from_row + from_column) * source_pixel
                for c in range(0, channels, LANES):
                    store_first(to + c * 4, load_first(at + c * 4, channels - c), channels - c)
            else:
                for c in range(0, channels, LANES):
                    store_first(to + c * 4, zero, channels - c)


@dataclass(frozen=True)
class Layout:
    """How images of `size` lie in small ones: `count` of `small` pixels each. Tables of pixel numbers, -1 for none."""

    size: Pair
    count: int
    small: Pair
    apart: tuple[Array, Array, Array, Array]  # rows in the image, rows in the small ones, columns likewise
    together: tuple[Array, Array, Array, Array]  # the other way round

    def take_apart(self, images: Array, first: int, channels: int) -> Array:
        """(N count, *small, channels) of images (N, *size, C), of its channels from `first` on."""
        parts = np.empty((len(images) * self.count, *self.small, channels), dtype=np.float32)
        pixels, pixel = self.size[0] * self.size[1], images.shape[3] * 4
        from_rows, to_rows, from_columns, to_columns = self.apart
        _rearrange.launch(
            source=address(images) + first * 4, source_image=pixels, source_pixel=pixel, target=parts,
            target_image=self._pixels, target_pixel=channels * 4, images=len(images), channels=channels,
            from_rows=from_rows, to_rows=to_rows, rows=len(to_rows), from_columns=from_columns, to_columns=to_columns,
            columns=len(to_columns),
        )  # fmt: skip
        return parts

    def put_together(self, parts: Array, images: Array, first: int) -> None:
        """The other way, into the same channels of `images`; zeros where nothing was taken."""
        channels = parts.shape[3]
        pixels, pixel = self.size[0] * self.size[1], images.shape[3] * 4
        from_rows, to_rows, from_columns, to_columns = self.together
        _rearrange.launch(
            source=parts, source_image=self._pixels, source_pixel=channels * 4, target=address(images) + first * 4,
            target_image=pixels, target_pixel=pixel, images=len(images), channels=channels, from_rows=from_rows,
            to_rows=to_rows, rows=len(to_rows), from_columns=from_columns, to_columns=to_columns,
            columns=len(to_columns),
        )  # fmt: skip

    @property
    def _pixels(self) -> int:
        return self.count * self.small[0] * self.small[1]


class Plain(NamedTuple):
    """The plain convolution that a dilated one is, and where its pixels and places lie in the dilated one's."""

    window: Window
    pixels: Layout
    places: Layout


@lru_cache(maxsize=256)
def plain(window: Window, size: Pair) -> Plain:
    """For a window that fits into images of this size."""
    axes = [_axis(window, axis, size[axis]) for axis in (0, 1)]
    (rows, columns), out = axes, window.out_size(size)
    return Plain(
        Window(window.kernel, (rows.stride, columns.stride), (rows.padding, columns.padding)),
        _layout(size, rows.pixels, columns.pixels),
        _layout(out, rows.places, columns.places),
    )


class _Axis(NamedTuple):
    stride: int
    padding: Pair
    pixels: Array  # (small images, pixels): the pixel's number, -1 where there is none
    places: Array


def _axis(window: Window, axis: int, size: int) -> _Axis:
    kernel, stride, (before, _) = window.kernel[axis], window.stride[axis], window.padding[axis]
    dilation = window.dilation[axis] if kernel > 1 else 1
    places = window.out_size((size, size))[axis]
    common = gcd(stride, dilation)
    step = dilation // common
    count = min(step, places)
    largest = -(-places // step)
    starts = np.arange(count)[:, None] * stride - before
    seen = (largest - 1) * (stride // common) + kernel
    # zeros before all of the small images are left to the plain convolution, and so are those behind
    zeros = min(max(0, -(int(starts.max()) // dilation)), seen - 1)
    starts = starts + zeros * dilation
    held = max(1, min(seen - zeros, -(-(size - int(starts.min())) // dilation)))
    pixels = starts + np.arange(held) * dilation
    out = np.arange(count)[:, None] + np.arange(largest) * step
    return _Axis(
        stride // common,
        (zeros, seen - zeros - held),
        np.where((pixels >= 0) & (pixels < size), pixels, -1),
        np.where(out < places, out, -1),
    )


def _layout(size: Pair, rows: Array, columns: Array) -> Layout:
    """Of the numbers of the rows and columns that each small image has."""
    height, width = rows.shape[1], columns.shape[1]
    # pixel (t, u) of small image (r, c) is number ((r columns + c) height + t) width + u: a row's part and a column's
    row_at = np.arange(len(rows))[:, None] * len(columns) * height * width + np.arange(height) * width
    column_at = np.arange(len(columns))[:, None] * height * width + np.arange(width)
    tables = [(rows, row_at, size[0], size[1]), (columns, column_at, size[1], 1)]
    apart, together = [], []
    for numbers, at, count, scale in tables:
        apart += [np.where(numbers < 0, -1, numbers * scale), at]
        back = np.full(count, -1)
        back[numbers[numbers >= 0]] = at[numbers >= 0]
        together += [back, np.arange(count) * scale]
    return Layout(size, len(rows) * len(columns), (height, width), _tables(apart), _tables(together))


def _tables(numbers: list[Array]) -> tuple[Array, Array, Array, Array]:
    a, b, c, d = (np.ascontiguousarray(n, dtype=np.int64).ravel() for n in numbers)
    return a, b, c, d
