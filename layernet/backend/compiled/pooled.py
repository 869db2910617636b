"""Direct convolution and the max pool behind it, by images, which stay in the cache from the one to the other.

What the convolution makes of an image is read by the pool at once, and forgotten; its gradient is made again when the
filters' gradient needs it. So the largest arrays of many a net, those before its first pool, are never in memory.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.compiled.arrays import gradient
from layernet.backend.compiled.convolution import CompiledConvOps
from layernet.backend.compiled.direct import bordered, convolve_image
from layernet.backend.compiled.direct_gradient import add_by_taps, add_parts_by_taps, by_taps, panels_width
from layernet.backend.compiled.geometry import geometry
from layernet.backend.compiled.lanes import LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split, threads, threads_for
from layernet.backend.compiled.pack import transpose
from layernet.backend.compiled.pool import MOST_TAPS, maximum_gradient, maximum_gradient_row, maximum_row
from layernet.backend.compiled.product import offsets, pitch_of
from layernet.backend.compiled.scratch import PARTS, SLABS
from layernet.backend.compiled.vectors import load_first, load_int, splat, store, where_byte
from layernet.backend.window import Window

MOST_BYTES = 2 << 20
"""What a convolution may make of one image: more would not stay in the cache."""


@Kernel
def _convolve_and_pool(
    task, tasks, x, b, bias, images, height, width, ins, top, left, padded_height, padded_width, a_rows, c_rows,
    inner_height, inner_width, outer, inner, b_inner, outs, out_height, out_width, down, right, kernel_height,
    kernel_width, row_pixel, row_first, row_end, column_pixel, column_first, column_end, y, winners, pitch, relu,
    padded_size, slab, slab_size,
):  # fmt: skip
    """y and the winners, for a share of the images."""
    padded = slab + task * slab_size
    convolved = padded + padded_size
    first, last = split(images, task, tasks)
    for n in range(first, last):
        convolve_image(
            x + n * height * width * ins * 4, b, convolved, bias, 0, height, width, ins, top, left, padded,
            padded_height, padded_width, a_rows, c_rows, 0, inner_height * inner_width, outer, inner, b_inner, outs,
        )  # fmt: skip
        for row in range(out_height):
            at = (n * out_height + row) * out_width
            maximum_row(
                convolved + load_int(row_pixel + row * 8) * inner_width * outs * 4, load_int(row_first + row * 8),
                load_int(row_end + row * 8), inner_width, outs, out_width, down, right, kernel_height, kernel_width,
                column_pixel, column_first, column_end, y + at * outs * 4, winners + at * pitch, pitch, relu,
            )  # fmt: skip


@Kernel
def _gradients(
    task, tasks, x, dy, winners, pitch, dw, dw_size, sums, images, height, width, ins, inner_height, inner_width, outs,
    out_height, out_width, top, left, padded_height, padded_width, down, right, taps, a_rows, c_rows, kernel_width,
    row_first, row_place, row_tap, column_first, column_place, column_tap, padded_size, slab, slab_size,
):  # fmt: skip
    """Per task, from a share of the images: dw by taps, and the sums of the gradient over all places."""
    padded = slab + task * slab_size
    inside = padded + padded_size
    target, own = dw + task * dw_size, sums + task * pitch * 4
    zero = splat(np.float32(0))
    for c in range(0, pitch, LANES):
        store(own + c * 4, zero)
    first, last = split(images, task, tasks)
    if first == last:
        for c in range(0, dw_size, LANES * 4):
            store(target + c, zero)
    for n in range(first, last):
        bordered(x + n * height * width * ins * 4, height, width, ins, top, left, padded, padded_height, padded_width)
        at = n * out_height * out_width
        for row in range(inner_height):
            maximum_gradient_row(
                dy + at * outs * 4, winners + at * pitch, pitch, load_int(row_first + row * 8),
                load_int(row_first + row * 8 + 8), inner_width, outs, out_width, kernel_width, row_place, row_tap,
                column_first, column_place, column_tap, inside + row * inner_width * outs * 4,
            )  # fmt: skip
        add_by_taps(
            padded, inside, target, 0 if n == first else -1, ins, padded_width, inner_height, inner_width, outs, down,
            right, taps, a_rows, c_rows,
        )  # fmt: skip
        for c in range(0, outs, LANES):  # a place's gradient goes to its winner, and nowhere where there is none
            total = zero
            for place in range(at, at + out_height * out_width):
                value = load_first(dy + (place * outs + c) * 4, outs - c)
                total = total + (value - where_byte(winners + place * pitch + c, 255, value))
            store(own + c * 4, load_first(own + c * 4, LANES) + total)


def convolve(
    x: Array, weight: Array, bias: Array | None, window: Window, pool: Window, relu: bool
) -> tuple[Array, Array]:
    """(y, winners) as `pool.maximum` gives them of the convolution."""
    n, height, width, ins = x.shape
    (kh, kw), (down, right) = window.kernel, window.stride
    inner, outs = window.out_size((height, width)), len(weight)
    rows, columns, _, _ = geometry(pool, inner)
    y = np.empty((n, *pool.out_size(inner), outs), dtype=np.float32)
    winners = np.empty((*y.shape[:3], vectors_of(outs) * LANES), dtype=np.uint8)
    pitch = pitch_of(outs)
    b = transpose(weight.reshape(outs, -1), pitch)
    padded, padded_size, slab = _room(x.shape, window, outs)
    _convolve_and_pool.launch(
        x=x, b=b, bias=bias, images=n, height=height, width=width, ins=ins, top=window.padding[0][0],
        left=window.padding[1][0], padded_height=padded[0], padded_width=padded[1],
        a_rows=offsets(inner[0], down * padded[1] * ins * 4, inner[1], right * ins * 4),
        c_rows=offsets(inner[0] * inner[1], outs * 4), inner_height=inner[0], inner_width=inner[1], outer=kh,
        inner=kw * ins, b_inner=pitch * 4, outs=outs, out_height=y.shape[1], out_width=y.shape[2],
        down=pool.dilation[0], right=pool.dilation[1], kernel_height=pool.kernel[0], kernel_width=pool.kernel[1],
        row_pixel=rows.pixel, row_first=rows.first, row_end=rows.end, column_pixel=columns.pixel,
        column_first=columns.first, column_end=columns.end, y=y, winners=winners, pitch=winners.shape[3],
        relu=int(relu), padded_size=padded_size, slab=SLABS.room(threads() * slab), slab_size=slab,
        tasks=threads_for(n * inner[0] * inner[1] * weight.size // 16),
    )  # fmt: skip
    return y, winners


def filter_gradient(x: Array, dy: Array, winners: Array, window: Window, pool: Window, dw: Array) -> Array:
    """dw by taps, from the pool's dy; the gradient of the bias."""
    n, height, width, ins = x.shape
    (kh, kw), (down, right) = window.kernel, window.stride
    inner, outs = window.out_size((height, width)), len(dw)
    _, _, rows, columns = geometry(pool, inner)
    padded, padded_size, slab = _room(x.shape, window, outs)
    taps, pitch = kh * kw * ins, panels_width(outs)
    parts = PARTS.room(threads() * taps * pitch * 4)
    sums = np.empty((threads(), winners.shape[3]), dtype=np.float32)
    _gradients.launch(
        x=x, dy=dy, winners=winners, pitch=winners.shape[3], dw=parts, dw_size=taps * pitch * 4, sums=sums, images=n,
        height=height, width=width, ins=ins, inner_height=inner[0], inner_width=inner[1], outs=outs,
        out_height=dy.shape[1], out_width=dy.shape[2], top=window.padding[0][0], left=window.padding[1][0],
        padded_height=padded[0], padded_width=padded[1], down=down, right=right, taps=taps,
        a_rows=offsets(kh, padded[1] * ins * 4, kw * ins, 4), c_rows=offsets(taps, pitch * 4),
        kernel_width=pool.kernel[1], row_first=rows.first, row_place=rows.place, row_tap=rows.tap,
        column_first=columns.first, column_place=columns.place, column_tap=columns.tap, padded_size=padded_size,
        slab=SLABS.room(threads() * slab), slab_size=slab,
    )  # fmt: skip
    add_parts_by_taps(parts, dw)
    return sums.sum(axis=0, dtype=np.float64)[:outs].astype(np.float32)


