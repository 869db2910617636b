"""Convolution and matrix products straight through the register tile, without copies of windows.

With channels last, what a window sees of one image row is one run of kw C numbers. So a window is kh runs, and a product
over them needs no matrix of windows: the tile is told where its rows begin and how far apart the runs are.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.launch import Kernel, address, launch, scratch, split, threads, unpack
from layernet.backend.compiled.pack import panels, transpose
from layernet.backend.compiled.simd import (
    LANES,
    NARROW_ROWS,
    TILE_COLUMNS,
    TILE_ROWS,
    load,
    load_first,
    narrow_tile,
    splat,
    store,
    store_first,
    tile,
)
from layernet.backend.window import Window


def pitch_of(columns: int) -> int:
    """Floats from one packed row to the next: whole vectors, and never a power of two that strains the cache."""
    width = LANES if columns <= LANES else -(-columns // TILE_COLUMNS) * TILE_COLUMNS
    return width + LANES if width % 512 == 0 else width


def row_table(offsets: Array, spare: int = max(TILE_ROWS, NARROW_ROWS)) -> Array:
    """Byte offsets of rows, the last repeated: a register tile may take more than there are."""
    offsets = np.asarray(offsets, dtype=np.int64).ravel()
    return np.concatenate([offsets, np.full(spare, offsets[-1] if len(offsets) else 0)])


@njit
def _bordered(image, height, width, channels, top, left, padded, padded_height, padded_width):
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


@Kernel
def _convolve(arguments, task):
    """For a share of the images: a bordered copy, then every place's window times the packed weights."""
    (
        x, b, y, bias, relu, images, height, width, ins, top, left, padded_height, padded_width,
        base, a_rows, c_rows, places, outer, inner, b_inner, y_image, c_base, outs, slab, slab_size, tasks,
    ) = unpack(arguments, 26)  # fmt: skip
    copies = top or left or padded_height != height or padded_width != width
    padded = slab + task * slab_size
    first, last = split(images, task, tasks)
    for n in range(first, last):
        image = x + n * height * width * ins * 4
        if copies:
            _bordered(image, height, width, ins, top, left, padded, padded_height, padded_width)
            image = padded
        for column in range(0, outs, TILE_COLUMNS):
            start = bias + column * 4 if bias else 0
            if outs <= LANES:
                for i in range(0, places, NARROW_ROWS):
                    narrow_tile(
                        image + base, a_rows + i * 8, padded_width * ins * 4, 4, b, inner * b_inner, b_inner,
                        outer, inner, y + n * y_image + c_base, c_rows + i * 8, start, outs, relu,
                    )  # fmt: skip
            else:
                for i in range(0, places, TILE_ROWS):
                    tile(
                        image + base, a_rows + i * 8, padded_width * ins * 4, 4, b + column * 4, inner * b_inner,
                        b_inner, outer, inner, y + n * y_image + c_base + column * 4, c_rows + i * 8, start,
                        outs - column, relu,
                    )  # fmt: skip


