"""Convolution with stride 1 by Winograd's minimal filtering F(m, r): a quarter to a sixth of the multiplications.

A tile of m x m outputs of an r x r filter is A^T [(G w G^T) * (B^T x B)] A, x being the tile's (m + r - 1)^2 inputs
(Lavin and Gray 2016, arXiv:1509.09308). Summed over channels, the elementwise product becomes one matrix product for
each of the (m + r - 1)^2 frequencies. All gradients are of the same kind: dx is the convolution of dy with the turned
filters, and as the forward pass is linear in w, dw = G^T [sum over tiles (A dy A^T) * (B^T x B)] G.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled import simd
from layernet.backend.compiled.launch import Kernel, Routine, launch, scratch, split, threads, unpack
from layernet.backend.compiled.simd import (
    BYTES,
    LANES,
    NARROW_ROWS,
    TILE_COLUMNS,
    TILE_ROWS,
    load,
    load_first,
    maximum,
    narrow_tile,
    splat,
    store,
    store_first,
    tile,
    transpose_square,
)


def matrices(m: int, r: int) -> tuple[Any, Any, Any]:
    """(A^T, G, B^T) of F(m, r) by the Cook-Toom construction, as tuples of rows of floats.

    y = A^T [(G w) * (B^T x)] correlates x (m + r - 1) with w (r). A product of polynomials w and u of degrees r - 1 and
    m - 1 is found from its values at m + r - 2 points and at infinity: evaluation of w and u, then interpolation.
    Transposed with respect to u, that is correlation: A is u's evaluation, B the transpose of the interpolation. The
    points 0, 1, -1, 2, -2, 1/2, -1/2 keep the numbers small. The denominators of the interpolation go to G, where they
    are multiplied once for each filter.
    """
    points = [Fraction(p) for p in (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))][: m + r - 2]
    size = m + r - 1

    def powers(count: int) -> list[list[Fraction]]:
        rows = [[p**k for k in range(count)] for p in points]
        return [*rows, [Fraction(int(k == count - 1)) for k in range(count)]]

    def times(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
        shifted = [Fraction(0), *polynomial]
        return [high - root * low for high, low in zip(shifted, [*polynomial, Fraction(0)], strict=True)]

    whole = [Fraction(1)]
    for p in points:
        whole = times(whole, p)
    interpolation = []
    scales = []
    for p in points:
        basis, scale = [Fraction(1)], Fraction(1)
        for q in points:
            if q != p:
                basis, scale = times(basis, q), scale * (p - q)
        interpolation.append([*basis, Fraction(0)])
        scales.append(scale)
    interpolation.append(whole)
    scales.append(Fraction(1))
    evaluated = powers(r)
    filters = [[value / scale for value in row] for row, scale in zip(evaluated, scales, strict=True)]
    outputs = powers(m)

    def floats(rows: list[list[Fraction]]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(float(value) for value in row) for row in rows)

    assert all(len(row) == size for row in interpolation)
    return floats([list(row) for row in zip(*outputs, strict=True)]), floats(filters), floats(interpolation)


def _transposed(rows: Any) -> Any:
    return tuple(zip(*rows, strict=True))


INPUT, OUTPUT, FILTER, SPREAD, GATHER = range(5)
"""Which transform: of x, of the products, of w; of dy and of the products for dw, which are the others' transposes."""


def _bodies(m: int, r: int) -> tuple[Any, ...]:
    outputs, filters, inputs = matrices(m, r)
    return (
        simd.transform(inputs),
        simd.transform(outputs),
        simd.transform(filters),
        simd.transform(_transposed(outputs)),
        simd.transform(_transposed(filters)),
    )


_input43, _output43, _filter43, _spread43, _gather43 = _bodies(4, 3)
_input45, _output45, _filter45, _spread45, _gather45 = _bodies(4, 5)


