"""A batch of images cut into strips that fit into a cache: some images together, or some rows of a large one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from layernet.backend import Array
from layernet.backend.numpy_threads import slices
from layernet.backend.window import Pair


class Strip(NamedTuple):
    """Rows of what slides over the images (places of a window, or tiles), in some of them."""

    images: slice
    rows: slice

    @property
    def shape(self) -> Pair:
        """(images, rows)"""
        return self.images.stop - self.images.start, self.rows.stop - self.rows.start


def strips(count: int, rows: int, row_bytes: int, budget: int, shares: int = 1) -> list[Strip]:
    """All `rows` of `count` images in strips of at most `budget` bytes, or of one row; at least `shares` of them."""
    most = budget // max(1, row_bytes)
    if most >= rows and count >= shares:
        return [Strip(images, slice(0, rows)) for images in slices(count, most // rows, shares)]
    parts = slices(rows, most, -(-shares // max(1, count)))
    return [Strip(slice(image, image + 1), part) for image in range(count) for part in parts]


class Canvas:
    """Room for a strip of images with zeros around them. What is painted stays until the next is."""

    def __init__(self, images: int, height: int, width: int, like: Array) -> None:
        self.pixels = np.zeros((images, height, width, like.shape[3]), dtype=like.dtype)

    def paint(self, x: Array, images: slice, top: int, left: int, height: int) -> Array:
        """Of these images `height` rows from row `top` on, which may lie outside, and all columns from `left` on."""
        part = x[images, max(top, 0) : max(top + height, 0)]
        canvas = self.pixels[: len(part), :height]
        first = min(max(-top, 0), height)
        last = first + part.shape[1]
        canvas[:, :first] = 0
        canvas[:, last:] = 0
        canvas[:, first:last, left : left + part.shape[2]] = part
        return canvas


def copy_squares(image: Array, side: Pair, step: Pair, apart: Pair, places: Pair, out: Array) -> None:
    """The squares at `places`, `step` pixels from each other, into `out` (N * places, side[0] * side[1] * C).

    The pixels of a square lie `apart` pixels from each other. Where the rows of a square lie side by side in the image
    (N, H, W, C), they are copied as `items`.
    """
    n, row, column, channel = image.strides
    strides = (n, row * step[0], column * step[1], row * apart[0])
    shape = (len(image), *places, side[0])
    length = side[1] * image.shape[3]
    if apart[1] == 1 and channel == image.itemsize and column == image.shape[3] * channel:
        runs = np.lib.stride_tricks.as_strided(image, (*shape, length), (*strides, channel), writeable=False)
        items(out.reshape(*shape, length))[...] = items(runs)
        return
    view = np.lib.stride_tricks.as_strided(
        image, (*shape, side[1], image.shape[3]), (*strides, column * apart[1], channel), writeable=False
    )
    out.reshape(view.shape)[...] = view


def items(a: Array) -> Array:
    """The last axis of an array (..., C), its elements side by side, as one item: numpy copies those twice as fast."""
    return a.view(np.dtype((np.void, a.shape[-1] * a.itemsize)))[..., 0]