def _room(shape: Shape, window: Window, outs: int) -> tuple[tuple[int, int], int, int]:
    """The size of a bordered image, the bytes it takes, and these with what the convolution makes of it."""
    _, height, width, ins = shape
    (top, bottom), (left, right) = window.padding
    padded = height + top + bottom, width + left + right
    padded_size = _whole(math.prod(padded) * ins)
    return padded, padded_size, padded_size + _whole(math.prod(window.out_size((height, width))) * outs)


def _whole(numbers: int) -> int:
    """Bytes for so many and for what vectors and tiles read behind them, in cache lines."""
    return -(-numbers * 4 // 64) * 64 + 512


class _Pooled(NamedTuple):
    x: Array
    weight: Array
    window: Window
    winners: Array
    pool: Window


class CompiledPooledConvOps(CompiledConvOps):
    def conv2d_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int, pool: Window, relu: bool
    ) -> tuple[Array, Any]:
        if not (self.goes_directly(x, weight, bias, window, groups) and _fits(len(weight), x.shape, window, pool)):
            return super().conv2d_max_pool2d(x, weight, bias, window, groups, pool, relu)
        bias = None if bias is None else np.ascontiguousarray(bias, dtype=np.float32)
        y, winners = convolve(x, weight, bias, window, pool, relu)
        return y, _Pooled(x, weight, window, winners, pool)

    def conv2d_max_pool2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        if not isinstance(res, _Pooled):
            return super().conv2d_max_pool2d_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        x, weight, window, winners, pool = res
        dy = gradient(dy, (*winners.shape[:3], len(weight)))
        if need_dx or not need_dw or not by_taps(weight[0, 0].size, weight[0].size, len(weight)):
            inner = (len(x), *window.out_size(x.shape[1:3]), len(weight))
            dz = maximum_gradient(dy, winners, inner, pool)
            return self.conv2d_backward(
                dz, (x, weight, window, 1), need_dx=need_dx, need_dw=need_dw, need_db=need_db
            )  # fmt: skip
        dw = np.empty(weight.shape, dtype=np.float32)
        db = filter_gradient(x, dy, winners, window, pool, dw)
        return None, dw, db if need_db else None


def _fits(outs: int, shape: Shape, window: Window, pool: Window) -> bool:
    """Whether the pool's taps can be numbered, and what the convolution makes of an image stays in the cache."""
    taps, places = math.prod(pool.kernel), math.prod(window.out_size((shape[1], shape[2])))
    return taps <= MOST_TAPS and places * outs * 4 <= MOST_BYTES
