"""Copies of what a window sees at each of its places: for small images, where one product for all pays for them."""

from __future__ import annotations

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split
from layernet.backend.compiled.vectors import load_first, splat, store_first
from layernet.backend.window import Window

SMALL = 40
"""Images of fewer places than this have their windows copied: one product for all images reads the weights once."""


def is_small(window: Window, places: int) -> bool:
    return places < SMALL and window != Window((1, 1))


@Kernel
def _to_columns(
    task, tasks, x, images, height, width, ins, out_height, out_width, kh, kw, down, right, top, left, columns,
):  # fmt: skip
    """Per place of the window a row (kh, kw, in) of what it sees, zeros outside the image."""
    zero = splat(np.float32(0))
    first, last = split(images * out_height, task, tasks)
    for line in range(first, last):
        n, oh = divmod(line, out_height)
        for ow in range(out_width):
            target = columns + (line * out_width + ow) * kh * kw * ins * 4
            for i in range(kh):
                h = oh * down - top + i
                for j in range(kw):
                    w = ow * right - left + j
                    to = target + (i * kw + j) * ins * 4
                    source = x + ((n * height + h) * width + w) * ins * 4
                    inside = 0 <= h < height and 0 <= w < width
                    for c in range(0, ins, LANES):
                        value = load_first(source + c * 4, ins - c) if inside else zero
                        store_first(to + c * 4, value, ins - c)


def columns_of(x: Array, window: Window, size: tuple[int, int]) -> Array:
    """(N places, kh kw in): what the window sees at each of its places."""
    n, height, width, ins = x.shape
    (kh, kw), (top, left) = window.kernel, (window.padding[0][0], window.padding[1][0])
    columns = np.empty((n * size[0] * size[1], kh * kw * ins), dtype=np.float32)
    _to_columns.launch(
        x=x, images=n, height=height, width=width, ins=ins, out_height=size[0], out_width=size[1], kh=kh, kw=kw,
        down=window.stride[0], right=window.stride[1], top=top, left=left, columns=columns,
    )  # fmt: skip
    return columns


@Kernel
def _from_columns(
    task, tasks, dx, images, height, width, ins, out_height, out_width, kh, kw, down, right, top, left, columns,
):  # fmt: skip
    """Every pixel sums what the windows over it hold for it."""
    first, last = split(images * height, task, tasks)
    for line in range(first, last):
        n, h = divmod(line, height)
        for w in range(width):
            for c in range(0, ins, LANES):
                total = splat(np.float32(0))
                for i in range(kh):
                    oh = h + top - i
                    if oh % down == 0 and 0 <= oh // down < out_height:
                        for j in range(kw):
                            ow = w + left - j
                            if ow % right == 0 and 0 <= ow // right < out_width:
                                place = (n * out_height + oh // down) * out_width + ow // right
                                source = columns + ((place * kh + i) * kw + j) * ins * 4
                                total = total + load_first(source + c * 4, ins - c)
                store_first(dx + ((line * width + w) * ins + c) * 4, total, ins - c)


def add_columns(columns: Array, window: Window, size: tuple[int, int], dx: Array) -> None:
    """The transpose of `columns_of`."""
    n, height, width, ins = dx.shape
    (kh, kw), (top, left) = window.kernel, (window.padding[0][0], window.padding[1][0])
    _from_columns.launch(
        dx=dx, images=n, height=height, width=width, ins=ins, out_height=size[0], out_width=size[1], kh=kh, kw=kw,
        down=window.stride[0], right=window.stride[1], top=top, left=left, columns=columns,
    )  # fmt: skip
