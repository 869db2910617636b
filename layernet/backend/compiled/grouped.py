"""Convolution in groups of few channels: a vector holds output channels of several groups.

Each lane needs a channel of its own group, so what is loaded of a pixel is spread over the lanes first. The k-th input
channels of all lanes' groups lie at the same places from the first group's k-th on: one table of lanes does for all k.
Sums are over taps, which are here pairs of a place in the window and an input channel k: T = kh kw ins / groups.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit

from layernet.backend import Array, Shape
from layernet.backend.compiled.direct import bordered
from layernet.backend.compiled.direct_gradient import add_parts
from layernet.backend.compiled.lanes import BYTES, LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.scratch import PARTS, SLABS
from layernet.backend.compiled.vectors import load, load_first, load_int, maximum, splat, store, store_first
from layernet.backend.compiled.windows import spread_products
from layernet.backend.window import Pair, Window

FEW = 16
"""Groups of fewer channels come here: with as many, a plain convolution of each is faster."""

_one, _two, _four = spread_products(1), spread_products(2), spread_products(4)


@njit
def _spaced(image, height, width, channels, top, left, down, right, padded, padded_height, padded_width):
    """Copy an image into zeros, its pixels `down` and `right` apart."""
    zero = splat(np.float32(0))
    for at in range(0, padded_height * padded_width * channels * 4, BYTES):
        store(padded + at, zero)
    for i in range(height):
        for j in range(width):
            row, column = top + i * down, left + j * right
            if row < padded_height and column < padded_width:
                to = padded + (row * padded_width + column) * channels * 4
                for c in range(0, channels, LANES):
                    source = image + ((i * width + j) * channels + c) * 4
                    store_first(to + c * 4, load_first(source, channels - c), channels - c)


@Kernel
def _convolve(
    task, tasks, x, images, height, width, ins, top, left, apart_down, apart_right, padded_height, padded_width, start,
    down, right, taps, tap_at, weight, pitch, bias, relu, base, lanes, vectors, y, out_height, out_width, outs, slab,
    slab_size,
):  # fmt: skip
    """Per image a copy with borders; then four places at a time, those behind the last being the last."""
    padded = slab + task * slab_size
    first, last = split(images, task, tasks)
    zero = splat(np.float32(0))
    floor = zero if relu else splat(np.float32(-np.inf))
    step = right * ins * 4
    for n in range(first, last):
        image = x + n * height * width * ins * 4
        if apart_down == 1 and apart_right == 1:
            bordered(image, height, width, ins, top, left, padded, padded_height, padded_width)
        else:
            _spaced(
                image, height, width, ins, top, left, apart_down, apart_right, padded, padded_height, padded_width
            )  # fmt: skip
        for row in range(out_height):
            corner = padded + start + row * down * padded_width * ins * 4
            line = y + (n * out_height + row) * out_width * outs * 4
            for column in range(0, out_width, 4):
                p1, p2 = min(column + 1, out_width - 1), min(column + 2, out_width - 1)
                p3 = min(column + 3, out_width - 1)
                o0, o1, o2, o3 = column * step, p1 * step, p2 * step, p3 * step
                for v in range(0, outs, LANES):
                    left_over = outs - v
                    at, own = corner + load_int(base + v // LANES * 8), lanes + v * 4
                    a = load_first(bias + v * 4, left_over) if bias else zero
                    b, c, d = a, a, a
                    for t in range(taps):
                        seen, w = at + load_int(tap_at + t * 8), load(weight + (t * pitch + v) * 4)
                        if vectors == 1:
                            a, b, c, d = _one(seen, o0, o1, o2, o3, own, w, a, b, c, d)
                        elif vectors == 2:
                            a, b, c, d = _two(seen, o0, o1, o2, o3, own, w, a, b, c, d)
                        else:
                            a, b, c, d = _four(seen, o0, o1, o2, o3, own, w, a, b, c, d)
                    to = line + v * 4
                    store_first(to + column * outs * 4, maximum(a, floor), left_over)
                    store_first(to + p1 * outs * 4, maximum(b, floor), left_over)
                    store_first(to + p2 * outs * 4, maximum(c, floor), left_over)
                    store_first(to + p3 * outs * 4, maximum(d, floor), left_over)


@Kernel
def _filter_gradient(
    task, tasks, x, images, height, width, ins, top, left, padded_height, padded_width, down, right, taps, tap_at, base,
    lanes, vectors, dy, out_height, out_width, outs, sums, pitch, slab, slab_size,
):  # fmt: skip
    """Per task, by tap: the sum of dy times what is seen, over its images; four taps at a time."""
    padded = slab + task * slab_size
    own_sums = sums + task * taps * pitch * 4
    first, last = split(images, task, tasks)
    zero = splat(np.float32(0))
    for at in range(0, taps * pitch * 4, BYTES):
        store(own_sums + at, zero)
    for n in range(first, last):
        image = x + n * height * width * ins * 4
        bordered(image, height, width, ins, top, left, padded, padded_height, padded_width)
        for v in range(0, outs, LANES):
            left_over, own = outs - v, lanes + v * 4
            for t in range(0, taps, 4):
                o0, o1 = load_int(tap_at + t * 8), load_int(tap_at + min(t + 1, taps - 1) * 8)
                o2, o3 = load_int(tap_at + min(t + 2, taps - 1) * 8), load_int(tap_at + min(t + 3, taps - 1) * 8)
                a, b, c, d = zero, zero, zero, zero
                for row in range(out_height):
                    seen = padded + row * down * padded_width * ins * 4 + load_int(base + v // LANES * 8)
                    sent = dy + ((n * out_height + row) * out_width * outs + v) * 4
                    for _ in range(out_width):
                        g = load_first(sent, left_over)
                        if vectors == 1:
                            a, b, c, d = _one(seen, o0, o1, o2, o3, own, g, a, b, c, d)
                        elif vectors == 2:
                            a, b, c, d = _two(seen, o0, o1, o2, o3, own, g, a, b, c, d)
                        else:
                            a, b, c, d = _four(seen, o0, o1, o2, o3, own, g, a, b, c, d)
                        seen, sent = seen + right * ins * 4, sent + outs * 4
                to = own_sums + (t * pitch + v) * 4
                store(to, load(to) + a)
                if t + 1 < taps:
                    store(to + pitch * 4, load(to + pitch * 4) + b)
                if t + 2 < taps:
                    store(to + 2 * pitch * 4, load(to + 2 * pitch * 4) + c)
                if t + 3 < taps:
                    store(to + 3 * pitch * 4, load(to + 3 * pitch * 4) + d)


class _Lanes(NamedTuple):
    """Per vector of output channels, where in a pixel to read (bytes) and what of it each lane takes."""

    base: Array
    lanes: Array
    vectors: int


@lru_cache(maxsize=256)
def _lanes(groups: int, ins: int, outs: int) -> _Lanes | None:
    """For groups of so many input and output channels; None where a vector would need too many of them."""
    count = vectors_of(groups * outs)
    group = np.minimum(np.arange(count * LANES), groups * outs - 1).reshape(count, LANES) // outs
    numbers = (group - group[:, :1]) * ins
    vectors = int(numbers.max()) // LANES + 1
    if vectors > 4:
        return None
    base = np.ascontiguousarray(group[:, 0] * ins * 4, dtype=np.int64)
    return _Lanes(base, np.ascontiguousarray(numbers, dtype=np.int32), 4 if vectors == 3 else vectors)


def takes_groups(groups: int, ins: int, outs: int) -> bool:
    """Whether groups of so many input and output channels are few enough for a vector to hold several."""
    return (
        groups > 1 and ins < FEW and outs < FEW and None not in (_lanes(groups, ins, outs), _lanes(groups, outs, ins))
    )


def convolve(x: Array, weight: Array, bias: Array | None, window: Window, groups: int, y: Array, relu: bool) -> None:
    """y (N, H', W', out) = conv(x (N, H, W, in), weight (out, kh, kw, in / groups))."""
    (top, _), (left, _) = window.padding
    padded = tuple(x.shape[1 + axis] + sum(window.padding[axis]) for axis in (0, 1))
    by_tap = weight.reshape(len(weight), -1)
    _run(x, by_tap, bias, window, groups, y, relu, (top, left), (1, 1), padded, (0, 0), window.stride)


def input_gradient(dy: Array, weight: Array, window: Window, groups: int, dx: Array) -> None:
    """dx (N, H, W, in) from dy (N, H', W', out): its pixels as far apart as the stride, under the filters turned."""
    size = dx.shape[1:3]
    reach = [window.extent[axis] - 1 - window.padding[axis][0] for axis in (0, 1)]
    start = (max(0, -reach[0]), max(0, -reach[1]))
    padded = tuple(start[axis] + size[axis] + window.extent[axis] - 1 for axis in (0, 1))
    outs, ins = len(weight) // groups, weight.shape[3]
    turned = weight.reshape(groups, outs, -1, ins)[:, :, ::-1].transpose(0, 3, 2, 1).reshape(groups * ins, -1)
    before = (max(0, reach[0]), max(0, reach[1]))
    _run(dy, turned, None, window, groups, dx, False, before, window.stride, padded, start, (1, 1))


def _run(
    x: Array, filters: Array, bias: Array | None, window: Window, groups: int, y: Array, relu: bool,
    before: Pair, apart: Pair, padded: Shape, start: Pair, stride: Pair,
) -> None:  # fmt: skip
    """y = conv(x, filters (out, T)), x's pixels `apart` in `padded` zeros, `before` of them before it."""
    n, height, width, ins = x.shape
    outs = len(filters)
    held = _lanes(groups, ins // groups, outs // groups)
    assert held is not None
    pitch = vectors_of(outs) * LANES
    weight = np.zeros((filters.shape[1], pitch), dtype=np.float32)
    weight[:, :outs] = filters.T
    slab = _room(padded, ins)
    _convolve.launch(
        x=x, images=n, height=height, width=width, ins=ins, top=before[0], left=before[1], apart_down=apart[0],
        apart_right=apart[1], padded_height=padded[0], padded_width=padded[1],
        start=(start[0] * padded[1] + start[1]) * ins * 4, down=stride[0], right=stride[1], taps=len(weight),
        tap_at=_taps(window, padded[1], ins, groups), weight=weight, pitch=pitch, bias=bias, relu=int(relu),
        base=held.base, lanes=held.lanes, vectors=held.vectors, y=y, out_height=y.shape[1], out_width=y.shape[2],
        outs=outs, slab=SLABS.room(threads() * slab), slab_size=slab,
    )  # fmt: skip


def filter_gradient(x: Array, dy: Array, window: Window, groups: int, dw: Array) -> None:
    """dw (out, kh, kw, in / groups)."""
    n, height, width, ins = x.shape
    out, outs = dy.shape[1:3], dy.shape[3]
    held = _lanes(groups, ins // groups, outs // groups)
    assert held is not None
    padded = tuple(x.shape[1 + axis] + sum(window.padding[axis]) for axis in (0, 1))
    taps, pitch = dw[0].size, vectors_of(outs) * LANES
    slab = _room(padded, ins)
    sums = PARTS.room(threads() * taps * pitch * 4)
    _filter_gradient.launch(
        x=x, images=n, height=height, width=width, ins=ins, top=window.padding[0][0], left=window.padding[1][0],
        padded_height=padded[0], padded_width=padded[1], down=window.stride[0], right=window.stride[1], taps=taps,
        tap_at=_taps(window, padded[1], ins, groups), base=held.base, lanes=held.lanes, vectors=held.vectors, dy=dy,
        out_height=out[0], out_width=out[1], outs=outs, sums=sums, pitch=pitch,
        slab=SLABS.room(threads() * slab), slab_size=slab,
    )  # fmt: skip
    total = np.empty((taps, pitch), dtype=np.float32)
    add_parts.launch(parts=sums, part_size=taps * pitch * 4, count=threads(), target=total, size=total.size)
    dw.reshape(outs, taps)[...] = total[:, :outs].T


def _room(padded: Shape, channels: int) -> int:
    """Bytes for a padded image, and what spreading reads behind it."""
    return -(-padded[0] * padded[1] * channels * 4 // 64) * 64 + 512


@lru_cache(maxsize=256)
def _taps(window: Window, width: int, ins: int, groups: int) -> Array:
    """How many bytes behind the window's corner each tap lies, in images of this width."""
    rows = np.arange(window.kernel[0]) * window.dilation[0] * width * ins * 4
    columns = np.arange(window.kernel[1]) * window.dilation[1] * ins * 4
    numbers = rows[:, None, None] + columns[:, None] + np.arange(ins // groups) * 4
    return np.ascontiguousarray(numbers.ravel(), dtype=np.int64)
