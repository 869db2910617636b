"""Convolution and matrix products straight through the register tile, without copies of windows.

With channels last, what a window sees of one image row is one run of kw C numbers. So a window is kh runs, and a
product over them needs no matrix of windows: the tile is told where its rows begin and how far apart the runs are.
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
    load_int,
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
    if _small(window, out_height * out_width):
        linear(
            columns_of(x, window, (out_height, out_width)), weight.reshape(outs, -1), bias, out.reshape(-1, outs), relu
        )
        return
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


@Kernel
def _pack_taps(arguments, task):
    """B (taps, out, in) from weight (out, all taps, in), rows filled with zeros to the pitch; `taps`: byte offsets."""
    (w, outs, filter_bytes, ins, taps, count, b, pitch, tasks) = unpack(arguments, 9)
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
    if _small(window, out_height * out_width):
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
    top, bottom = (max(0, *(phase[k] for phase in rows)) for k in (4, 5))
    left, after = (max(0, *(phase[k] for phase in columns)) for k in (4, 5))
    padded_height, padded_width = out_height + top + bottom, out_width + left + after
    slab = -(-padded_height * padded_width * outs * 4 // 64) * 64 + 256
    pitch = pitch_of(ins)
    (down, right), (kh, kw) = window.stride, window.kernel
    for (h, row_taps, e, hs, _, _), (w, column_taps, g, ws, _, _) in product(rows, columns):
        # taps backwards, so that dy is read forwards
        taps = np.array([(i * kw + j) * ins * 4 for i in row_taps for j in column_taps], dtype=np.int64)
        b = scratch("transposed", len(taps) * outs * pitch * 4)
        launch(_pack_taps, weight, outs, kh * kw * ins * 4, ins, taps, len(taps), b, pitch, threads())
        at = (np.arange(hs)[:, None] + e + top) * padded_width + (np.arange(ws) + g + left)
        to = (np.arange(hs)[:, None] * down + h) * width + np.arange(ws) * right + w
        a_rows, c_rows = row_table(at * outs * 4), row_table(to * ins * 4)
        launch(
            _convolve, dy, b, dx, 0, 0, n, out_height, out_width, outs,
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


@Kernel
def _filter_gradient_by_taps(arguments, task):
    """The same transposed, (taps and channels, out): for few channels, of which a run of taps fills no panel."""
    (
        x, dy, dw, dw_size, images, height, width, ins, out_height, out_width, outs, top, left, padded_height,
        padded_width, down, right, taps, a_rows, c_rows, copies, padded_size, slab, slab_size, tasks,
    ) = unpack(arguments, 25)  # fmt: skip
    padded = slab + task * slab_size
    target = dw + task * dw_size
    first, last = split(images, task, tasks)
    zero = splat(np.float32(0))
    if first == last:
        for c in range(0, dw_size, LANES * 4):
            store(target + c, zero)
    for n in range(first, last):
        image = x + n * height * width * ins * 4
        _bordered(image, height, width, ins, top, left, padded, padded_height, padded_width)
        gradient = dy + n * out_height * out_width * outs * 4
        if copies:  # what a panel reads beyond the last row must be there
            _bordered(
                gradient, out_height, out_width, outs, 0, 0, padded + padded_size, out_height, out_width
            )  # fmt: skip
            gradient = padded + padded_size
        start = 0 if n == first else -1
        for column in range(0, outs, TILE_COLUMNS):
            for i in range(0, taps, TILE_ROWS):
                tile(
                    padded, a_rows + i * 8, down * padded_width * ins * 4, right * ins * 4,
                    gradient + column * 4, out_width * outs * 4, outs * 4, out_height, out_width,
                    target + column * 4, c_rows + i * 8, start, TILE_COLUMNS, 0,
                )  # fmt: skip


def filter_gradient(x: Array, dy: Array, window: Window, dw: Array) -> None:
    """dw (out, kh, kw, in); without dilation."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = dy.shape[1:]
    (kh, kw), (down, right) = window.kernel, window.stride
    (top, bottom), (left, after) = window.padding
    if _small(window, out_height * out_width):
        columns = columns_of(x, window, (out_height, out_width))
        linear_weight_gradient(columns, dy.reshape(-1, outs), dw.reshape(outs, -1))
        return
    padded_height, padded_width = height + top + bottom, width + left + after
    padded_size = -(-padded_height * padded_width * ins * 4 // 64) * 64 + 512
    taps = kh * kw * ins
    if _waste(kw * ins, TILE_COLUMNS) * _waste(outs, TILE_ROWS) <= _waste(taps, TILE_ROWS) * _waste(outs, TILE_COLUMNS):
        size = -(-dw.size // 16) * 16
        parts = scratch("parts", threads() * size * 4)
        a_rows, c_rows = row_table(np.arange(outs) * 4), row_table(np.arange(outs) * taps * 4)
        launch(
            _filter_gradient, x, dy, parts, size * 4, n, height, width, ins, out_height, out_width, outs,
            top, left, padded_height, padded_width, down, right, kh, kw, a_rows, c_rows,
            scratch("convolve", threads() * padded_size), padded_size, threads(),
        )  # fmt: skip
        launch(_add_parts, parts, size * 4, threads(), dw, dw.size, threads())
        return
    pitch = -(-outs // TILE_COLUMNS) * TILE_COLUMNS
    size = taps * pitch
    parts = scratch("parts", threads() * size * 4)
    places = np.arange(kh)[:, None] * padded_width + np.arange(kw)
    a_rows = row_table((places[..., None] * ins + np.arange(ins)) * 4)
    c_rows = row_table(np.arange(taps) * pitch * 4)
    copies = int(outs % TILE_COLUMNS != 0)
    slab = padded_size + copies * (-(-out_height * out_width * outs * 4 // 64) * 64 + 512)
    launch(
        _filter_gradient_by_taps, x, dy, parts, size * 4, n, height, width, ins, out_height, out_width, outs,
        top, left, padded_height, padded_width, down, right, taps, a_rows, c_rows, copies, padded_size,
        scratch("convolve", threads() * slab), slab, threads(),
    )  # fmt: skip
    total = np.empty((taps, pitch), dtype=np.float32)
    launch(_add_parts, parts, size * 4, threads(), total, total.size, threads())
    dw.reshape(outs, taps)[...] = total[:, :outs].T


def _waste(count: int, unit: int) -> float:
    """How much more is computed when `count` rows or columns are rounded up to whole units."""
    return -(-count // unit) * unit / count


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
    outs = len(weight)
    b = panels(weight)
    _product(address(dy), outs * 4, 4, len(dy), b, outs * TILE_COLUMNS * 4, TILE_COLUMNS * 4, outs, dx)


def linear_weight_gradient(x: Array, dy: Array, dw: Array) -> None:
    """dw (out, in) = dy^T x."""
    outs = dy.shape[1]
    b = panels(x)
    _product(address(dy), 4, outs * 4, outs, b, len(x) * TILE_COLUMNS * 4, TILE_COLUMNS * 4, len(x), dw)


SMALL = 40
"""Images of fewer places than this have their windows copied: one product for all images reads the weights once."""


def _small(window: Window, places: int) -> bool:
    return places < SMALL and window != Window((1, 1))


@Kernel
def _to_columns(arguments, task):
    """Per place of the window a row (kh, kw, in) of what it sees, zeros outside the image."""
    (x, images, height, width, ins, out_height, out_width, kh, kw, down, right, top, left, columns, tasks) = unpack(
        arguments, 15
    )
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
    launch(
        _to_columns, x, n, height, width, ins, *size, kh, kw, *window.stride, top, left, columns, threads()
    )  # fmt: skip
    return columns


@Kernel
def _from_columns(arguments, task):
    """Every pixel sums what the windows over it hold for it."""
    (dx, images, height, width, ins, out_height, out_width, kh, kw, down, right, top, left, columns, tasks) = unpack(
        arguments, 15
    )
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
    launch(
        _from_columns, dx, n, height, width, ins, *size, kh, kw, *window.stride, top, left, columns, threads()
    )  # fmt: skip