def convolve(x: Array, weight: Array, bias: Array | None, window: Window, out: Array, relu: bool = False) -> None:
    """out (N, H', W', out) = conv(x (N, H, W, in), weight (out, kh, kw, in)); without dilation."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = out.shape[1:]
    (kh, kw), (down, right) = window.kernel, window.stride
    (top, bottom), (left, after) = window.padding
    pitch = pitch_of(outs)
    b = transpose(weight.reshape(outs, -1), pitch)
    if (kh, kw, down, right) == (1, 1, 1, 1) and not (top or left or bottom or after):
        _rows_times(x.reshape(-1, ins), b, pitch, bias, out.reshape(-1, outs), relu)
        return
    padded_height, padded_width = height + top + bottom, width + left + after
    at = np.arange(out_height)[:, None] * down * padded_width + np.arange(out_width) * right
    a_rows = row_table(at * ins * 4)
    c_rows = row_table(np.arange(out_height * out_width) * outs * 4)
    slab = -(-padded_height * padded_width * ins * 4 // 64) * 64 + 256
    launch(
        _convolve, x, b, out, bias, int(relu), n, height, width, ins,
        top, left, padded_height, padded_width, 0, a_rows, c_rows, out_height * out_width,
        kh, kw * ins, pitch * 4, out_height * out_width * outs * 4, 0, outs,
        scratch("convolve", threads() * slab), slab, threads(),
    )  # fmt: skip


def input_gradient(dy: Array, weight: Array, window: Window, dx: Array) -> None:
    """dx (N, H, W, in) from dy (N, H', W', out), weight (out, kh, kw, in); without dilation.

    dx[h] = sum of dy[(h + p - i) / s] w[i] over the taps i for which that is a whole number. They depend on h mod s
    alone, so dx falls into s x s interleaved images, each a convolution of dy with stride 1 and some of the taps.
    """
    n, out_height, out_width, outs = dy.shape
    height, width, ins = dx.shape[1:]
    rows = _phases(window, 0, height, out_height)
    columns = _phases(window, 1, width, out_width)
    if len(rows) < window.stride[0] or len(columns) < window.stride[1]:
        dx[...] = 0
    if not rows or not columns:
        return
    top, bottom = (max(0, *(phase[k] for phase in rows)) for k in (4, 5))
    left, after = (max(0, *(phase[k] for phase in columns)) for k in (4, 5))
    padded_height, padded_width = out_height + top + bottom, out_width + left + after
    slab = -(-padded_height * padded_width * outs * 4 // 64) * 64 + 256
    pitch = pitch_of(ins)
    (down, right), (kh, kw) = window.stride, window.kernel
    for (h, row_taps, e, hs, _, _), (w, column_taps, g, ws, _, _) in product(rows, columns):
        # (taps, out, in), taps backwards, so that dy is read forwards
        part = weight[:, row_taps][:, :, column_taps].transpose(1, 2, 0, 3)
        b_array = np.zeros((part.shape[0] * part.shape[1] * outs, pitch), dtype=np.float32)
        b_array[:, :ins] = part.reshape(-1, ins)
        at = (np.arange(hs)[:, None] + e + top) * padded_width + (np.arange(ws) + g + left)
        to = (np.arange(hs)[:, None] * down + h) * width + np.arange(ws) * right + w
        a_rows, c_rows = row_table(at * outs * 4), row_table(to * ins * 4)
        launch(
            _convolve, dy, b_array, dx, 0, 0, n, out_height, out_width, outs,
            top, left, padded_height, padded_width, 0, a_rows, c_rows, hs * ws,
            len(row_taps), len(column_taps) * outs, pitch * 4, height * width * ins * 4, 0, ins,
            scratch("convolve", threads() * slab), slab, threads(),
        )  # fmt: skip


def _phases(window: Window, axis: int, size: int, out_size: int) -> list[tuple[int, list[int], int, int, int, int]]:
    """Along an axis, for each h mod s with taps: (h, taps backwards, first row of dy, places, border before, after).

    With i = i0 + s t for t < count, the rows of dy are u + e - t for h = s u + phase.
    """
    stride, before, kernel = window.stride[axis], window.padding[axis][0], window.kernel[axis]
    phases = []
    for phase in range(min(stride, size)):
        first_tap = (phase + before) % stride
        taps = list(range(first_tap, kernel, stride))
        if not taps:
            continue
        e = (phase + before - first_tap) // stride
        places = (size - phase + stride - 1) // stride
        first = e - len(taps) + 1
        phases.append((phase, taps[::-1], first, places, max(0, -first), max(0, places - 1 + e - (out_size - 1))))
    return phases


@Kernel
def _filter_gradient(arguments, task):
    """Per task its own sum over a share of the images of dy^T times what the windows see, row of taps by row."""
    (
        x, dy, dw, dw_size, images, height, width, ins, out_height, out_width, outs, top, left, padded_height,
        padded_width, down, right, kh, kw, a_rows, c_rows, slab, slab_size, tasks,
    ) = unpack(arguments, 24)  # fmt: skip
    padded = slab + task * slab_size
    target = dw + task * dw_size
    first, last = split(images, task, tasks)
    zero = splat(np.float32(0))
    if first == last:
        for c in range(0, dw_size, LANES * 4):
            store(target + c, zero)
    run = kw * ins
    for n in range(first, last):
        image = x + n * height * width * ins * 4
        _bordered(image, height, width, ins, top, left, padded, padded_height, padded_width)
        gradient = dy + n * out_height * out_width * outs * 4
        start = 0 if n == first else -1
        for i in range(kh):
            for column in range(0, run, TILE_COLUMNS):
                for o in range(0, outs, TILE_ROWS):
                    tile(
                        gradient, a_rows + o * 8, out_width * outs * 4, outs * 4,
                        padded + (i * padded_width * ins + column) * 4, down * padded_width * ins * 4, right * ins * 4,
                        out_height, out_width, target + (i * run + column) * 4, c_rows + o * 8, start, run - column, 0,
                    )  # fmt: skip


def filter_gradient(x: Array, dy: Array, window: Window, dw: Array) -> None:
    """dw (out, kh, kw, in); without dilation."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = dy.shape[1:]
    (kh, kw), (down, right) = window.kernel, window.stride
    (top, bottom), (left, after) = window.padding
    padded_height, padded_width = height + top + bottom, width + left + after
    slab = -(-padded_height * padded_width * ins * 4 // 64) * 64 + 512
    size = -(-dw.size // 16) * 16
    parts = scratch("parts", threads() * size * 4)
    a_rows, c_rows = row_table(np.arange(outs) * 4), row_table(np.arange(outs) * kh * kw * ins * 4)
    launch(
        _filter_gradient, x, dy, parts, size * 4, n, height, width, ins, out_height, out_width, outs,
        top, left, padded_height, padded_width, down, right, kh, kw, a_rows, c_rows,
        scratch("convolve", threads() * slab), slab, threads(),
    )  # fmt: skip
    launch(_add_parts, parts, size * 4, threads(), dw, dw.size, threads())


@Kernel
def _add_parts(arguments, task):
    """target = the sum of the parts, in order."""
    (parts, part_size, count, target, size, tasks) = unpack(arguments, 6)
    first, last = split((size + LANES - 1) // LANES, task, tasks)
    for v in range(first, last):
        total = load(parts + v * LANES * 4)
        for part in range(1, count):
            total = total + load(parts + part * part_size + v * LANES * 4)
        store_first(target + v * LANES * 4, total, size - v * LANES)


@Kernel
def _multiply(arguments, task):
    """C = A B + bias for a share of the columns and rows."""
    (
        a, a_rows, a_inner, rows, b, panel_step, b_inner, depth, c, c_rows, columns, bias, relu, by_rows, tasks,
    ) = unpack(arguments, 15)  # fmt: skip
    panels = (columns + TILE_COLUMNS - 1) // TILE_COLUMNS
    first, last = split((rows + TILE_ROWS - 1) // TILE_ROWS if by_rows else panels, task, tasks)
    row_begin, row_end = (first * TILE_ROWS, min(rows, last * TILE_ROWS)) if by_rows else (0, rows)
    panel_begin, panel_end = (0, panels) if by_rows else (first, last)
    for panel in range(panel_begin, panel_end):
        column = panel * TILE_COLUMNS
        start = bias + column * 4 if bias else 0
        for i in range(row_begin, row_end, TILE_ROWS):
            tile(
                a, a_rows + i * 8, 0, a_inner, b + panel * panel_step, 0, b_inner, 1, depth,
                c + column * 4, c_rows + i * 8, start, columns - column, relu,
            )  # fmt: skip


def _product(
    a: int, a_row: int, a_inner: int, rows: int, b: int, panel_step: int, b_inner: int, depth: int, out: Array,
    bias: Array | None = None, relu: bool = False,
) -> None:  # fmt: skip
    columns = out.shape[1]
    a_rows, c_rows = row_table(np.arange(rows) * a_row), row_table(np.arange(rows) * columns * 4)
    by_rows = rows // TILE_ROWS >= -(-columns // TILE_COLUMNS)
    launch(
        _multiply, a, a_rows, a_inner, rows, b, panel_step, b_inner, depth, out, c_rows,
        columns, bias, int(relu), int(by_rows), threads(),
    )  # fmt: skip


def _rows_times(x: Array, b: int, pitch: int, bias: Array | None, out: Array, relu: bool) -> None:
    _product(address(x), x.shape[1] * 4, 4, len(x), b, TILE_COLUMNS * 4, pitch * 4, x.shape[1], out, bias, relu)


def linear(x: Array, weight: Array, bias: Array | None, out: Array, relu: bool = False) -> None:
    """out (M, out) = x (M, in) weight^T + bias."""
    pitch = pitch_of(len(weight))
    _rows_times(x, transpose(weight, pitch), pitch, bias, out, relu)


def linear_input_gradient(dy: Array, weight: Array, dx: Array) -> None:
    """dx (M, in) = dy (M, out) weight (out, in)."""
    outs, ins = weight.shape
    b = panels(weight)
    _product(address(dy), outs * 4, 4, len(dy), b, outs * TILE_COLUMNS * 4, TILE_COLUMNS * 4, outs, dx)


def linear_weight_gradient(x: Array, dy: Array, dw: Array) -> None:
    """dw (out, in) = dy^T x."""
    outs = dy.shape[1]
    b = panels(x)
    _product(address(dy), 4, outs * 4, outs, b, len(x) * TILE_COLUMNS * 4, TILE_COLUMNS * 4, len(x), dw)
