"""Convolution and matrix products straight through the register tile, without copies of windows.

With channels last, what a window sees of one image row is one run of kw C numbers. So a window is kh runs, and a
product over them needs no matrix of windows: the tile is told where its rows begin and how far apart the runs are.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.columns import add_columns, columns_of, is_small
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split, threads, threads_for
from layernet.backend.compiled.pack import transpose
from layernet.backend.compiled.product import linear, linear_input_gradient, offsets, pitch_of, rows_times
from layernet.backend.compiled.scratch import SLABS, WEIGHTS
from layernet.backend.compiled.tile import NARROW_ROWS, TILE_COLUMNS, TILE_ROWS, narrow_tile, tile
from layernet.backend.compiled.vectors import load_first, load_int, splat, store
from layernet.backend.window import Window


@njit
def bordered(image, height, width, channels, top, left, padded, padded_height, padded_width):
    """Copy an image into the middle of zeros."""
    zero = splat(np.float32(0))
    row = padded_width * channels
    for i in range(padded_height):
        to = padded + i * row * 4
        inside = top <= i < top + height
        begin = left * channels if inside else row
        for c in range(0, begin, LANES):
            store(to + c * 4, zero)
        if inside:
            source = image + (i - top) * width * channels * 4
            run = min(width, padded_width - left) * channels
            for c in range(0, run, LANES):
                store(to + (begin + c) * 4, load_first(source + c * 4, run - c))
            for c in range(begin + run, row, LANES):
                store(to + c * 4, zero)


@njit
def convolve_image(
    image, b, y, bias, relu, height, width, ins, top, left, padded, padded_height, padded_width, a_rows, c_rows, begin,
    end, outer, inner, b_inner, outs,
):  # fmt: skip
    """A bordered copy of the image in `padded`, then each place's window times the packed weights.

    Of the places from `begin` to before `end`.
    """
    if top or left or padded_height != height or padded_width != width:
        bordered(image, height, width, ins, top, left, padded, padded_height, padded_width)
        image = padded
    for column in range(0, outs, TILE_COLUMNS):
        start = bias + column * 4 if bias else 0
        if outs <= LANES:
            for i in range(begin, end, NARROW_ROWS):
                narrow_tile(
                    image, a_rows + i * 8, padded_width * ins * 4, 4, b, inner * b_inner, b_inner,
                    outer, inner, y, c_rows + i * 8, start, outs, relu,
                )  # fmt: skip
        else:
            for i in range(begin, end, TILE_ROWS):
                tile(
                    image, a_rows + i * 8, padded_width * ins * 4, 4, b + column * 4, inner * b_inner,
                    b_inner, outer, inner, y + column * 4, c_rows + i * 8, start, outs - column, relu,
                )  # fmt: skip


@Kernel
def _convolve(
    task, tasks, x, b, y, bias, relu, images, height, width, ins, top, left, padded_height, padded_width, a_rows,
    c_rows, places, parts, outer, inner, b_inner, y_image, outs, slab, slab_size,
):  # fmt: skip
    """For a share of the images, each of them in `parts`."""
    first, last = split(images * parts, task, tasks)
    for item in range(first, last):
        n, part = item // parts, item % parts
        begin, end = split((places + NARROW_ROWS - 1) // NARROW_ROWS, part, parts)  # in whole tiles of either kind
        begin, end = begin * NARROW_ROWS, min(places, end * NARROW_ROWS)
        convolve_image(
            x + n * height * width * ins * 4, b, y + n * y_image, bias, relu, height, width, ins, top, left,
            slab + task * slab_size, padded_height, padded_width, a_rows, c_rows, begin, end, outer, inner, b_inner,
            outs,
        )  # fmt: skip


def convolve(x: Array, weight: Array, bias: Array | None, window: Window, out: Array, relu: bool = False) -> None:
    """out (N, H', W', out) = conv(x (N, H, W, in), weight (out, kh, kw, in)); without dilation."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = out.shape[1:]
    (kh, kw), (down, right) = window.kernel, window.stride
    (top, bottom), (left, after) = window.padding
    if is_small(window, out_height * out_width):
        linear(
            columns_of(x, window, (out_height, out_width)), weight.reshape(outs, -1), bias, out.reshape(-1, outs), relu
        )
        return
    pitch = pitch_of(outs)
    b = transpose(weight.reshape(outs, -1), pitch)
    if (kh, kw, down, right) == (1, 1, 1, 1) and not (top or left or bottom or after):
        rows_times(x.reshape(-1, ins), b, pitch, bias, out.reshape(-1, outs), relu)
        return
    padded_height, padded_width = height + top + bottom, width + left + after
    a_rows = offsets(out_height, down * padded_width * ins * 4, out_width, right * ins * 4)
    c_rows = offsets(out_height * out_width, outs * 4)
    slab = -(-padded_height * padded_width * ins * 4 // 64) * 64 + 256
    tasks = threads_for(out.size * kh * kw * ins // 16)
    _convolve.launch(
        x=x, b=b, y=out, bias=bias, relu=int(relu), images=n, height=height, width=width, ins=ins, top=top, left=left,
        padded_height=padded_height, padded_width=padded_width, a_rows=a_rows, c_rows=c_rows,
        places=out_height * out_width, parts=_parts(n), outer=kh, inner=kw * ins, b_inner=pitch * 4,
        y_image=out_height * out_width * outs * 4, outs=outs, slab=SLABS.room(tasks * slab), slab_size=slab,
        tasks=tasks,
    )  # fmt: skip


def _parts(images: int) -> int:
    """In how many parts an image goes to the threads: in one, but where there are fewer images than threads."""
    return -(-threads() // images)


@Kernel
def _pack_taps(task, tasks, w, outs, filter_bytes, ins, taps, count, b, pitch):
    """B (taps, out, in) from weight (out, all taps, in), rows filled with zeros to the pitch; `taps`: byte offsets."""
    first, last = split(outs, task, tasks)
    for o in range(first, last):
        for t in range(count):
            source = w + o * filter_bytes + load_int(taps + t * 8)
            target = b + (t * outs + o) * pitch * 4
            for c in range(0, pitch, LANES):
                store(target + c * 4, load_first(source + c * 4, max(0, ins - c)))


def input_gradient(dy: Array, weight: Array, window: Window, dx: Array) -> None:
    """dx (N, H, W, in) from dy (N, H', W', out), weight (out, kh, kw, in); without dilation.

    dx[h] = sum of dy[(h + p - i) / s] w[i] over the taps i for which that is a whole number. They depend on h mod s
    alone, so dx falls into s x s interleaved images, each a convolution of dy with stride 1 and some of the taps.
    """
    n, out_height, out_width, outs = dy.shape
    height, width, ins = dx.shape[1:]
    if is_small(window, out_height * out_width):
        dcolumns = np.empty((n * out_height * out_width, weight[0].size), dtype=np.float32)
        linear_input_gradient(dy.reshape(-1, outs), weight.reshape(outs, -1), dcolumns)
        add_columns(dcolumns, window, (out_height, out_width), dx)
        return
    rows = _phases(window, 0, height, out_height)
    columns = _phases(window, 1, width, out_width)
    if len(rows) < window.stride[0] or len(columns) < window.stride[1]:
        dx[...] = 0
    if not rows or not columns:
        return
    top, bottom = max(row.before for row in rows), max(row.after for row in rows)
    left, right_border = max(column.before for column in columns), max(column.after for column in columns)
    padded_height, padded_width = out_height + top + bottom, out_width + left + right_border
    slab = -(-padded_height * padded_width * outs * 4 // 64) * 64 + 256
    pitch = pitch_of(ins)
    (down, right), (kh, kw) = window.stride, window.kernel
    for row, column in product(rows, columns):
        # taps backwards, so that dy is read forwards
        taps = np.array([(i * kw + j) * ins * 4 for i in row.taps for j in column.taps], dtype=np.int64)
        b = WEIGHTS.room(len(taps) * outs * pitch * 4)
        _pack_taps.launch(
            w=weight, outs=outs, filter_bytes=kh * kw * ins * 4, ins=ins, taps=taps, count=len(taps), b=b, pitch=pitch,
        )  # fmt: skip
        start = ((row.start + top) * padded_width + column.start + left) * outs * 4
        a_rows = offsets(row.places, padded_width * outs * 4, column.places, outs * 4, start)
        target = (row.first * width + column.first) * ins * 4
        c_rows = offsets(row.places, down * width * ins * 4, column.places, right * ins * 4, target)
        _convolve.launch(
            x=dy, b=b, y=dx, bias=0, relu=0, images=n, height=out_height, width=out_width, ins=outs, top=top, left=left,
            padded_height=padded_height, padded_width=padded_width, a_rows=a_rows, c_rows=c_rows,
            places=row.places * column.places, parts=_parts(n), outer=len(row.taps), inner=len(column.taps) * outs,
            b_inner=pitch * 4,
            y_image=height * width * ins * 4, outs=ins, slab=SLABS.room(threads() * slab), slab_size=slab,
        )  # fmt: skip


class _Phase(NamedTuple):
    """Along an axis, the pixels of dx that are `first`, `first` + stride, ...: which taps they see, and of what."""

    first: int
    taps: list[int]  # backwards
    start: int  # the row of dy under the first of these taps at the first of these pixels
    places: int
    before: int  # rows of zeros that dy needs before it, and after it
    after: int


def _phases(window: Window, axis: int, size: int, out_size: int) -> list[_Phase]:
    """Those that see any tap. With i = i0 + s t for t < count, the rows of dy are u + e - t for h = s u + first."""
    stride, before, kernel = window.stride[axis], window.padding[axis][0], window.kernel[axis]
    phases = []
    for first in range(min(stride, size)):
        first_tap = (first + before) % stride
        taps = list(range(first_tap, kernel, stride))
        if taps:
            e = (first + before - first_tap) // stride
            places = (size - first + stride - 1) // stride
            start = e - len(taps) + 1
            phases.append(_Phase(first, taps[::-1], start, places, max(0, -start), max(0, places + e - out_size)))
    return phases
