"""A batch of images cut into strips that fit into a cache: some images together, or some rows of a large one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from layernet.backend import Array
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
    most = min(budget // max(1, row_bytes), -(-count * rows // shares))
    images, each = (max(1, most // rows), rows) if most >= rows else (1, max(1, most))
    return [
        Strip(slice(image, min(image + images, count)), slice(row, min(row + each, rows)))
        for image in range(0, count, images)
        for row in range(0, rows, each)
    ]


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


def squares(image: Array, side: Pair, step: Pair, apart: Pair, places: Pair) -> Array:
    """A view (N, rows of places, columns of places, *side, C): the squares at `places`, `step` pixels from each other.

    The pixels of a square lie `apart` pixels from each other.
    """
    n, row, column, channel = image.strides
    return np.lib.stride_tricks.as_strided(
        image,
        (len(image), *places, *side, image.shape[3]),
        (n, row * step[0], column * step[1], row * apart[0], column * apart[1], channel),
        writeable=False,
    )