def _transform43(which, source, row, column, target, target_row, target_column, vectors):
    for v in range(vectors):
        s, t = source + v * BYTES, target + v * BYTES
        if which == INPUT:
            _input43(s, row, column, t, target_row, target_column)
        elif which == OUTPUT:
            _output43(s, row, column, t, target_row, target_column)
        elif which == FILTER:
            _filter43(s, row, column, t, target_row, target_column)
        elif which == SPREAD:
            _spread43(s, row, column, t, target_row, target_column)
        else:
            _gather43(s, row, column, t, target_row, target_column)


def _transform45(which, source, row, column, target, target_row, target_column, vectors):
    for v in range(vectors):
        s, t = source + v * BYTES, target + v * BYTES
        if which == INPUT:
            _input45(s, row, column, t, target_row, target_column)
        elif which == OUTPUT:
            _output45(s, row, column, t, target_row, target_column)
        elif which == FILTER:
            _filter45(s, row, column, t, target_row, target_column)
        elif which == SPREAD:
            _spread45(s, row, column, t, target_row, target_column)
        else:
            _gather45(s, row, column, t, target_row, target_column)


TRANSFORMS = {3: Routine(_transform43, 8), 5: Routine(_transform45, 8)}
"""By filter size; tiles of 4 x 4 outputs."""

_M = 4


@njit
def _turned_filters(transform, a, r, w, ins, first, last, c, target, u_step, panel_width, spare):
    """U[f, out, c..] = G w G^T of the turned filters `first` to before `last`, a panel from channel c on.

    A last, partly filled vector is copied first.
    """
    column = -ins * 4
    for o in range(first, last):
        for v in range(0, panel_width, LANES):
            to = target + ((o - first) * panel_width + v) * 4
            source = w + (o * r * r + r * r - 1) * ins * 4 + (c + v) * 4
            if c + v + LANES <= ins:
                simd.run(transform, FILTER, source, r * column, column, to, a * u_step, u_step, 1)
            else:
                for i in range(r * r):
                    store(spare + i * BYTES, load_first(source + i * column, ins - c - v))
                simd.run(transform, FILTER, spare, r * BYTES, BYTES, to, a * u_step, u_step, 1)


@njit
def _crosswise_filters(transform, a, r, w, ins, outs, o0, c, target, u_step, panel_width, spare):
    """U[f, c.., o0..] = G w G^T for a square of LANES channels and LANES filters.

    The filters have their channels side by side, and so have the transforms; the product wants filters side by side.
    """
    square = spare + r * r * BYTES
    turned = square + LANES * BYTES
    step = LANES * BYTES + 64
    zero = splat(np.float32(0))
    for o in range(LANES):
        source = w + ((o0 + o) * r * r * ins + c) * 4
        to = turned + o * BYTES
        if o0 + o >= outs:
            for f in range(a * a):
                store(to + f * step, zero)
        elif c + LANES <= ins:
            simd.run(transform, FILTER, source, r * ins * 4, ins * 4, to, a * step, step, 1)
        else:
            for i in range(r * r):
                store(spare + i * BYTES, load_first(source + i * ins * 4, ins - c))
            simd.run(transform, FILTER, spare, r * BYTES, BYTES, to, a * step, step, 1)
    for f in range(a * a):
        if c + LANES <= ins:
            transpose_square(turned + f * step, BYTES, target + f * u_step, panel_width * 4)
        else:
            transpose_square(turned + f * step, BYTES, square, BYTES)
            for k in range(ins - c):
                store(target + f * u_step + k * panel_width * 4, load(square + k * BYTES))


def _filter_room(a: int, r: int) -> int:
    """Bytes that these two take to work in."""
    return (r * r + LANES) * BYTES + a * a * (LANES * BYTES + 64)


@Kernel
def _transform_filters(arguments, task):
    """U[f, panel, k, :] for a share of the panels and k; k counts filters where they are turned, else channels."""
    (transform, a, r, w, ins, outs, turned, u, u_step, panels, panel_width, slab, slab_size, tasks) = unpack(
        arguments, 14
    )
    spare = slab + task * slab_size
    depth = outs if turned else ins
    blocks = (depth + LANES - 1) // LANES
    first, last = split(panels * blocks, task, tasks)
    for block in range(first, last):
        panel, k = block // blocks, block % blocks * LANES
        target = u + (panel * depth + k) * panel_width * 4
        if turned:
            end = min(k + LANES, outs)
            _turned_filters(
                transform, a, r, w, ins, k, end, panel * panel_width, target, u_step, panel_width, spare
            )  # fmt: skip
        else:
            for v in range(0, panel_width, LANES):
                _crosswise_filters(
                    transform,
                    a,
                    r,
                    w,
                    ins,
                    outs,
                    panel * panel_width + v,
                    k,
                    target + v * 4,
                    u_step,
                    panel_width,
                    spare,
                )


@njit(inline="always")
def _place(index, down, across, m):
    """Image, first row and first column of a tile of outputs."""
    n, rest = divmod(index, down * across)
    return n, (rest // across) * m, (rest % across) * m


@njit
def _spread_window(transform, which, size, image, top, left, height, width, channels, spare, target, frequency, a):
    """Transform the size x size window of an image at (top, left), zeros outside it; target[f] is f frequencies on."""
    vectors = (channels + LANES - 1) // LANES
    inside = top >= 0 and left >= 0 and top + size <= height and left + size <= width
    if inside and channels % LANES == 0:
        source = image + (top * width + left) * channels * 4
        simd.run(
            transform, which, source, width * channels * 4, channels * 4, target, a * frequency, frequency, vectors
        )
        return
    zero = splat(np.float32(0))
    for i in range(size):
        for j in range(size):
            to = spare + (i * size + j) * vectors * BYTES
            if 0 <= top + i < height and 0 <= left + j < width:
                source = image + ((top + i) * width + left + j) * channels * 4
                for c in range(0, channels, LANES):
                    store(to + c * 4, load_first(source + c * 4, channels - c))
            else:
                for c in range(0, channels, LANES):
                    store(to + c * 4, zero)
    pitch = vectors * BYTES
    simd.run(transform, which, spare, size * pitch, pitch, target, a * frequency, frequency, vectors)


@njit
def _finish(transform, a, products, m_step, index, y, bias, floor, out_height, out_width, outs, begin, end, spare):
    """Transform a tile's products back and store what lies in the image, for channels `begin` to before `end`."""
    n, i, j = _place(index, (out_height + _M - 1) // _M, (out_width + _M - 1) // _M, _M)
    vectors = (end - begin + LANES - 1) // LANES
    simd.run(
        transform, OUTPUT, products, a * m_step, m_step, spare, _M * vectors * BYTES, vectors * BYTES, vectors
    )  # fmt: skip
    for p in range(min(_M, out_height - i)):
        for q in range(min(_M, out_width - j)):
            source = spare + (p * _M + q) * vectors * BYTES
            target = y + ((n * out_height + i + p) * out_width + j + q) * outs * 4
            for c in range(begin, end, LANES):
                value = load(source + (c - begin) * 4)
                if bias:
                    value = value + load_first(bias + c * 4, end - c)
                value = maximum(floor, value)
                if c + LANES <= end:
                    store(target + c * 4, value)
                else:
                    store_first(target + c * 4, value, end - c)


@Kernel
def _convolve(arguments, task):
    """y = conv(x, w) for a share of the tiles, a block at a time: transform, multiply, transform back, store."""
    (
        transform, a, x, u, u_step, y, bias, relu, images, height, width, ins, out_height, out_width, outs,
        top, left, block, panels, panel_width, a_rows, c_rows, slab, slab_size, tasks,
    ) = unpack(arguments, 25)  # fmt: skip
    in_pitch = (ins + LANES - 1) // LANES * BYTES
    out_pitch = panels * panel_width * 4
    v_step, m_step = block * in_pitch + 64, block * out_pitch + 64
    spare = slab + task * slab_size
    v = spare + a * a * in_pitch
    products = v + a * a * v_step
    finished = products + a * a * m_step
    rows = TILE_ROWS if panel_width == TILE_COLUMNS else NARROW_ROWS
    down, across = (out_height + _M - 1) // _M, (out_width + _M - 1) // _M
    zero = splat(np.float32(0))
    floor = zero if relu else splat(np.float32(-np.inf))
    start, stop = split(images * down * across, task, tasks)
    for begin in range(start, stop, block):
        count = min(block, stop - begin)
        for t in range(count):
            n, i, j = _place(begin + t, down, across, _M)
            image = x + n * height * width * ins * 4
            _spread_window(
                transform, INPUT, a, image, i - top, j - left, height, width, ins, spare, v + t * in_pitch, v_step, a
            )
        for f in range(a * a):
            for panel in range(panels):
                b = u + f * u_step + panel * ins * panel_width * 4
                c = products + f * m_step + panel * panel_width * 4
                for t in range(0, count, rows):
                    if panel_width == TILE_COLUMNS:
                        tile(
                            v + f * v_step + t * in_pitch, a_rows, 0, 4, b, 0, panel_width * 4, 1, ins,
                            c + t * out_pitch, c_rows, 0, panel_width, 0,
                        )  # fmt: skip
                    else:
                        narrow_tile(
                            v + f * v_step + t * in_pitch, a_rows, 0, 4, b, 0, panel_width * 4, 1, ins,
                            c + t * out_pitch, c_rows, 0, panel_width, 0,
                        )  # fmt: skip
        for t in range(count):
            _finish(
                transform, a, products + t * out_pitch, m_step, begin + t, y, bias, floor,
                out_height, out_width, outs, 0, outs, finished,
            )  # fmt: skip


@Kernel
def _transform_inputs(arguments, task):
    """V = B^T x B for a share of all tiles."""
    (transform, a, x, height, width, ins, down, across, top, left, tiles, v, v_step, slab, slab_size, tasks) = unpack(
        arguments, 16
    )
    pitch = (ins + LANES - 1) // LANES * BYTES
    first, last = split(tiles, task, tasks)
    for t in range(first, last):
        n, i, j = _place(t, down, across, _M)
        image = x + n * height * width * ins * 4
        _spread_window(
            transform, INPUT, a, image, i - top, j - left, height, width, ins, slab + task * slab_size,
            v + t * pitch, v_step, a,
        )  # fmt: skip


@Kernel
def _convolve_panels(arguments, task):
    """y for a share of the panels of output channels, all tiles at once; filters are transformed as they are used."""
    (
        transform, a, r, w, turned, v, v_step, y, bias, relu, tiles, ins, out_height, out_width, outs,
        panels, depth_block, a_rows, c_rows, m_step, slab, slab_size, tasks,
    ) = unpack(arguments, 23)  # fmt: skip
    in_pitch, out_pitch = (ins + LANES - 1) // LANES * BYTES, TILE_COLUMNS * 4
    u = slab + task * slab_size
    u_step = depth_block * TILE_COLUMNS * 4 + 64
    products = u + a * a * u_step
    spare = products + a * a * m_step
    zero = splat(np.float32(0))
    floor = zero if relu else splat(np.float32(-np.inf))
    first, last = split(panels, task, tasks)
    for panel in range(first, last):
        column = panel * TILE_COLUMNS
        for k in range(0, ins, depth_block):
            end = min(k + depth_block, ins)
            if turned:
                _turned_filters(transform, a, r, w, outs, k, end, column, u, u_step, TILE_COLUMNS, spare)
            else:
                for c in range(k, end, LANES):
                    for o in range(0, TILE_COLUMNS, LANES):
                        to = u + ((c - k) * TILE_COLUMNS + o) * 4
                        _crosswise_filters(
                            transform, a, r, w, ins, outs, column + o, c, to, u_step, TILE_COLUMNS, spare
                        )  # fmt: skip
            start = -1 if k else 0
            for f in range(a * a):
                for t in range(0, tiles, TILE_ROWS):
                    tile(
                        v + f * v_step + t * in_pitch + k * 4, a_rows, 0, 4, u + f * u_step, 0, TILE_COLUMNS * 4,
                        1, end - k, products + f * m_step + t * out_pitch, c_rows, start, TILE_COLUMNS, 0,
                    )  # fmt: skip
        for t in range(tiles):
            _finish(
                transform, a, products + t * out_pitch, m_step, t, y, bias, floor,
                out_height, out_width, outs, column, min(column + TILE_COLUMNS, outs), spare,
            )  # fmt: skip


@Kernel
def _transform_both(arguments, task):
    """V = B^T x B and Z = A dy A^T for a share of a chunk of tiles."""
    (
        transform, a, x, dy, height, width, ins, out_height, out_width, outs,
        top, left, begin, count, v, v_step, z, z_step, slab, slab_size, tasks,
    ) = unpack(arguments, 21)  # fmt: skip
    in_pitch, out_pitch = (ins + LANES - 1) // LANES * BYTES, (outs + LANES - 1) // LANES * BYTES
    spare = slab + task * slab_size
    down, across = (out_height + _M - 1) // _M, (out_width + _M - 1) // _M
    first, last = split(count, task, tasks)
    for t in range(first, last):
        n, i, j = _place(begin + t, down, across, _M)
        image, gradient = x + n * height * width * ins * 4, dy + n * out_height * out_width * outs * 4
        _spread_window(
            transform, INPUT, a, image, i - top, j - left, height, width, ins, spare, v + t * in_pitch, v_step, a
        )
        _spread_window(
            transform, SPREAD, _M, gradient, i, j, out_height, out_width, outs, spare, z + t * out_pitch, z_step, a
        )


@Kernel
def _multiply_frequencies(arguments, task):
    """dU[f] = or += Z[f]^T V[f] for a share of the frequencies."""
    (
        frequencies, count, ins, outs, v, v_step, z, z_step, du, du_step, a_rows, c_rows, onto, tasks,
    ) = unpack(arguments, 14)  # fmt: skip
    in_pitch, out_pitch = (ins + LANES - 1) // LANES * BYTES, (outs + LANES - 1) // LANES * BYTES
    start = -1 if onto else 0
    first, last = split(frequencies, task, tasks)
    for f in range(first, last):
        target = du + f * du_step
        for c in range(0, ins, TILE_COLUMNS):
            for o in range(0, outs, TILE_ROWS):
                tile(
                    z + f * z_step, a_rows + o * 8, 0, out_pitch, v + f * v_step + c * 4, 0, in_pitch, 1, count,
                    target + c * 4, c_rows + o * 8, start, TILE_COLUMNS, 0,
                )  # fmt: skip


@Kernel
def _transform_back(arguments, task):
    """dw = G^T dU G for a share of the filters."""
    (transform, a, r, ins, outs, du, du_pitch, du_step, dw, slab, tasks) = unpack(arguments, 11)
    spare = slab + task * r * r * BYTES
    first, last = split(outs, task, tasks)
    for o in range(first, last):
        for c in range(0, ins, LANES):
            simd.run(transform, GATHER, du + o * du_pitch + c * 4, a * du_step, du_step, spare, r * BYTES, BYTES, 1)
            for i in range(r * r):
                store_first(dw + ((o * r * r + i) * ins + c) * 4, load(spare + i * BYTES), ins - c)


@Kernel
def _multiply_and_transform_back(arguments, task):
    """dw for a share of the squares of filters and channels; with few tiles, dU need not leave the cache."""
    (
        transform, a, r, count, ins, outs, v, v_step, z, z_step, dw, a_rows, c_rows, slab, slab_size, tasks,
    ) = unpack(arguments, 16)  # fmt: skip
    in_pitch, out_pitch = (ins + LANES - 1) // LANES * BYTES, (outs + LANES - 1) // LANES * BYTES
    spare = slab + task * slab_size
    square = spare + r * r * BYTES
    square_step = TILE_ROWS * TILE_COLUMNS * 4 + 64
    columns = (ins + TILE_COLUMNS - 1) // TILE_COLUMNS
    first, last = split((outs + TILE_ROWS - 1) // TILE_ROWS * columns, task, tasks)
    for block in range(first, last):
        o0, c0 = block // columns * TILE_ROWS, block % columns * TILE_COLUMNS
        for f in range(a * a):
            tile(
                z + f * z_step, a_rows + o0 * 8, 0, out_pitch, v + f * v_step + c0 * 4, 0, in_pitch, 1, count,
                square + f * square_step, c_rows, 0, TILE_COLUMNS, 0,
            )  # fmt: skip
        for o in range(o0, min(o0 + TILE_ROWS, outs)):
            for c in range(c0, min(c0 + TILE_COLUMNS, ins), LANES):
                source = square + (o - o0) * TILE_COLUMNS * 4 + (c - c0) * 4
                simd.run(transform, GATHER, source, a * square_step, square_step, spare, r * BYTES, BYTES, 1)
                for i in range(r * r):
                    store_first(dw + ((o * r * r + i) * ins + c) * 4, load(spare + i * BYTES), ins - c)


def _panels(width: int) -> tuple[int, int]:
    """How many panels of packed weights, and their columns."""
    panel_width = LANES if width <= LANES else TILE_COLUMNS
    return -(-width // panel_width), panel_width


def _rows(count: int, pitch: int, spare: int) -> Array:
    """Byte offsets of rows; past the last, `spare` more that repeat it: a register tile may take them too."""
    return np.minimum(np.arange(count + spare), count - 1) * pitch


def convolve(
    x: Array, filters: Array, bias: Array | None, padding: tuple[int, int], out: Array, relu: bool = False,
    turned: bool = False,
) -> None:  # fmt: skip
    """out (N, H', W', out) = conv(x, filters), `padding` (top, left) zeros; with `turned`, what takes dy back to dx.

    The filters (out, r, r, in) are then turned by half a turn, their in and out exchanged: (out) -> (in).
    """
    n, height, width, ins = x.shape
    out_height, out_width, outs = out.shape[1:]
    r = filters.shape[1]
    a = _M + r - 1
    transform = TRANSFORMS[r].address
    panels, panel_width = _panels(outs)
    down, across = -(-out_height // _M), -(-out_width // _M)
    tiles = n * down * across
    if tiles <= PANEL_TILES and a * a * panels * ins * panel_width * 4 > CHUNK_BYTES // 2:
        _by_panels(x, filters, bias, padding, out, relu, turned)
        return
    u_step = panels * ins * panel_width * 4 + 64  # off the powers of two, where all frequencies would meet in one set
    u = scratch("u", a * a * u_step)
    room = _filter_room(a, r)
    of_filters = (outs, ins, 1) if turned else (ins, outs, 0)
    launch(
        _transform_filters, transform, a, r, filters, *of_filters, u, u_step, panels, panel_width,
        scratch("convolve", threads() * room), room, threads(),
    )  # fmt: skip
    rows = TILE_ROWS if panel_width == TILE_COLUMNS else NARROW_ROWS
    in_pitch, out_pitch = -(-ins // LANES) * BYTES, panels * panel_width * 4
    block = max(rows, min(BLOCK_ROWS, BLOCK_BYTES // (a * a * (in_pitch + out_pitch))) // rows * rows)
    slab = a * a * (in_pitch + block * (in_pitch + out_pitch) + 128) + _M * _M * out_pitch
    slab = -(-slab // 64) * 64
    a_rows, c_rows = _rows(rows, in_pitch, 0), _rows(rows, out_pitch, 0)
    launch(
        _convolve, transform, a, x, u, u_step, out, bias, int(relu),
        n, height, width, ins, out_height, out_width, outs, *padding, block, panels, panel_width,
        a_rows, c_rows, scratch("convolve", threads() * slab), slab, threads(),
    )  # fmt: skip


def _by_panels(
    x: Array, filters: Array, bias: Array | None, padding: tuple[int, int], out: Array, relu: bool, turned: bool
) -> None:
    """`convolve` with many filters and few tiles: it is the tiles that all stay in the cache, not the filters."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = out.shape[1:]
    r = filters.shape[1]
    a = _M + r - 1
    transform = TRANSFORMS[r].address
    down, across = -(-out_height // _M), -(-out_width // _M)
    tiles = n * down * across
    in_pitch = -(-ins // LANES) * BYTES
    v_step = (tiles + TILE_ROWS) * in_pitch + 64
    v = scratch("chunk", a * a * v_step)
    window = a * a * in_pitch
    launch(
        _transform_inputs, transform, a, x, height, width, ins, down, across, *padding, tiles, v, v_step,
        scratch("convolve", threads() * window), window, threads(),
    )  # fmt: skip
    depth_block = 64
    m_step = (tiles + TILE_ROWS) * TILE_COLUMNS * 4 + 64
    slab = a * a * (depth_block * TILE_COLUMNS * 4 + 64 + m_step) + _filter_room(a, r)
    slab = -(-slab // 64) * 64
    a_rows, c_rows = _rows(TILE_ROWS, in_pitch, 0), _rows(TILE_ROWS, TILE_COLUMNS * 4, 0)
    launch(
        _convolve_panels, transform, a, r, filters, int(turned), v, v_step, out, bias, int(relu), tiles, ins,
        out_height, out_width, outs, -(-outs // TILE_COLUMNS), depth_block, a_rows, c_rows, m_step,
        scratch("convolve", threads() * slab), slab, threads(),
    )  # fmt: skip


PANEL_TILES = 512
"""Up to so many tiles in all, many filters are taken a panel at a time."""

BLOCK_BYTES = 600_000
"""What a block of transformed tiles takes, inputs and outputs: it should stay in the level-2 cache."""

BLOCK_ROWS = 96

FEW_TILES = 96
"""Up to so many tiles in all, a dU that would not fit the cache is never made: dw is found square by square."""

CHUNK_BYTES = 8 << 20
"""What a chunk of transformed tiles takes for the gradient of the filters: it should stay in the level-3 cache."""


def filter_gradient(x: Array, dy: Array, padding: tuple[int, int], dw: Array) -> None:
    """dw (out, r, r, in) = the gradient of the filters."""
    n, height, width, ins = x.shape
    out_height, out_width, outs = dy.shape[1:]
    r = dw.shape[1]
    a = _M + r - 1
    transform = TRANSFORMS[r].address
    in_pitch, out_pitch = -(-ins // LANES) * BYTES, -(-outs // LANES) * BYTES
    tiles = n * -(-out_height // _M) * -(-out_width // _M)
    chunk = min(tiles, max(FEW_TILES, CHUNK_BYTES // (a * a * (in_pitch + out_pitch))))
    chunk = -(-tiles // -(-tiles // chunk))  # of equal size
    v_step, z_step = chunk * in_pitch + 64, chunk * out_pitch + 64
    du_pitch = -(-ins // TILE_COLUMNS) * TILE_COLUMNS * 4
    v = scratch("chunk", a * a * (v_step + z_step))
    z = v + a * a * v_step
    du_step = outs * du_pitch + 64
    at_once = tiles <= FEW_TILES and a * a * du_step > CHUNK_BYTES
    du = 0 if at_once else scratch("u", a * a * du_step)
    slab = a * a * max(in_pitch, out_pitch)
    spare = scratch("convolve", threads() * slab)
    a_rows, c_rows = _rows(outs, 4, TILE_ROWS), _rows(outs, du_pitch, TILE_ROWS)
    for begin in range(0, tiles, chunk):
        count = min(chunk, tiles - begin)
        launch(
            _transform_both, transform, a, x, dy, height, width, ins, out_height, out_width, outs,
            *padding, begin, count, v, v_step, z, z_step, spare, slab, threads(),
        )  # fmt: skip
        if at_once:
            room = (r * r * BYTES + a * a * (TILE_ROWS * TILE_COLUMNS * 4 + 64)) // 64 * 64 + 64
            c_rows = _rows(TILE_ROWS, TILE_COLUMNS * 4, 0)
            launch(
                _multiply_and_transform_back, transform, a, r, count, ins, outs, v, v_step, z, z_step, dw,
                a_rows, c_rows, scratch("convolve", threads() * room), room, threads(),
            )  # fmt: skip
            return
        launch(
            _multiply_frequencies, a * a, count, ins, outs, v, v_step, z, z_step, du, du_step,
            a_rows, c_rows, int(begin > 0), threads(),
        )  # fmt: skip
    launch(_transform_back, transform, a, r, ins, outs, du, du_pitch, du_step, dw, spare, threads())
